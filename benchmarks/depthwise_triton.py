"""A depthwise 3D convolution in Triton, for `benchmarks/depthwise.py --device cuda`: forward and, at stride 1, the gradient of the input.

A program computes BLOCK positions of one clip's channel and sums over the taps in float32. Tensors have any strides.
"""

import torch
import triton
import triton.language as tl

BLOCK = 256


@triton.jit
def _sum_over_taps(
    x, weight, y, channels, time, height, width, out_time, out_height, out_width,
    xn, xc, xt, xh, xw, yn, yc, yt, yh, yw,
    KT: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    PT: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr, DT: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    plane = tl.program_id(1)
    clip, channel = (plane // channels).to(tl.int64), plane % channels
    position = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = position < out_time * out_height * out_width
    t, h, w = position // (out_height * out_width), position // out_width % out_height, position % out_width
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for i in tl.static_range(KT):
        for j in tl.static_range(KH):
            for k in tl.static_range(KW):
                from_t, from_h, from_w = t * ST - PT + i * DT, h * SH - PH + j * DH, w * SW - PW + k * DW
                there = inside & (from_t >= 0) & (from_t < time) & (from_h >= 0) & (from_h < height) & (from_w >= 0) & (from_w < width)
                value = tl.load(x + clip * xn + channel * xc + from_t * xt + from_h * xh + from_w * xw, mask=there, other=0.0)
                total += value.to(tl.float32) * tl.load(weight + ((channel * KT + i) * KH + j) * KW + k).to(tl.float32)
    tl.store(y + clip * yn + channel * yc + t * yt + h * yh + w * yw, total.to(y.dtype.element_ty), mask=inside)


def _convolve(x, weight, y, stride, padding, dilation):
    positions = y.shape[2] * y.shape[3] * y.shape[4]
    grid = (triton.cdiv(positions, BLOCK), x.shape[0] * x.shape[1])
    _sum_over_taps[grid](
        x, weight.contiguous(), y, x.shape[1], *x.shape[2:], *y.shape[2:], *x.stride(), *y.stride(),
        *weight.shape[2:], *stride, *padding, *dilation, BLOCK,
    )  # fmt: skip
    return y


def forward(given):
    """The output of a `Given`'s x and weight."""
    return _convolve(given.x, given.weight, torch.empty_like(given.grad), given.stride, given.padding, given.dilation)


def input_gradient(given):
    """The gradient of x, at stride 1: the convolution of the gradient with the flipped kernel."""
    padding = [gap * (size - 1) - pad for gap, size, pad in zip(given.dilation, given.weight.shape[2:], given.padding)]
    return _convolve(given.grad, given.weight.flip(2, 3, 4), torch.empty_like(given.x), (1, 1, 1), padding, given.dilation)
