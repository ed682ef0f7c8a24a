"""Messages between a process and its worker: small ones by the line, tensors in anonymous memory that the other side maps.

torch keeps what processes share in /dev/shm, which a container has 64 MB of; no mounted file system limits this memory.
"""

import io
import mmap
import os
import pickle
import tempfile
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

import torch

# Where each tensor begins: what processors and copies like.
_ALIGNMENT = 64


class _Pickler(pickle.Pickler):
    """Leaves tensors out: they are collected in `tensors`, each with the place of its bytes."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5)
        self.tensors: list[tuple[int, torch.Tensor]] = []
        self.size = 0

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or value.device.type != "cpu" or value.layout != torch.strided or not value.numel():
            return None
        dense = _in_memory_order(value.detach())
        if dense is None:
            value = value.detach().contiguous()
            dense = value
        offset, self.size = self.size, self.size + -(-dense.numel() * dense.element_size() // _ALIGNMENT) * _ALIGNMENT
        self.tensors.append((offset, dense))
        return offset, value.dtype, tuple(value.shape), value.stride()


def _in_memory_order(tensor: torch.Tensor) -> torch.Tensor | None:
    """The same elements with dimensions permuted such that they lie one after the other; None where they do not."""
    strides = tensor.stride()
    permuted = tensor.permute(sorted(range(tensor.ndim), key=lambda dimension: -strides[dimension]))
    return permuted if permuted.is_contiguous() else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, memory: mmap.mmap) -> None:
        super().__init__(file)
        self._memory = memory

    def persistent_load(self, place: Any) -> torch.Tensor:
        offset, dtype, shape, stride = place
        flat = torch.frombuffer(self._memory, dtype=dtype, count=torch.Size(shape).numel(), offset=offset)
        return flat.as_strided(shape, stride)


def send(connection: Connection, value: object) -> None:
    """Pickle a value, with its tensors beside it in anonymous memory. Raises OSError where the other end is gone."""
    body = io.BytesIO()
    pickler = _Pickler(body)
    pickler.dump(value)
    if not pickler.tensors:
        connection.send_bytes(b"\0" + body.getbuffer())
        return
    memory = _anonymous_memory()
    try:
        os.ftruncate(memory, pickler.size)
        for offset, tensor in pickler.tensors:
            _write(memory, offset, tensor)
        connection.send_bytes(b"\1" + body.getbuffer())
        reduction.send_handle(connection, memory, os.getppid())
    finally:
        os.close(memory)


def _anonymous_memory() -> int:
    """A file descriptor of memory that no directory holds, hence not the often small /dev/shm either."""
    try:
        return os.memfd_create("clips")
    except (AttributeError, OSError):  # another system than Linux, or one that forbids it
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())


def _write(descriptor: int, offset: int, tensor: torch.Tensor) -> None:
    # Written, not mapped: where there is no memory left, writing raises an error, and touching a map is a bus error.
    left = tensor.reshape(-1).view(torch.uint8).numpy().data
    while left:
        written = os.pwrite(descriptor, left, offset)
        left, offset = left[written:], offset + written


def receive(connection: Connection) -> Any:
    """What `send` sent; its tensors lie in the memory that was sent. Raises EOFError or OSError where the other end is gone."""
    data = connection.recv_bytes()
    if not data[0]:
        return pickle.loads(memoryview(data)[1:])
    memory = reduction.recv_handle(connection)
    try:
        return _Unpickler(io.BytesIO(memoryview(data)[1:]), mmap.mmap(memory, 0)).load()
    finally:
        os.close(memory)
