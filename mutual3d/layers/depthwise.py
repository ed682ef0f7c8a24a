"""Depthwise 3D convolutions with a faster backward on CPUs: `conv3d` in the place of `torch.nn.functional.conv3d`.

This file needs PyTorch and nothing else, so that another project can take it as it is.

**What.** On a CPU, PyTorch computes the gradients of a depthwise 3D convolution with oneDNN's kernels for dense ones, several times
slower than its kernels for 2D depthwise convolutions and for forward passes. `conv3d` gives exactly what `F.conv3d` gives, and computes
the two gradients, each for itself, in one of these ways (x is N, C, T, H, W; all keep channels last, and none copies x):

gradient of the input
    `autograd`  PyTorch's own.
    `forward`   A forward convolution of the gradient with the flipped kernel. With strides one for each phase, that is for the positions of x
                with the same remainder: stride 2 in height and width makes four, each of the taps that reach it. A kernel in time alone
                runs in 2D, over images of T rows and H * W columns.
    `spread`    For strides: the gradient spread over the positions of x, with zeros between, and one forward convolution of it.
gradient of the weight
    `autograd`  PyTorch's own.
    `plane`     Kernels in time alone: the 2D gradient, over images of T rows and H * W columns.
    `frames`    For each tap in time the gradient of a 2D convolution, with the frames of all clips as one batch.
    `shifted`   For each tap the product of the gradient and the shifted x, summed.
    `dense`     For maps of a few pixels: each channel's convolution in space as a matrix, whose gradient is a matrix product.

**When.** Only where a gradient will be computed: float32 or float64 in channels last (`torch.channels_last_3d`) on a CPU whose instructions were
measured (AVX2, AVX512), as many groups as inputs and outputs, without autocast. Anything else, evaluation, `torch.compile`, `torch.export` and
tracing get `F.conv3d` itself. Second derivatives are PyTorch's own as well: a backward that is itself recorded (`create_graph=True`)
runs PyTorch's formula. Forward-mode derivatives and `vmap` need `F.conv3d`.

**How chosen.** By `RULES`, from the shapes alone: two runs of the same shapes take the same ways, and a resumed run stays equal to the
uninterrupted one, which a choice measured at run time could not promise. `python benchmarks/depthwise.py` measures every way on a grid of
shapes, with both sets of instructions, and derives the rules.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

Pair = tuple[int, int]
Triple = tuple[int, int, int]

# ---- The rules -----------------------------------------------------------------------------------------------------------

# {(gradient, kind of convolution): ((up to so many pixels in a frame of the output, way), ...)}; `benchmarks/depthwise.py` prints them,
# but for dilations, which oneDNN's fast kernels lack: there the ways gain for some shapes and lose for others.
RULES: dict[tuple[str, str], tuple[tuple[float, str], ...]] = {
    ("input", "temporal"): ((math.inf, "forward"),),
    ("input", "dilated"): ((math.inf, "autograd"),),
    ("input", "strided"): ((324, "spread"), (math.inf, "forward")),
    ("input", "unit"): ((math.inf, "forward"),),
    ("weight", "temporal"): ((math.inf, "plane"),),
    ("weight", "dilated"): ((math.inf, "autograd"),),
    ("weight", "strided"): ((4, "shifted"), (math.inf, "frames")),
    ("weight", "unit"): ((16, "dense"), (math.inf, "frames")),
}
MEASURED_INSTRUCTIONS = ("AVX2", "AVX512")


def kind_of(kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]) -> str:
    """`dilated`: any dilation; `temporal`: a kernel in time alone, which keeps pixels apart; `strided`: others with a stride; `unit`: without.

    kernel, stride, padding, dilation: each (time, height, width).
    """
    if max(dilation) > 1:
        return "dilated"
    if tuple(kernel[1:]) == tuple(stride[1:]) == (1, 1) and tuple(padding[1:]) == (0, 0):
        return "temporal"
    return "unit" if max(stride) == 1 else "strided"


def choose_ways(
    output_size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> tuple[str, str]:
    """The ways of the input's and of the weight's gradient.

    output_size, kernel, stride, padding, dilation: each (time, height, width).
    """
    kind, pixels = kind_of(kernel, stride, padding, dilation), output_size[1] * output_size[2]
    input_way, weight_way = (
        next(way for most, way in RULES[gradient, kind] if pixels <= most) for gradient in ("input", "weight")
    )
    return input_way, weight_way


# ---- The convolution -----------------------------------------------------------------------------------------------------


def conv3d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> torch.Tensor:
    """`torch.nn.functional.conv3d`, bit for bit, with a backward of its own where that is faster.

    x: N, C, T, H, W. weight: outputs, inputs / groups, and three sizes. bias: one number for each output. stride, padding, dilation: one
    number or (time, height, width). groups: into how many the channels are divided.
    """
    if not _has_own_backward(x, weight, groups):
        return F.conv3d(x, weight, bias, stride, padding, dilation, groups)  # type: ignore[arg-type]  # sequences as well as tuples
    return _DepthwiseConv3d.apply(x, weight, bias, _triple(stride), _triple(padding), _triple(dilation))


def _has_own_backward(x: torch.Tensor, weight: torch.Tensor, groups: int) -> bool:
    return (
        torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and groups > 1
        and (x.requires_grad or weight.requires_grad)
        and x.ndim == weight.ndim == 5
        and groups == x.shape[1] == weight.shape[0]
        and x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and x.is_contiguous(memory_format=torch.channels_last_3d)
        and x.numel() > 0
        and weight[0].numel() > 1
        and torch.backends.cpu.get_cpu_capability() in MEASURED_INSTRUCTIONS
        and torch.backends.mkldnn.is_available()
    )


def _triple(value: int | Sequence[int]) -> Triple:
    time, height, width = (value,) * 3 if isinstance(value, int) else value
    return time, height, width


class _DepthwiseConv3d(torch.autograd.Function):
    @staticmethod
    def forward(
        x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: Triple, padding: Triple, dilation: Triple
    ) -> torch.Tensor:
        return F.conv3d(x, weight, bias, stride, padding, dilation, weight.shape[0])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        x, weight, _, *ctx.settings = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding, dilation = ctx.settings
        of_input, of_weight, of_bias = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():
            # This backward is recorded, for derivatives of derivatives: PyTorch knows those of its own.
            ways = "autograd", "autograd"
        else:
            grad = grad.contiguous(memory_format=torch.channels_last_3d)
            ways = choose_ways(grad.shape[2:], weight.shape[2:], stride, padding, dilation)
        given = Given(grad, x, weight, stride, padding, dilation)
        grad_x = INPUT_WAYS[ways[0]](given).contiguous(memory_format=torch.channels_last_3d) if of_input else None
        grad_weight = WEIGHT_WAYS[ways[1]](given) if of_weight else None
        grad_bias = grad.sum((0, 2, 3, 4)) if of_bias else None
        return grad_x, grad_weight, grad_bias, None, None, None


# ---- The ways ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Given:
    """What a gradient is computed of.

    grad: N, C, T', H', W' and x: N, C, T, H, W, both in channels last. weight: C, 1 and three sizes. stride, padding, dilation: each
    (time, height, width).
    """

    grad: torch.Tensor
    x: torch.Tensor
    weight: torch.Tensor
    stride: Triple
    padding: Triple
    dilation: Triple

    @property
    def channels(self) -> int:
        """How many x has."""
        return self.x.shape[1]

    def overlap(self, axis: int, tap: int) -> tuple[slice, slice] | None:
        """The positions of x and of the output, along an axis, that a tap of the kernel connects; None where there are none.

        axis: 0, 1 or 2, of time, height and width. tap: its number in the kernel, along the axis.
        """
        stride, length = self.stride[axis], self.x.shape[2 + axis]
        offset = tap * self.dilation[axis] - self.padding[axis]
        first = max(0, -(offset // stride))
        end = min(self.grad.shape[2 + axis], (length - 1 - offset) // stride + 1)
        if end <= first:
            return None
        start = first * stride + offset
        return slice(start, start + (end - first - 1) * stride + 1, stride), slice(first, end)


def _autograd_input(given: Given) -> torch.Tensor:
    return _autograd(given, of_input=True)


def _autograd_weight(given: Given) -> torch.Tensor:
    return _autograd(given, of_input=False)


def _autograd(given: Given, of_input: bool) -> torch.Tensor:
    grads = torch.ops.aten.convolution_backward(
        given.grad, given.x, given.weight, None, given.stride, given.padding, given.dilation, False, (0, 0, 0), given.channels,
        (of_input, not of_input, False),
    )  # fmt: skip
    return grads[0 if of_input else 1]


class _Phase(NamedTuple):
    """The positions first, first + stride, ... of an axis of x, and the convolution of the gradient that gives theirs."""

    first: int
    taps: list[int]  # of the kernel, from last to first: flipped
    dilation: int
    padding: int
    kept: slice  # of the convolution's outputs


def _phases(given: Given, axis: int) -> Iterator[_Phase]:
    """x[first + stride * j] takes from grad[j + reach + dilation * i] by taps[i]: a convolution that begins at `reach`."""
    length, outputs, size = given.x.shape[2 + axis], given.grad.shape[2 + axis], given.weight.shape[2 + axis]
    stride, padding, dilation = given.stride[axis], given.padding[axis], given.dilation[axis]
    for first in range(min(stride, length)):
        taps = [tap for tap in reversed(range(size)) if (first + padding - dilation * tap) % stride == 0]
        if taps:
            reaches = [(first + padding - dilation * tap) // stride for tap in taps]
            step = reaches[1] - reaches[0] if len(taps) > 1 else 1
            count = len(range(first, length, stride))
            pad = max(0, -reaches[0], count + reaches[-1] - outputs)
            yield _Phase(first, taps, step, pad, slice(reaches[0] + pad, reaches[0] + pad + count))


def _forward_input(given: Given) -> torch.Tensor:
    axes = [list(_phases(given, axis)) for axis in range(3)]
    if max(given.stride) == 1:
        return _of_phase(given, [phases[0] for phases in axes])
    is_full = all(len(phases) == min(stride, length) for phases, stride, length in zip(axes, given.stride, given.x.shape[2:]))
    grad_x = torch.empty_like(given.x) if is_full else torch.zeros_like(given.x)
    for phases in itertools.product(*axes):
        positions = (slice(phase.first, None, stride) for phase, stride in zip(phases, given.stride))
        grad_x[_last(positions)] = _of_phase(given, phases)
    return grad_x


def _of_phase(given: Given, phases: Sequence[_Phase]) -> torch.Tensor:
    weight = given.weight
    for axis, phase in enumerate(phases):
        weight = weight.index_select(2 + axis, torch.tensor(phase.taps, device=weight.device))
    padding, dilation = [phase.padding for phase in phases], [phase.dilation for phase in phases]
    if weight.shape[3:] == (1, 1) and padding[1:] == [0, 0]:
        # In 3D, PyTorch runs such a kernel with one thread by a slow path.
        plane = F.conv2d(_as_plane(given.grad), weight[..., 0], None, 1, (padding[0], 0), (dilation[0], 1), given.channels)
        sums = _from_plane(plane, given.grad.shape[3:])
    else:
        sums = F.conv3d(given.grad, weight, None, 1, padding, dilation, given.channels)  # type: ignore[arg-type]  # lists as well
    return sums[_last(phase.kept for phase in phases)]


def _spread_input(given: Given) -> torch.Tensor:
    axes = range(3)
    sizes = given.weight.shape[2:]
    # A forward convolution has no negative padding, which a padding beyond the kernel would need.
    padding = [max(0, given.dilation[i] * (sizes[i] - 1) - given.padding[i]) for i in axes]
    cut = [max(0, given.padding[i] - given.dilation[i] * (sizes[i] - 1)) for i in axes]
    lengths = [given.x.shape[2 + i] + 2 * cut[i] + given.dilation[i] * (sizes[i] - 1) - 2 * padding[i] for i in axes]
    batch, channels = given.x.shape[:2]
    spread = given.grad.new_zeros(batch, *lengths, channels).permute(0, 4, 1, 2, 3)
    positions = (slice(0, (given.grad.shape[2 + i] - 1) * given.stride[i] + 1, given.stride[i]) for i in axes)
    spread[_last(positions)] = given.grad
    grad_x = F.conv3d(spread, given.weight.flip(2, 3, 4), None, 1, tuple(padding), given.dilation, channels)
    if not any(cut):
        return grad_x
    return grad_x[_last(slice(cut[i], cut[i] + given.x.shape[2 + i]) for i in axes)]


def _frames_weight(given: Given) -> torch.Tensor:
    x, grad = given.x, given.grad
    grad_weight = torch.zeros_like(given.weight)
    for tap, (weight, grad_tap) in enumerate(zip(given.weight.unbind(2), grad_weight.unbind(2))):
        if (overlap := given.overlap(0, tap)) is None:
            continue
        if len(x) > 1 and given.stride[0] == 1 and grad.shape[2] == x.shape[2]:
            frames = _shifted_frames(given, tap, overlap[1])
        else:
            frames = _as_frames(grad[:, :, overlap[1]]), _as_frames(x[:, :, overlap[0]])
        grad_tap.copy_(_weight_gradient_2d(*frames, weight, given.stride[1:], given.padding[1:], given.dilation[1:]))
    return grad_weight


def _shifted_frames(given: Given, tap: int, outputs: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """The frames of the gradient, and for each the frame of x that a tap reaches, as views of all clips' frames in a row.

    A frame whose tap reaches out of its clip would meet another clip's: it becomes 0, in a copy of the gradient and not in two of
    parts of both.
    """
    offset = tap * given.dilation[0] - given.padding[0]
    grad = given.grad
    if offset:
        grad = grad.clone()
        grad[:, :, : outputs.start] = 0
        grad[:, :, outputs.stop :] = 0
    frames, x = _as_frames(grad), _as_frames(given.x)
    count = len(frames) - abs(offset)
    return frames[max(0, -offset) :][:count], x[max(0, offset) :][:count]


def _plane_weight(given: Given) -> torch.Tensor:
    stride, padding, dilation = (given.stride[0], 1), (given.padding[0], 0), (given.dilation[0], 1)
    weight = given.weight[..., 0]
    return _weight_gradient_2d(_as_plane(given.grad), _as_plane(given.x), weight, stride, padding, dilation).unsqueeze(-1)


def _weight_gradient_2d(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, stride: Pair, padding: Pair, dilation: Pair
) -> torch.Tensor:
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, dilation, False, (0, 0), x.shape[1], (False, True, False)
    )[1]


def _shifted_weight(given: Given) -> torch.Tensor:
    grad_weight = torch.zeros_like(given.weight)
    for taps, inputs, outputs in _all_overlaps(given):
        grad_weight[_last((0, *taps))] = (given.grad[outputs] * given.x[inputs]).sum((0, 2, 3, 4))
    return grad_weight


def _all_overlaps(given: Given) -> Iterator[tuple[Triple, Any, Any]]:
    """(tap, indices of x, indices of the output) for every tap that connects any."""
    axes = [[(tap, given.overlap(axis, tap)) for tap in range(given.weight.shape[2 + axis])] for axis in range(3)]
    for (i, time), (j, height), (k, width) in itertools.product(*axes):
        if time is not None and height is not None and width is not None:
            yield (i, j, k), _last((time[0], height[0], width[0])), _last((time[1], height[1], width[1]))


def _dense_weight(given: Given) -> torch.Tensor:
    batch, channels, frames = given.x.shape[:3]
    taps, outputs = given.weight.shape[2], given.grad.shape[2]
    connections = _connections(
        tuple(given.x.shape[3:]), tuple(given.grad.shape[3:]), tuple(given.weight.shape[3:]),
        given.stride[1:], given.padding[1:], given.dilation[1:], given.x.dtype,
    )  # fmt: skip
    x = given.x.permute(1, 0, 2, 3, 4).reshape(channels, batch, frames, -1)
    reached = x.new_zeros(channels, batch, outputs, taps, x.shape[-1])
    for tap in range(taps):
        if (overlap := given.overlap(0, tap)) is not None:
            reached[:, :, overlap[1], tap] = x[:, :, overlap[0]]
    grad = given.grad.permute(1, 3, 4, 0, 2).reshape(channels, -1, batch * outputs)
    matrices = torch.bmm(grad, reached.view(channels, batch * outputs, -1)).view(channels, grad.shape[1], taps, -1).transpose(1, 2)
    return (matrices.reshape(channels * taps, -1) @ connections.to(given.x.device)).view_as(given.weight)


@lru_cache(maxsize=256)
def _connections(
    inputs: tuple[int, int], outputs: tuple[int, int], kernel: tuple[int, int],
    stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int], dtype: torch.dtype,
) -> torch.Tensor:  # fmt: skip
    """1 where a tap in space connects a pixel of x to one of the output, else 0: (outputs * inputs, taps)."""
    on_axes = []
    for i in range(2):
        reached = torch.arange(outputs[i])[:, None, None] * stride[i] - padding[i] + torch.arange(kernel[i]) * dilation[i]
        on_axes.append((reached == torch.arange(inputs[i])[:, None]).to(dtype))
    return torch.einsum("oia,pjb->opijab", *on_axes).reshape(-1, kernel[0] * kernel[1])


def _last(indices: Iterable[int | slice]) -> tuple[Any, ...]:
    """What indexes the last axes of a tensor."""
    return (..., *indices)


def _as_frames(x: torch.Tensor) -> torch.Tensor:
    """N, C, T, H, W -> N * T, C, H, W: a view if all frames of x are there, in channels last."""
    return x.transpose(1, 2).flatten(0, 1)


def _as_plane(x: torch.Tensor) -> torch.Tensor:
    """N, C, T, H, W -> N, C, T, H * W, a view."""
    return x.flatten(3)


def _from_plane(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    return x.unflatten(3, tuple(size))


INPUT_WAYS: dict[str, Callable[[Given], torch.Tensor]] = {
    "autograd": _autograd_input, "forward": _forward_input, "spread": _spread_input,
}  # fmt: skip
WEIGHT_WAYS: dict[str, Callable[[Given], torch.Tensor]] = {
    "autograd": _autograd_weight, "plane": _plane_weight, "frames": _frames_weight, "shifted": _shifted_weight, "dense": _dense_weight,
}  # fmt: skip
