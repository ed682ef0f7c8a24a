"""Pickles of arrays, such as Caffe2's checkpoints, read without executing anything that the file asks for."""

import io
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn

import numpy as np

# The max number of values in the containers of a file, each counted as often as it is reached: a checkpoint has some thousand.
MOST_VALUES = 300_000
# The max number of values in a tuple that is the key of a dict, or in a set: Python walks through all of them each time.
_MOST_KEY_VALUES = 1000


class _Dtype:
    """Stands for `numpy.dtype` while a pickle is read: a code such as f4, and a byte order."""

    def __init__(self, code: object, *flags: object) -> None:
        self.code = code
        self.order: Literal["<", ">", "="] = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = "<" if state[1] == "<" else ">" if state[1] == ">" else "="

    def resolve(self) -> np.dtype:
        dtype = np.dtype(str(self.code))
        if dtype.kind not in "biuf":
            raise ValueError(f"it holds an array of type '{self.code}', and arrays of numbers alone are read")
        return dtype.newbyteorder(self.order)


class _Array:
    """Stands for `numpy.ndarray` while a pickle is read, so that numpy never takes its internal state from a file."""

    def __init__(self, *shell: object) -> None:
        # What a file gives, of any kind until it is resolved.
        self.raw: Any = None
        self.order: Literal["C", "F"] = "C"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.dtype, is_fortran, self.raw = state
        self.order = "F" if is_fortran else "C"

    @classmethod
    def from_buffer(cls, raw: Any, dtype: Any, shape: Any, order: Any) -> "_Array":
        array = cls()
        array.raw, array.dtype, array.shape, array.order = raw, dtype, shape, order
        return array

    @classmethod
    def scalar(cls, dtype: Any, raw: Any) -> "_Array":
        return cls.from_buffer(raw, dtype, (), "C")

    @classmethod
    def latin1(cls, text: str, encoding: str) -> bytes:
        """Bytes as Python 3 writes them in the old protocols; other codecs are nothing that data needs."""
        return text.encode("latin1")

    def resolve(self) -> np.ndarray:
        raw = self.raw.encode("latin1") if isinstance(self.raw, str) else self.raw
        array = np.frombuffer(raw, self.dtype.resolve()).reshape(self.shape, order=self.order)
        return array.astype(array.dtype.newbyteorder("="))


_NUMPY = {"_reconstruct": _Array, "scalar": _Array.scalar}
_ALLOWED = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Array.latin1,
    ("collections", "OrderedDict"): OrderedDict,
    **{(f"numpy.{core}.multiarray", name): made for core in ("core", "_core") for name, made in _NUMPY.items()},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Array.from_buffer for core in ("core", "_core")},
}


class EndlessKeyError(ValueError):
    """A pickle has a key of a dict that holds so many values, of a few bytes, that hashing it never ends."""


class _Tuple(tuple):
    """A tuple of a file, which counts what it holds as it is made: a pair of a pair of a pair takes a byte each to write
    and twice the time of the last one to walk through, as the hash of a dict's key does."""

    num_values: int

    def __new__(cls, items: Iterable[Any]) -> "_Tuple":
        made = super().__new__(cls, items)
        made.num_values = min(sum(item.num_values if isinstance(item, _Tuple) else 1 for item in made), 10**9)
        return made

    def __hash__(self) -> int:
        if self.num_values > _MOST_KEY_VALUES:
            raise EndlessKeyError(f"it has a key of over {_MOST_KEY_VALUES} values")
        return super().__hash__()


class _Steps(dict):
    """What an unpickler does for each code of a pickle."""

    def __missing__(self, code: int) -> NoReturn:
        raise pickle.UnpicklingError(f"it has the step {code}, which no pickle has")


class _CountingUnpickler(pickle._Unpickler):
    """Python's own unpickler in Python, whose tuples can be counted; a checkpoint is a few thousand steps and large bytes."""

    stack: list[Any]
    dispatch = _Steps(pickle._Unpickler.dispatch)


def _counted(load: Callable[[Any], None]) -> Callable[[Any], None]:
    def load_tuple(reader: Any) -> None:
        load(reader)
        reader.stack[-1] = _Tuple(reader.stack[-1])

    return load_tuple


for _code in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3):
    _CountingUnpickler.dispatch[_code[0]] = _counted(pickle._Unpickler.dispatch[_code[0]])


class _DataUnpickler(_CountingUnpickler):
    dispatch = _Steps(_CountingUnpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ALLOWED[module, name]

    def load_build(self) -> None:
        """State is for the stand-ins alone: nothing else that a file can name has any."""
        if not isinstance(self.stack[-2], (_Array, _Dtype)):
            raise pickle.UnpicklingError(f"it sets the state of a {type(self.stack[-2]).__name__}")
        _CountingUnpickler.dispatch[pickle.BUILD[0]](self)

    dispatch[pickle.BUILD[0]] = load_build


class _Anything(dict):
    """Stands for whatever a pickle names, in a run that only looks at keys."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__()

    def __hash__(self) -> int:  # type: ignore[override]  # a dict has none, and what it stands for may be a key
        return id(self)

    def append(self, item: object) -> None:
        pass

    def extend(self, items: object) -> None:
        pass


class _DryRun(_CountingUnpickler):
    dispatch = _Steps(_CountingUnpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        return _Anything

    def persistent_load(self, name: object) -> Any:
        return _Anything()

    def load_build(self) -> None:
        self.stack.pop()

    dispatch[pickle.BUILD[0]] = load_build


def check_keys(stream: BinaryIO, count: int = 1) -> None:
    """Look at the keys of dicts in `count` pickles of a stream, without making or executing anything that they name.

    Raises EndlessKeyError where hashing a key would take for ever, which every reader of the pickle does. Other damage is
    left to that reader.
    """
    try:
        for _ in range(count):
            _DryRun(stream, encoding="latin1").load()
    except EndlessKeyError:
        raise
    except Exception:  # a damaged pickle raises errors of any kind
        return


def load_arrays(path: str | os.PathLike) -> Any:
    """Dicts, lists, tuples, text, numbers and numpy arrays of numbers from a pickle of Python 2 or 3.

    Raises FileNotFoundError for a missing file, and ValueError that names the file when it is damaged or asks for
    anything else: such a request is refused, never executed. Work and memory are bounded by the file's size, and by
    MOST_VALUES for containers that stand in many places.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file '{path}': give the path of a .pkl file")
    try:
        # From memory: a file that announces more bytes than it has is given what there is.
        content = _DataUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
        _check_size(content)
        return _resolved(content)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"'{path}' is not a pickle that can be opened safely: it is damaged, or it carries more than arrays and "
            f"plain containers, which is never executed ({error})"
        ) from error
    except Exception as error:  # a damaged pickle raises errors of any kind: EOFError, KeyError, MemoryError, ...
        raise ValueError(f"'{path}' is not a readable pickle of arrays; it may be cut short ({error})") from error


def _check_size(content: object) -> None:
    """ValueError where containers hold too many values, each counted as often as it is reached, or hold themselves."""
    seen, waiting = 0, [content]
    while waiting:
        value = waiting.pop()
        inside = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        if isinstance(inside, (list, tuple)):
            seen += len(inside)
            waiting.extend(inside)
        if seen > MOST_VALUES:
            raise ValueError(f"its containers hold over {MOST_VALUES:,} values, counted as often as they are reached")


def _resolved(value: Any) -> Any:
    if isinstance(value, _Array):
        return value.resolve()
    if isinstance(value, dict):
        return {_resolved(key): _resolved(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return (tuple if isinstance(value, tuple) else list)(map(_resolved, value))
    if value is None or isinstance(value, (str, bytes, int, float, complex)):
        return value
    raise ValueError(f"it holds a {type(value).__name__}, and arrays, numbers, text and plain containers alone are read")
