"""Files that are written whole or not at all, and opened without executing what a stranger put in them."""

import codecs
import contextlib
import errno
import io
import os
import pickle
import re
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import simplejson
import torch

from .pickles import EndlessKeyError, check_keys
from .processes import this_process


class DamagedFileError(ValueError):
    """A file that is not what was written: cut short, changed on the disk or on its way, or of another kind."""


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike, size: int | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it to `path` when the block succeeds, delete it when it fails.

    size: bytes that will be needed, where that is known, for the error message.
    Raises OSError that names the file or directory, the free space and the fix when it cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"cannot write '{path}': there is a directory of this name; move it away, or give the path of a file")
    ensure_directory(path.parent)
    temporary = _temporary_path(path)
    try:
        with _explained(path, size):
            yield temporary
            _sync(temporary)
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # what the block raised is the cause to hear of
            temporary.unlink(missing_ok=True)


def _temporary_path(path: Path) -> Path:
    """An empty file that says which process writes it, so that `remove_leftovers` can tell whether it still does."""
    writer = this_process()
    name = path.name.encode("utf-8", "surrogateescape")[:80].decode("utf-8", "ignore")  # names end at 255 bytes
    prefix = f".{name}.{writer.place[:80]}+{writer.pid}+{writer.started}."
    descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=".tmp", dir=path.parent)
    os.close(descriptor)
    return Path(name)


# What `_temporary_path` names, and what earlier versions of this project did.
_LEFTOVER = re.compile(r"\..+\.(?P<place>[A-Za-z0-9_-]+)\+(?P<pid>\d+)\+(?P<started>\d+)\.[a-z0-9_]{8}\.tmp")
_OLD_LEFTOVER = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp")


def remove_leftovers(directory: str | os.PathLike, hours: float = 1.0) -> list[Path]:
    """Delete the temporary files of writers that were killed in `directory`; the paths that were deleted.

    A file whose writer lives on this machine stays. One from another machine, whose processes cannot be seen from here,
    goes when nothing was written to it for `hours`.
    """
    removed = []
    for path in sorted(Path(directory).glob(".*.tmp")):
        with contextlib.suppress(OSError):  # another process may be at the same
            if path.is_file() and _is_left_over(path, hours):
                path.unlink()
                removed.append(path)
    return removed


def _is_left_over(path: Path, hours: float) -> bool:
    named = _LEFTOVER.fullmatch(path.name)
    if not named and not _OLD_LEFTOVER.fullmatch(path.name):
        return False
    alive = None
    if named and named["place"] == this_process().place[:80]:
        alive = replace(this_process(), pid=int(named["pid"]), started=int(named["started"])).is_alive()
    return time.time() - path.stat().st_mtime > 3600 * hours if alive is None else not alive


_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# torch's writer knows no errno: these are the words in which it says that the disk took less than it gave.
_TORCH_WRITE_ERRORS = ("unexpected pos", "failed writing", "PytorchStreamWriter", "inline_container")


@contextlib.contextmanager
def _explained(path: Path, size: int | None) -> Iterator[None]:
    """What the disk refuses, in a sentence that names the file, what is needed, what is free, and the fix."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause = _disk_error(error)
        if cause is None:
            raise
        free = shutil.disk_usage(path.parent).free
        needed = "" if size is None else f"{readable_size(size)} are needed, "
        fix = "free space there" if cause.errno in _NO_SPACE or cause.errno is None else "mend that"
        raise OSError(
            f"cannot write '{path}' ({cause.strerror or cause}; {needed}{readable_size(free)} are free on its disk): {fix}, or "
            "choose another place, and start the same command again"
        ) from error


def _disk_error(error: BaseException) -> OSError | None:
    """The OSError of a write in an exception or in what led to it; None when the disk is not the cause."""
    if type(error) is RuntimeError:
        link = error.__cause__ or error.__context__
        if isinstance(link, OSError):
            return _disk_error(link)
        if any(words in str(error) for words in _TORCH_WRITE_ERRORS):
            return OSError("the disk took less than it was given; it is full, or a limit is reached")
        return None
    return error if isinstance(error, OSError) and error.errno in (*_NO_SPACE, errno.EIO, errno.EROFS, errno.ESTALE) else None


def files_under(folder: str | Path) -> list[Path]:
    """The files in a folder and the folders in it, sorted; links to folders are followed, each folder once."""
    found, seen = [], set[tuple[int, int]]()
    for root, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(root)
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder above it
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        found += [path for path in map(Path(root).joinpath, names) if path.is_file()]
    return sorted(found)


def state_of(path: str | os.PathLike) -> tuple[int, int] | None:
    """(size in bytes, time of modification in ns) of a file, by which a changed one is known; None where it is not there."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a name with a NUL
        return None
    return status.st_size, status.st_mtime_ns


def readable_size(size: float) -> str:
    """`size` bytes as text, in bytes, kB, MB or GB."""
    unit = "bytes"
    for larger in ("kB", "MB", "GB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.4g} {unit}"


def _sync(path: Path) -> None:
    """Force the bytes to disk before the rename, so that a power cut cannot leave a whole name with half a file."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def ensure_directory(directory: str | os.PathLike) -> Path:
    """Create `directory` and check that files can be written in it; raises OSError that says which and what to do."""
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return directory
    except OSError as error:
        raise OSError(
            f"cannot write in the directory '{directory}' ({error.strerror or error}): "
            "choose another directory, free space, or mend its permissions"
        ) from error


def write_json(path: str | os.PathLike, value: object) -> None:
    """Write `value` as indented JSON. NaN and infinity are refused (ValueError): convert them to None first."""
    with atomic_write(path) as temporary:
        temporary.write_text(simplejson.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


# A query table of ten thousand rows has 5 MB.
_MAX_JSON_BYTES = 256_000_000


def read_json(path: str | os.PathLike, max_bytes: int = _MAX_JSON_BYTES) -> Any:
    """Read a JSON file; a missing, malformed or oversized one, of more than `max_bytes`, raises an error that names it."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file '{path}'")
    size = path.stat().st_size
    if size > max_bytes:
        raise ValueError(f"'{path}' has {readable_size(size)}: JSON files of at most {readable_size(max_bytes)} are read")
    try:
        return simplejson.loads(read_text(path))
    except RecursionError as error:
        raise ValueError(f"'{path}' is not valid JSON: it is nested too deeply") from error
    except ValueError as error:
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
        raise ValueError(f"'{path}', line {line}: it is not {encoding.upper().removesuffix('-SIG')} text: save the file as UTF-8") from error
    if "\0" in text:
        raise ValueError(f"'{path}' holds NUL characters: it is no text file; save it as UTF-8")
    return text.replace("\r\n", "\n")


def save_tensors(path: str | os.PathLike, value: object) -> None:
    """`torch.save` of plain containers, numbers, strings and tensors, atomically; errors as of `atomic_write`."""
    _, size = _size_of(value, {}, path)
    # Given a path, torch writes its name into the file: the same content would give other bytes each time.
    with atomic_write(path, size) as temporary, open(temporary, "wb") as file:
        torch.save(value, file)


def load_tensors(path: str | os.PathLike) -> Any:
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
    _check_keys(path, is_checked)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    # torch's own words advise to load unsafely: they are never passed on.
    except pickle.UnpicklingError as error:
        kind, cause = (ValueError, "it") if is_checked else (DamagedFileError, "it is damaged, or it")
        raise kind(
            f"'{path}' is not a checkpoint that can be opened safely: {cause} carries Python objects beside tensors, "
            "which are never executed"
        ) from error
    except Exception as error:  # what torch.load raises on a damaged file is of any kind: struct.error, IndexError, ...
        raise DamagedFileError(f"'{path}' is not a readable checkpoint; it may be cut short ({_first_line(error)})") from error
    _check_size(content, path)
    return content


def check_tensors(path: str | os.PathLike) -> None:
    """Raise what `load_tensors` would for a damaged file, without loading what has check sums."""
    if not _check_parts(Path(path)):
        load_tensors(path)


def _check_keys(path: Path, is_zip: bool) -> None:
    """DamagedFileError for a key of a dict that torch's reader would hash for ever."""
    try:
        if not is_zip:
            with open(path, "rb") as file:
                # torch's older form: a magic number, the protocol, the system, the content and the storages' names.
                return check_keys(file, count=5)
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith("data.pkl"):
                    check_keys(io.BytesIO(archive.read(name)))
    except EndlessKeyError as error:
        raise DamagedFileError(f"'{path}' is not a readable checkpoint; {error}") from error


def _first_line(error: Exception) -> str:
    line = (str(error).splitlines() or [""])[0]
    return type(error).__name__ if not line or "weights_only" in line else line


def _check_parts(path: Path) -> bool:
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


# A bit of a part's attributes: torch's reader gives no bytes for such a part.
_IS_DIRECTORY = 0x10


def _check_announced(parts: Sequence[zipfile.ZipInfo], size: int) -> None:
    """torch stores parts as they are: compressed or overlapping ones would unpack to far more than the file's size."""
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise zipfile.BadZipFile("it has compressed parts, which torch never writes")
    if any(part.external_attr & _IS_DIRECTORY for part in parts):
        raise zipfile.BadZipFile("one of its parts is marked as a directory")
    if sum(part.file_size for part in parts) > size:
        raise zipfile.BadZipFile("its parts announce more bytes than the file has")


# What one file may hold. Published checkpoints have some thousand entries, saved scores some million.
_MAX_ENTRIES, _MAX_DEPTH, _MAX_EXPANSION = 50_000_000, 100, 64


def _check_size(content: object, path: Path) -> None:
    """DamagedFileError when containers that hold each other, or views, stand for more than the file can mean to hold."""
    entries, size = _size_of(content, {}, path)
    announced = _MAX_EXPANSION * path.stat().st_size
    if entries > _MAX_ENTRIES or size > announced:
        raise DamagedFileError(
            f"'{path}' is not a readable checkpoint; it unfolds to {entries} entries and {size} bytes of tensors, and "
            f"{_MAX_ENTRIES} entries and {announced} bytes ({_MAX_EXPANSION} times its size) are the limits"
        )


def _size_of(value: object, known: dict[int, tuple[int, int]], path: str | os.PathLike, depth: int = 0) -> tuple[int, int]:
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
