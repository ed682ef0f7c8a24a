"""Files that are written whole or not at all, and opened without executing what a stranger put in them."""

import contextlib
import os
import pickle
import tempfile
from pathlib import Path

import simplejson
import torch


@contextlib.contextmanager
def atomic_write(path):
    """Yield a temporary path beside `path`; move it to `path` when the block succeeds, delete it when it fails.

    Raises OSError, naming the directory and the fix, when the directory cannot be written.
    """
    path = Path(path)
    ensure_directory(path.parent)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        _sync(temporary)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path):
    """Force the bytes to disk before the rename, so that a power cut cannot leave a whole name with half a file."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def ensure_directory(directory):
    """Create `directory` and check that files can be written in it; raises OSError that says which and what to do."""
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return directory
    except OSError as error:
        raise OSError(
            f"cannot write in the directory '{directory}' ({error.strerror or error}): "
            "choose another OUTPUT_DIR, free space, or mend its permissions"
        ) from error


def write_json(path, value):
    """Write `value` as indented JSON. NaN and infinity are refused (ValueError): convert them to None first."""
    with atomic_write(path) as temporary:
        temporary.write_text(simplejson.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path):
    """Read a JSON file; a missing or malformed one raises an error that names it."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file '{path}'")
    try:
        return simplejson.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"'{path}' is not valid JSON: {error}") from error


def read_text(path):
    """The text of a file, without a byte order mark; ValueError that names the file when it is no text."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"'{path}' is not a text file: {error}") from error


def save_tensors(path, value):
    """`torch.save` of plain containers, numbers, strings and tensors, atomically."""
    with atomic_write(path) as temporary:
        torch.save(value, temporary)


def load_tensors(path):
    """Load what `save_tensors` wrote, onto the CPU, without running any code that the file may carry.

    Raises FileNotFoundError for a missing file and ValueError for one that is damaged or holds more than data.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint '{path}': give the path of a .pyth file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"'{path}' is not a checkpoint that can be opened safely: it is damaged, or it carries Python objects "
            "beside tensors, which are never executed"
        ) from error
    except Exception as error:  # what torch.load raises on a damaged file is of any kind: struct.error, IndexError, ...
        raise ValueError(f"'{path}' is not a readable checkpoint; it may be cut short ({error})") from error
