"""Files that are written whole or not at all, and opened without executing what a stranger put in them."""

import codecs
import contextlib
import errno
import os
import pickle
import tempfile
import zipfile
from pathlib import Path

import simplejson
import torch


class DamagedFileError(ValueError):
    """A file that is not what was written: cut short, changed on the disk or on its way, or of another kind."""


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


def read_text(path: str | os.PathLike) -> str:
    """The text of a file, without a byte order mark: UTF-8, or UTF-16 with its mark; lines end with a line feed.

    Raises ValueError, naming the file and the line, for what is no text.
    """
    data = Path(path).read_bytes()
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"'{path}', line {line}: it is not {encoding[:6].upper()} text: save the file as UTF-8") from error
    if "\0" in text:
        raise ValueError(f"'{path}' holds NUL characters: it is no text file; save it as UTF-8")
    return text.replace("\r\n", "\n")


def save_tensors(path, value):
    """`torch.save` of plain containers, numbers, strings and tensors, atomically."""
    with atomic_write(path) as temporary:
        torch.save(value, temporary)


def load_tensors(path):
    """Load what `save_tensors` wrote, onto the CPU, without running any code that the file may carry.

    Every byte is checked against the check sums that torch writes; files of torch before 1.6 have none. Nothing larger
    comes out than the file itself announces in its size.
    Raises FileNotFoundError for a missing file, DamagedFileError for one that is damaged, ValueError for one that holds
    more than data, and OSError for one that the disk does not give; each names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint '{path}': give the path of a .pyth file")
    is_checked = _check_parts(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except pickle.UnpicklingError as error:
        # torch's own words advise to load unsafely: they are never passed on.
        kind, cause = (ValueError, "it") if is_checked else (DamagedFileError, "it is damaged, or it")
        raise kind(
            f"'{path}' is not a checkpoint that can be opened safely: {cause} carries Python objects beside tensors, "
            "which are never executed"
        ) from error
    except Exception as error:  # what torch.load raises on a damaged file is of any kind: struct.error, IndexError, ...
        raise DamagedFileError(f"'{path}' is not a readable checkpoint; it may be cut short ({_first_line(error)})") from error
    _check_size(content, path)
    return content


def _first_line(error):
    return (str(error).splitlines() or [""])[0] or type(error).__name__


def _check_parts(path):
    """Compare every part of a torch file with its check sum. False for torch's older form, which has no check sums.

    It takes a fifth of a second for a gigabyte. torch.load itself does not look at them.
    """
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return False
        try:
            with zipfile.ZipFile(file) as archive:
                _check_announced(archive.infolist(), path.stat().st_size)
                damaged = archive.testzip()
        except Exception as error:  # zipfile raises BadZipFile, and on odd headers errors of other kinds
            if isinstance(error, MemoryError) or isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise  # a disk that fails says nothing about the file; a place before its start does
            raise DamagedFileError(
                f"'{path}' is not a readable checkpoint; it is damaged or cut short ({_first_line(error)})"
            ) from error
    if damaged is not None:
        raise DamagedFileError(
            f"'{path}' is not a readable checkpoint; it is damaged: its part '{damaged}' is not what was written"
        )
    return True


def _check_announced(parts, size):
    """torch stores parts as they are: compressed or overlapping ones would unpack to far more than the file's size."""
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise zipfile.BadZipFile("it has compressed parts, which torch never writes")
    if sum(part.file_size for part in parts) > size:
        raise zipfile.BadZipFile("its parts announce more bytes than the file has")


# What one file may hold. Published checkpoints have some thousand entries, saved scores some million.
_MAX_ENTRIES, _MAX_DEPTH, _MAX_EXPANSION = 50_000_000, 100, 64


def _check_size(content, path):
    """DamagedFileError when containers that hold each other, or views, stand for more than the file can mean to hold."""
    entries, size = _size_of(content, {}, path)
    announced = _MAX_EXPANSION * path.stat().st_size
    if entries > _MAX_ENTRIES or size > announced:
        raise DamagedFileError(
            f"'{path}' is not a readable checkpoint; it unfolds to {entries} entries and {size} bytes of tensors, and "
            f"{_MAX_ENTRIES} entries and {announced} bytes ({_MAX_EXPANSION} times its size) are the limits"
        )


def _size_of(value, known, path, depth=0):
    """(entries, bytes of tensors) that a value stands for. known: {id: size} of the containers that were counted."""
    if isinstance(value, torch.Tensor):
        return 1, value.numel() * value.element_size()
    if not isinstance(value, (dict, list, tuple, set)):
        return 1, 0
    if id(value) not in known:
        if depth == _MAX_DEPTH:
            raise DamagedFileError(f"'{path}' is not a readable checkpoint; it is nested over {_MAX_DEPTH} levels deep")
        items = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        sizes = [_size_of(item, known, path, depth + 1) for item in items]
        known[id(value)] = 1 + sum(entries for entries, _ in sizes), sum(size for _, size in sizes)
    return known[id(value)]
