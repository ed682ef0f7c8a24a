"""What gives a training its batches."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol


class BatchSource(Protocol):
    """`len()` batches of this process an epoch, `num_samples` samples of all processes together.

    A `ClipLoader` is one, and whatever makes batches of what the network does.
    """

    num_samples: int

    def __len__(self) -> int: ...

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Any]:
        """The batches of an epoch after the first `start` (clips uint8 B, V, C, T, H, W). One is asked for when the step of the one before
        it is done, so that it may come of what the network does."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint inside an epoch keeps of this process's source, tensors and plain containers, to give the batches that follow."""

    def load_state(self, states: Sequence[dict[str, Any]]) -> None:
        """Take what `state` gave in each process. states: in the order of ranks. ValueError where no batch can follow from them."""
