"""Deployed models of one block a stage, and calls of them: what tests of runtimes and exports share."""

from unittest import mock

import torch
from networks import IMAGE_NETWORKS, NETWORKS, Case, calibrate_at_random

from mutual3d.deploy import AdaptiveModel, Preprocessing
from mutual3d.models.resnet3d import STAGE_DEPTHS

MEAN, STD, CROP = (0.4, 0.45, 0.5), (0.2, 0.225, 0.25), 48
CLASSES = ["jump", "run", "skip", "wave", "bend", "dive", "sit"]
# Every stage of the real networks, with one block each: making a program of a block takes most of the time.
SHALLOW = {"depth": 14}
SLOW = {**NETWORKS["slow_small"].arguments, **SHALLOW}
CASES = {
    "x3d": Case({**NETWORKS["x3d_small"].arguments, "depth_factor": 0.1}),
    "slow": Case(SLOW),
    "slowfast": Case({**NETWORKS["slowfast_small"].arguments, **SHALLOW}),
    "images": IMAGE_NETWORKS["resnet18_small"],
    "boxes": Case({**SLOW, "detection": {"resolution": 3}}),
}
FRAME = {"boxes": (CROP, 64)}


def make_model(name):
    """Calibrated at the ends of its space."""
    with mock.patch.dict(STAGE_DEPTHS, {SHALLOW["depth"]: (1, 1, 1, 1)}):
        network = CASES[name].build()
    calibrate_at_random(network, [network.space.smallest, network.space.largest])
    preprocessing = Preprocessing(MEAN, STD, network.clip_frames, sampling_rate=2, target_fps=30, crop=CROP)
    return AdaptiveModel(network, preprocessing=preprocessing, class_names=CLASSES)


def random_call(model, batch=2, width=CROP, seed=0):
    """A uint8 clip, and boxes where the model takes them."""
    generator = torch.Generator().manual_seed(seed)
    clip = torch.randint(0, 256, (batch, 3, model.network.clip_frames, CROP, width), dtype=torch.uint8, generator=generator)
    if model.network.takes == "images":
        return [clip[:, :, 0]]
    boxes = torch.tensor([[0, 0.1, 0.0, 0.5, 1.0], [batch - 1, 0.2, 0.3, 0.7, 0.8], [0, 0.0, 0.0, 1.0, 1.0]])
    return [clip, boxes] if model.network.takes_boxes else [clip]
