"""Learned quantisers (LQ-Nets: Zhang et al., ECCV 2018): a number becomes the nearest of the levels that a learned basis spans.

A quantiser of K bits has a basis of K numbers, v. Its 2^K levels are the sums of a code times v: codes of -1 and 1 for values of both
signs, so that 2 bits have the levels -v1 - v2, -v1 + v2, v1 - v2 and v1 + v2; codes of 0 and 1 for values that are not negative, as
behind a ReLU, so that 0 stays 0. The products of two quantised numbers are then sums of products of bits (LQ-Nets).

The basis is learned by quantisation-error minimisation, QEM: each value takes the nearest level, and with these codes
fixed the basis is the solution of the least squares of the values. Neither raises the squared error. In training one such step is taken
from the present basis, which moves a tenth of the way to the result. Gradients pass a quantiser straight through.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn as nn

from .channels import Width
from .private import PrivateParts
from .slimmable import SlimmablePart

# Bits that a quantiser may have, and what a number has that is left as it is.
QUANTIZED_BITS = (2, 3, 4)
WHOLE_BITS = 32
LEGAL_BITS = (*QUANTIZED_BITS, WHOLE_BITS)
# How far a step of training moves a basis towards that of its values (LQ-Nets: a moving average of 0.9).
MOMENTUM = 0.1
# The lowest code of values that have both signs; of others it is 0.
SIGNED = -1.0
# Share of the mean square that negative values have from which on an activation has both signs: behind a ReLU it is 0, behind a Swish
# about 0.05, and of a convolution's own output about 0.5.
_SHARE_OF_SIGNED = 0.25
# The highest level that an activation's quantiser begins with (LQ-Nets): twice the median of the absolute value of a unit normal.
_FIRST_TOP = 2 * 0.6745
# The same of weights, by their bits, as a multiple of their root mean square: of equally spaced levels those are best for a normal
# distribution (Max, IRE Transactions on Information Theory, 1960, Table II).
_TOP_OF_NORMAL = {2: 1.494, 3: 2.051, 4: 2.514}
# Steps of QEM from that to the basis that a convolution's weights begin with.
_FIRST_STEPS = 10
# Values of a batch beyond which a step looks at every second clip, every third, ... alone.
_MOST_VALUES = 2**18
# Weight of the present basis in the least squares, as a share of the values: it decides where codes leave the basis open.
_RIDGE = 1e-6


def check_bits(name: str, bits: object) -> None:
    """Raise ValueError, with the legal ones, where `bits` are not those of a number here. name: what the error calls them."""
    if type(bits) is not int or bits not in LEGAL_BITS:
        legal = ", ".join(map(str, QUANTIZED_BITS))
        raise ValueError(f"{name} is {bits!r:.80}: numbers are quantised to {legal} bits; {WHOLE_BITS} leaves them as they are")


def sorted_levels(basis: torch.Tensor, lowest: torch.Tensor | float = SIGNED) -> tuple[torch.Tensor, torch.Tensor]:
    """(levels ..., 2^K, ascending; their codes ..., 2^K, K) of bases ..., K.

    lowest: the lower one of the two numbers that codes are made of, -1 or 0; the other one is 1.
    """
    bits = basis.shape[-1]
    numbers = torch.arange(2**bits, device=basis.device)
    digits = (numbers[:, None] >> torch.arange(bits, device=basis.device)) & 1
    codes = lowest + (1 - lowest) * digits.to(basis.dtype)
    # Not by a matrix product, which reduced precision (TF32, autocast) would round.
    levels, order = (basis[..., None, :] * codes).sum(-1).sort(stable=True)
    return levels, codes[order]


def nearest_level(values: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Each value's nearest level, but for the last bits, of values' shape, dtype and memory format.

    levels: L of all values, or C, L of values C, ...: those of each channel. They ascend.
    """
    # A sum of steps, which takes a third of the time of choices (torch.where).
    steps = levels.diff(dim=-1).to(values.dtype).unbind(-1)
    nearest: torch.Tensor | None = None
    for threshold, step in zip(_thresholds(levels), steps):
        above = (values > _beside(values, threshold)).to(values.dtype).mul_(_beside(values, step))
        nearest = above if nearest is None else nearest.add_(above)
    assert nearest is not None, "there are two levels at least"
    return nearest.add_(_beside(values, levels[..., 0].to(values.dtype)))


def _beside(values: torch.Tensor, per_channel: torch.Tensor) -> torch.Tensor:
    """One number, or one for each first index of `values`, shaped to go with these."""
    return per_channel.view(*per_channel.shape, *[1] * (values.ndim - per_channel.ndim)) if per_channel.ndim else per_channel


def _thresholds(levels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What lies halfway between two levels, ascending."""
    return ((levels[..., 1:] + levels[..., :-1]) / 2).unbind(-1)


def level_moments(values: torch.Tensor, levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(how many values each level is nearest to, their sums), both of the shape of `levels`, float64.

    values, levels: as of `nearest_level`.
    """
    dims = tuple(range(levels.ndim - 1, values.ndim))
    none = levels.new_zeros(levels.shape[:-1], dtype=torch.float64)
    counts, sums = [none + (values[0].numel() if levels.ndim > 1 else values.numel())], [values.sum(dims).double()]
    for threshold in _thresholds(levels):
        shaped = _beside(values, threshold)
        counts.append((values > shaped).sum(dims).double())
        # Of what lies above a threshold the sum of what it has more, which is quicker to compute than its own.
        sums.append((values - shaped).clamp_min_(0).sum(dims).double() + threshold.double() * counts[-1])
    # Of those above each threshold, what is not above the next one.
    above_counts, above_sums = torch.stack([*counts, none], -1), torch.stack([*sums, none], -1)
    return above_counts[..., :-1] - above_counts[..., 1:], above_sums[..., :-1] - above_sums[..., 1:]


def least_squares(
    basis: torch.Tensor, codes: torch.Tensor, counts: torch.Tensor, sums: torch.Tensor
) -> torch.Tensor:
    """The basis ..., K with which the levels of the codes lie nearest to their values (LQ-Nets): (B' B)^-1 B' x.

    basis: the present one, which counts as much as a millionth of the values, so that there is one solution whatever the codes are and
    the error does not rise. codes: ..., L, K. counts, sums: ..., L, of the values that each level is nearest to.
    """
    codes = codes.double()
    products = (counts[..., None, None] * codes[..., :, None] * codes[..., None, :]).sum(-3)
    ridge = (_RIDGE * counts.sum(-1)).clamp_min(_RIDGE)[..., None]
    wanted = (sums[..., None] * codes).sum(-2) + ridge * basis
    eye = torch.eye(basis.shape[-1], dtype=torch.float64, device=basis.device)
    return torch.linalg.solve_ex(products + ridge[..., None] * eye, wanted[..., None])[0].squeeze(-1).to(basis.dtype)


def qem_step(values: torch.Tensor, basis: torch.Tensor, lowest: torch.Tensor | float = SIGNED) -> torch.Tensor:
    """The basis after one step of QEM from `basis`: K of all values, or C, K of values C, ... for each channel.

    lowest: see `sorted_levels`. The mean squared error of `nearest_level` with the new basis is at most that with `basis`.
    """
    levels, codes = sorted_levels(basis, lowest)
    return least_squares(basis, codes, *level_moments(values, levels))


def uniform_basis(top: torch.Tensor, bits: int) -> torch.Tensor:
    """The basis ..., K of equally spaced levels, of which the highest is `top`, one for each channel or a single number. bits: K."""
    return top[..., None] / (2**bits - 1) * 2.0 ** torch.arange(bits, device=top.device, dtype=top.dtype)


def squared_error(values: torch.Tensor, basis: torch.Tensor, lowest: torch.Tensor | float = SIGNED) -> torch.Tensor:
    """C: the sum of the squared errors of values C, N quantised with bases C, K. lowest: see `sorted_levels`."""
    return (values - nearest_level(values, sorted_levels(basis, lowest)[0])).square().sum(1)


def fit_weight_basis(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """The basis C, K of each output channel that fits weights C, ...: ten steps of QEM from equally spaced levels. bits: K.

    These are the ones that are best for a normal distribution, or those over the whole range where they fit better. On the meta
    device, where there is nothing to fit, the basis is one of the right shape.
    """
    if weight.is_meta:
        return uniform_basis(weight.new_empty(len(weight)), bits)
    values = weight.detach().flatten(1)
    normal, whole = (uniform_basis(top, bits) for top in (_TOP_OF_NORMAL[bits] * values.square().mean(1).sqrt(), values.abs().amax(1)))
    is_better = squared_error(values, normal) <= squared_error(values, whole)
    basis = torch.where(is_better[:, None], normal, whole)
    for _ in range(_FIRST_STEPS):
        basis = qem_step(values, basis)
    return basis


class _StraightThrough(torch.autograd.Function):
    """`nearest_level` with the gradient of the identity; with `clips` 0 beyond the outermost levels (LQ-Nets)."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, levels: torch.Tensor, clips: bool) -> torch.Tensor:
        if clips:
            ctx.save_for_backward(values.abs() <= levels[-1])
        return nearest_level(values, levels)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        inside = ctx.saved_tensors
        return gradient * inside[0] if inside else gradient, None, None


def quantize(values: torch.Tensor, levels: torch.Tensor, clips: bool) -> torch.Tensor:
    """`nearest_level`, through which gradients pass as if values were left as they are.

    clips: gradients of values whose size is beyond the highest level are 0, as of values that were cut off there: of activations.
    """
    has_gradient = torch.is_grad_enabled() and values.requires_grad
    if has_gradient and not torch.compiler.is_compiling() and not torch.jit.is_tracing():
        return _StraightThrough.apply(values, levels, clips)
    return nearest_level(values, levels)


class FixedQuantizer(nn.Module):
    """x -> the nearest of the `levels`, which ascend."""

    levels: torch.Tensor

    def __init__(self, levels: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("levels", levels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return quantize(x, self.levels, clips=True)


class ActivationQuantizer(SlimmablePart, nn.Module):
    """x -> the nearest of 2^`bits` levels, of any shape, one basis for all of it.

    Training, that is a call in training mode with gradients, quantises with the present basis and then moves it (see the head of this
    file) by the values of all processes, which so keep one basis; all of them must then run the same configurations in the same order.
    Whether codes are of both signs follows from the values. Calibration and evaluation change nothing.
    """

    basis: torch.Tensor
    negative_share: torch.Tensor

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.register_buffer("basis", uniform_basis(torch.tensor(_FIRST_TOP), bits))
        # Of the mean square, as a moving average.
        self.register_buffer("negative_share", torch.zeros(()))

    def levels(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The levels 2^K, ascending, and their codes 2^K, K."""
        is_signed = (self.negative_share > _SHARE_OF_SIGNED).to(self.basis.dtype)
        return sorted_levels(self.basis, SIGNED * is_signed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        levels, codes = self.levels()
        quantized = quantize(x, levels, clips=True)
        if self.training and torch.is_grad_enabled():
            self._learn(x, levels, codes)
        return quantized

    @torch.no_grad()
    def _learn(self, x: torch.Tensor, levels: torch.Tensor, codes: torch.Tensor) -> None:
        seen = x[:: max(1, x.numel() // _MOST_VALUES)].to(self.basis.dtype)
        lengths = torch.stack([torch.linalg.vector_norm(part) for part in (seen.clamp(max=0), seen)]).double()
        moments = _over_processes(torch.cat([*level_moments(seen, levels), lengths.square()]))
        counts, sums, (negative, total) = moments.split([len(levels), len(levels), 2])
        self.basis.lerp_(least_squares(self.basis, codes, counts, sums), MOMENTUM)
        share = negative / total.clamp_min(torch.finfo(torch.float64).tiny)
        self.negative_share.lerp_(share.to(self.negative_share.dtype), MOMENTUM)

    def plain(self, width: Width) -> nn.Module:
        """A quantiser of the present levels, which no width changes."""
        return FixedQuantizer(self.levels()[0])

    def extra_repr(self) -> str:
        return f"bits={self.bits}"


class PrivateQuantizers(PrivateParts):
    """Quantisers of one place in the network, of which the active one runs: each size has its own, as norms of RS-Net have."""

    list_name = "sizes"

    def __init__(self, bits: int, count: int) -> None:
        """bits: of each quantiser. count: of sizes."""
        super().__init__()
        self.sizes = nn.ModuleList(ActivationQuantizer(bits) for _ in range(count))


def _over_processes(sums: torch.Tensor) -> torch.Tensor:
    """The sum over all processes, where there are several."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(sums)
    return sums
