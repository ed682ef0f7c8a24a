"""What happens to a clip on its device: normalising it, and shrinking it to the size and frames of a configuration."""

from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F

from .configuration import Configuration, SearchSpace


def prepare_clip(
    clip_BCTHW: torch.Tensor,
    device: torch.device,
    mean: Sequence[float],
    std: Sequence[float],
    reverse_channels: bool = False,
    memory_format: torch.memory_format = torch.channels_last_3d,
) -> torch.Tensor:
    """A uint8 clip, from anywhere, normalised on `device`.

    reverse_channels: RGB, of which `mean` and `std` are, becomes BGR. memory_format: of the result, such as the one in which its
    network runs fastest there (`AdaptiveNetwork.memory_format`).
    """
    clip = normalize_clip(clip_BCTHW.to(device, non_blocking=True), mean, std)
    clip = clip.flip(1) if reverse_channels else clip
    return clip.contiguous(memory_format=memory_format)


def normalize_clip(clip_BCTHW: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """uint8 in [0, 255] -> float in units of `std` around `mean` (both per channel, of pixels in [0, 1])."""
    scale, shift = (255 * _per_channel(values, clip_BCTHW.device) for values in (std, mean))
    return (clip_BCTHW.float() - shift) / scale


def _per_channel(values: Sequence[float], device: torch.device) -> torch.Tensor:
    """float32 1, C, 1, 1, 1 on `device`. A GPU's is filled there: a copy would wait for all that the GPU has yet to do."""
    if device.type == "cuda":
        column = torch.cat([torch.full((1,), float(value), dtype=torch.float32, device=device) for value in values])
    else:
        column = torch.as_tensor(values, dtype=torch.float32, device=device)
    return column.view(1, -1, 1, 1, 1)


def temporal_indices(num_frames: int, temporal: int) -> torch.Tensor:
    """Which of `num_frames` frames a configuration of `temporal` frames sees: evenly spaced, both ends included."""
    if temporal > num_frames:
        raise ValueError(f"the clip has {num_frames} frames and cannot give {temporal}")
    return torch.linspace(0, num_frames - 1, temporal).long()


def take_frames(clip_BCTHW: torch.Tensor, temporal: int) -> torch.Tensor:
    """`temporal` frames of a clip, evenly spread (see `temporal_indices`): B, C, `temporal`, H, W.

    Of a GPU's clip one by one: to copy the indices there would wait for the GPU.
    """
    indices = temporal_indices(clip_BCTHW.shape[2], temporal)
    if clip_BCTHW.device.type == "cuda" and not torch.compiler.is_compiling():
        return torch.stack([clip_BCTHW[:, :, index] for index in indices.tolist()], 2)
    return clip_BCTHW.index_select(2, indices.to(clip_BCTHW.device))


def view_size(crop: int, spatial: int, train_crop: int) -> int:
    """Pixels that a configuration of `spatial`, trained beside crops of `train_crop`, sees of a view cut at `crop`."""
    return round(crop * spatial / train_crop)


def shrink_clip(clip_BCTHW: torch.Tensor, size: int | Sequence[int] | None = None, temporal: int | None = None) -> torch.Tensor:
    """Reduce a clip to `size` pixels (a side, or height and width) and `temporal` frames; None keeps a dimension.

    Bilinear with antialiasing, in training, calibration, tables and deployment alike, so that the statistics of one
    hold for the other. Takes and returns float B, C, T, H, W; the same tensor when nothing changes.
    """
    shrunk = clip_BCTHW
    if temporal is not None and temporal != shrunk.shape[2]:
        shrunk = take_frames(shrunk, temporal)
    size = (size, size) if isinstance(size, int) else size
    if size is not None and list(shrunk.shape[3:]) != list(size):
        shrunk = _resize_frames(shrunk, tuple(size))
    return shrunk if shrunk is clip_BCTHW else shrunk.contiguous(memory_format=_memory_format(clip_BCTHW))


def _memory_format(clip_BCTHW: torch.Tensor) -> torch.memory_format:
    """Of a clip: selecting and resizing lose it."""
    channels_last = clip_BCTHW.is_contiguous(memory_format=torch.channels_last_3d)
    return torch.channels_last_3d if channels_last else torch.contiguous_format


def _resize_frames(clip_BCTHW: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    batch, channels, frames, height, width = clip_BCTHW.shape
    frames_NCHW = clip_BCTHW.transpose(1, 2).reshape(batch * frames, channels, height, width)
    resized = F.interpolate(frames_NCHW, size=size, mode="bilinear", antialias=True, align_corners=False)
    return resized.reshape(batch, frames, channels, *size).transpose(1, 2)


def fit_clip(clip_BCTHW: torch.Tensor, configuration: Configuration, space: SearchSpace) -> torch.Tensor:
    """The clip as `configuration` sees it.

    The clip may be cut larger than in training, or be a whole frame that is no square: its sides shrink in proportion.
    """
    size = [view_size(side, configuration.spatial, space.spatial_sizes[-1]) for side in clip_BCTHW.shape[3:]]
    return shrink_clip(clip_BCTHW, size, configuration.temporal)


def fit_clips(
    clip_BCTHW: torch.Tensor, configurations: Iterable[Configuration], space: SearchSpace
) -> Iterator[tuple[Configuration, torch.Tensor]]:
    """Yield (configuration, its clip) for each; configurations of the same sizes share one shrunk clip."""
    by_sizes: dict[tuple[int, int], list[Configuration]] = {}
    for configuration in configurations:
        by_sizes.setdefault((configuration.spatial, configuration.temporal), []).append(configuration)
    for group in by_sizes.values():
        fitted = fit_clip(clip_BCTHW, group[0], space)
        yield from ((configuration, fitted) for configuration in group)
