"""One short text that changes when anything that it stands for changes: what caches and resumes are known by."""

import dataclasses
import enum
import hashlib
import numbers
import struct
from collections.abc import Callable, Collection, Mapping
from pathlib import PurePath
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch


@runtime_checkable
class Fingerprinted(Protocol):
    """What states its own content in a text, and so may be a part of a fingerprint."""

    def fingerprint(self) -> str:
        """Text that is the same in every process for the same content, and another one for another content."""


def fingerprint(*parts: object) -> str:
    """32 hexadecimal digits that change when any part does; the same in every process and on every machine.

    A part is a number, text, bytes, None, a path, a tensor or array (its type, its shape and every element), a list or
    tuple (both count alike), a dict or set (their order does not count), an enum's member, a dataclass of such, or an
    object with a method `fingerprint() -> str`.
    Raises TypeError for anything else: its repr may be an address, or leave elements out.
    """
    sha = hashlib.sha256()
    for part in parts:
        _feed(sha.update, part)
    return sha.hexdigest()[:32]


def _feed(update: Callable, part: object) -> None:
    """Hand a part over as a kind, a length and bytes, so that no two different rows of parts give the same bytes."""
    if part is None or isinstance(part, (bool, str, bytes, torch.dtype, torch.device)):
        data = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        _feed_bytes(update, type(part).__name__, data)
    elif isinstance(part, torch.Tensor):
        _feed_tensor(update, part)
    elif isinstance(part, (np.ndarray, np.generic)):
        _feed_array(update, np.asarray(part))
    elif isinstance(part, enum.Enum):
        _feed_all(update, f"enum {type(part).__qualname__}", [part.name])
    elif isinstance(part, numbers.Integral):
        _feed_bytes(update, "int", str(int(part)).encode())
    elif isinstance(part, float):
        _feed_bytes(update, "float", struct.pack("<d", part))
    elif isinstance(part, PurePath):
        _feed_bytes(update, "path", str(part).encode("utf-8", "surrogatepass"))
    elif isinstance(part, range):
        _feed_all(update, "range", [part.start, part.stop, part.step])
    elif isinstance(part, (list, tuple)):
        _feed_all(update, "list", part)
    elif isinstance(part, Mapping):
        _feed_unordered(update, "dict", [[key, value] for key, value in part.items()])
    elif isinstance(part, (set, frozenset)):
        _feed_unordered(update, "set", part)
    elif isinstance(part, Fingerprinted) and not isinstance(part, type):
        _feed_all(update, f"object {type(part).__qualname__}", [part.fingerprint()])
    elif dataclasses.is_dataclass(part) and not isinstance(part, type):
        fields = [[field.name, getattr(part, field.name)] for field in dataclasses.fields(part)]
        _feed_all(update, f"dataclass {type(part).__qualname__}", fields)
    else:
        raise TypeError(
            f"a fingerprint of {type(part).__module__}.{type(part).__qualname__} is not defined: give what it holds as "
            "plain data, or give it a method fingerprint() -> str"
        )


def _feed_bytes(update: Callable, kind: str, data: bytes) -> None:
    update(f"{kind} {len(data)}:".encode())
    update(data)


def _feed_all(update: Callable, kind: str, parts: Collection[Any]) -> None:
    update(f"{kind} {len(parts)}:".encode())
    for part in parts:
        _feed(update, part)


def _feed_unordered(update: Callable, kind: str, parts: Collection[Any]) -> None:
    """In the order of the parts' own bytes: a dict that was filled in another order is the same dict."""
    update(f"{kind} {len(parts)}:".encode())
    for digits in sorted(fingerprint(part) for part in parts):
        update(digits.encode())


def _feed_tensor(update: Callable, tensor: torch.Tensor) -> None:
    if tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized:
        raise TypeError(f"a fingerprint of a tensor on {tensor.device} with {tensor.layout} is not defined: it needs its values")
    update(f"tensor {tensor.dtype} {tuple(tensor.shape)}:".encode())
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    update(plain.view(torch.uint8).numpy())


def _feed_array(update: Callable, array: np.ndarray) -> None:
    update(f"array {array.dtype.str} {array.dtype.descr if array.dtype.names else ''} {array.shape}:".encode())
    if array.dtype.hasobject or array.dtype.kind == "T":
        _feed_all(update, "elements", array.reshape(-1).tolist())
    elif array.size:
        update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
