"""Numbers of a GPU for the host, which does not stop for them."""

import torch


class HostCopy:
    """A tensor on its way to the host.

    The copy is asked for when this is made; `tolist` waits until it is there, and not for what the device was given to do
    since. To ask for a number at once (`tensor.item()`) would leave a GPU idle until the host has come back with more work.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        # Into pinned memory, which a GPU writes by itself.
        self._values = tensor.detach().to("cpu", non_blocking=True)
        is_on_gpu = tensor.device.type == "cuda"
        self._arrival = torch.cuda.current_stream(tensor.device).record_event() if is_on_gpu else None

    def tolist(self) -> list:
        """The numbers, as of `torch.Tensor.tolist`."""
        if self._arrival is not None:
            self._arrival.synchronize()
        return self._values.tolist()
