"""Pickles of arrays, such as Caffe2's checkpoints, read without executing anything that the file asks for."""

import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np


class _Dtype:
    """Stands for `numpy.dtype` while a pickle is read: a code such as f4, and a byte order."""

    def __init__(self, code, *flags):
        self.code, self.order = code, "="

    def __setstate__(self, state):
        self.order = {"<": "<", ">": ">"}.get(state[1], "=")

    def resolve(self):
        dtype = np.dtype(str(self.code))
        if dtype.kind not in "biuf":
            raise ValueError(f"it holds an array of type '{self.code}', and arrays of numbers alone are read")
        return dtype.newbyteorder(self.order)


class _Array:
    """Stands for `numpy.ndarray` while a pickle is read, so that numpy never takes its internal state from a file."""

    def __init__(self, *shell):
        self.raw = None

    def __setstate__(self, state):
        _, self.shape, self.dtype, is_fortran, self.raw = state
        self.order = "F" if is_fortran else "C"

    @classmethod
    def from_buffer(cls, raw, dtype, shape, order):
        array = cls()
        array.raw, array.dtype, array.shape, array.order = raw, dtype, shape, order
        return array

    @classmethod
    def scalar(cls, dtype, raw):
        return cls.from_buffer(raw, dtype, (), "C")

    @classmethod
    def latin1(cls, text, encoding):
        """Bytes as Python 3 writes them in the old protocols; other codecs are nothing that data needs."""
        return text.encode("latin1")

    def resolve(self):
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


class _DataUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ALLOWED[module, name]


def load_arrays(path):
    """Dicts, lists, tuples, text, numbers and numpy arrays of numbers from a pickle of Python 2 or 3.

    Raises FileNotFoundError for a missing file, and ValueError that names the file when it is damaged or asks for
    anything else: such a request is refused, never executed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file '{path}': give the path of a .pkl file")
    try:
        with open(path, "rb") as file:
            return _resolved(_DataUnpickler(file, encoding="latin1").load())
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"'{path}' is not a pickle that can be opened safely: it is damaged, or it carries more than arrays and "
            f"plain containers, which is never executed ({error})"
        ) from error
    except Exception as error:  # a damaged pickle raises errors of any kind: EOFError, KeyError, MemoryError, ...
        raise ValueError(f"'{path}' is not a readable pickle of arrays; it may be cut short ({error})") from error


def _resolved(value):
    if isinstance(value, _Array):
        return value.resolve()
    if isinstance(value, dict):
        return {_resolved(key): _resolved(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_resolved, value))
    return value
