"""Batches for tests of calibration and measuring: uint8 clips from seeds."""

import torch

from mutual3d.sampling import normalize_clip

MEAN, STD = (0.45,) * 3, (0.225,) * 3


class FakeBatch:
    boxes = None

    def __init__(self, seed, num_clips=3):
        generator = torch.Generator().manual_seed(seed)
        self.clips_BVCTHW = torch.randint(0, 256, (num_clips, 1, 3, 4, 24, 24), dtype=torch.uint8, generator=generator)
        self.labels, self.indices, self.bad = torch.arange(num_clips) % 2, torch.arange(num_clips), []


def batches_from(skip):
    return [FakeBatch(seed, 3 if seed < 3 else 2) for seed in range(4)][skip:]


def prepare(clips):
    return normalize_clip(clips, MEAN, STD)
