"""A run small enough for a test: a few real videos of two motions, and the smallest X3D."""

from pathlib import Path

import numpy as np
import torch
from videos import write_video

from mutual3d.models import create_model
from mutual3d.sampling import SearchSpace

ROOT = Path(__file__).resolve().parents[1]
SPACE = SearchSpace((0.5, 1.0), (16, 24), (2, 4))
NETWORK = dict(width_factor=1.0, depth_factor=0.5, dim_c5=32, dropout_rate=0.1)


def tiny_network(num_classes=2, space=SPACE):
    return create_model("x3d", space=space, num_classes=num_classes, **NETWORK)


def write_set(directory, num_videos=12, splits=("train", "val", "test"), size=32, num_frames=10):
    """Videos of a bar that moves right (class 0) or down (class 1), and csv files that all splits share."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(num_videos):
        label = i % 2
        frames = np.full((num_frames, size, size, 3), 40 + 10 * (i // 2), np.uint8)
        for t in range(num_frames):
            place = (3 * i + 2 * t) % (size - 8)
            frames[t, :, place : place + 8] = 220
        write_video(directory / f"{i}.mp4", frames if label == 0 else frames.swapaxes(1, 2))
        lines.append(f"{i}.mp4 {label}\n")
    for split in splits:
        (directory / f"{split}.csv").write_text("".join(lines))
    (directory / "classes.txt").write_text("right\ndown\n")
    return directory


def overrides(data, output, **changes):
    """KEY VALUE pairs of a run over such a set."""
    values = {
        "DATA.PATH_TO_DATA_DIR": data, "OUTPUT_DIR": output, "NUM_GPUS": 0, "DATA_LOADER.NUM_WORKERS": 0,
        "MODEL.MODEL_NAME": "X3D", "MODEL.NUM_CLASSES": 2, "MODEL.DROPOUT_RATE": 0.1, "X3D.WIDTH_FACTOR": 1.0,
        "X3D.DEPTH_FACTOR": 0.5, "X3D.BOTTLENECK_FACTOR": 2.25, "X3D.DIM_C5": 32, "DATA.NUM_FRAMES": 4,
        "DATA.SAMPLING_RATE": 2, "DATA.TRAIN_JITTER_SCALES": [24, 28], "DATA.TRAIN_CROP_SIZE": 24,
        "DATA.TEST_CROP_SIZE": 24, "MUTUAL.ENABLE": True, "MUTUAL.WIDTH_RANGE": [0.5, 1.0],
        "MUTUAL.SPATIAL_SIZES": [16, 24], "MUTUAL.TEMPORAL_SIZES": [2, 4], "TRAIN.BATCH_SIZE": 4,
        "TRAIN.CHECKPOINT_PERIOD": 1, "TEST.BATCH_SIZE": 4, "TEST.NUM_ENSEMBLE_VIEWS": 2, "TEST.NUM_SPATIAL_CROPS": 3,
        "SOLVER.MAX_EPOCH": 2, "SOLVER.BASE_LR": 0.05, "CALIBRATION.NUM_CLIPS": 8, "CALIBRATION.BATCH_SIZE": 4,
        "GRID.WIDTH_STEP": 0.25, "GRID.LATENCY_REPEATS": 1, "GRID.RUNTIMES": ["torch"],
    }  # fmt: skip
    values.update(changes)
    return [str(word) for pair in values.items() for word in pair]


def same(a, b):
    """Nested containers of tensors, equal to the bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return a == b
