"""A config that fits videos, machine and time: what `mutual3d init` writes."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from mutual3d.models import create_model
from mutual3d.pipeline.survey import Survey
from mutual3d.sampling import SearchSpace
from mutual3d.training import MutualStep
from mutual3d.training.optimizer import build_optimizer

# A network of a few hundred videos wants this many epochs before anything else; below the fewest it learns nothing.
_WANTED_EPOCHS = 60
_FEWEST_EPOCHS = 15
_MOST_EPOCHS = 150
# Of the time that was asked for, what calibration, grid, test, validation and saving leave to training.
_SHARE_OF_TRAINING = 0.8
_TIMED_STEPS = 2


@dataclass(frozen=True)
class NetworkChoice:
    """An X3D of some size, for clips of `num_frames` frames of `crop` pixels; the rest is `create_model`'s."""

    crop: int
    num_frames: int
    width_factor: float
    depth_factor: float
    dim_c5: int

    @property
    def spatial_sizes(self) -> tuple[int, ...]:
        """Half, three quarters and all of the crop, in multiples of 16: strides of 32 want little less."""
        return tuple(sorted({max(32, 16 * round(self.crop * share / 16)) for share in (0.5, 0.75)} | {self.crop}))

    @property
    def temporal_sizes(self) -> tuple[int, ...]:
        """About three, five and eight eighths of the frames, as the papers reduce them."""
        return tuple(sorted({max(2, math.floor(self.num_frames * share)) for share in (3 / 8, 5 / 8)} | {self.num_frames}))

    @property
    def space(self) -> SearchSpace:
        return SearchSpace((0.5, 1.0), self.spatial_sizes, self.temporal_sizes)


# From small to large. The last ones are for GPUs: X3D-S and X3D-M as published.
CHOICES = (
    NetworkChoice(48, 8, 1.0, 0.6, 256),
    NetworkChoice(64, 8, 1.0, 1.0, 256),
    NetworkChoice(96, 8, 1.0, 1.0, 256),
    NetworkChoice(112, 12, 1.5, 1.5, 512),
    NetworkChoice(160, 13, 2.0, 2.2, 2048),
    NetworkChoice(224, 16, 2.0, 2.2, 2048),
)


@dataclass(frozen=True)
class Recipe:
    """The settings of a run. seconds: what training is estimated to take, step_seconds: what one step took.

    sampling_rate: at target_fps. jitter: short sides of training clips in pixels.
    """

    network: NetworkChoice
    sampling_rate: int
    target_fps: int
    jitter: tuple[int, int]
    batch_size: int
    base_lr: float
    warmup_epochs: float
    max_epoch: int
    num_workers: int
    step_seconds: float
    seconds: float


def fit_recipe(
    survey: Survey,
    *,
    num_train: int,
    num_classes: int,
    minutes: float,
    device: torch.device,
    num_workers: int,
    measure: Callable[[NetworkChoice, int, int, torch.device], float] | None = None,
    choices: Sequence[NetworkChoice] = CHOICES,
) -> Recipe:
    """The largest network that trains for enough epochs in `minutes` on `device`.

    measure: (network, classes, batch size, device) -> seconds of one mutual step; by default a few steps are timed. Raises
    ValueError when not even the smallest network gets through the fewest epochs, with the minutes that it needs.
    """
    measure = measure or time_step
    batch_size = _batch_size(num_train, device)
    steps = max(1, num_train // batch_size)
    read = survey.read_seconds * steps * batch_size / max(1, num_workers)
    budget = 60 * minutes * _SHARE_OF_TRAINING
    best = None
    for choice in choices:
        if best is not None and choice.crop > survey.short_side:
            break
        step = measure(choice, num_classes, batch_size, device)
        # Workers read while the network computes; in one process one waits for the other.
        epoch = max(steps * step, read) if num_workers else steps * step + read
        if best is not None and budget / epoch < _WANTED_EPOCHS:
            break
        best = choice, step, epoch
    assert best is not None, "there is no network to choose"
    choice, step, epoch = best
    epochs = int(budget / epoch)
    if epochs < _FEWEST_EPOCHS:
        needed = math.ceil(_FEWEST_EPOCHS * epoch / _SHARE_OF_TRAINING / 60)
        raise ValueError(
            f"{minutes:g} minutes are {epochs} epochs of {num_train} videos on {device}, and under {_FEWEST_EPOCHS} a network "
            f"learns nothing: give --minutes {needed} or more, fewer videos, smaller copies of them, or a GPU"
        )
    epochs = min(epochs, _MOST_EPOCHS)
    return Recipe(
        network=choice, target_fps=_target_fps(survey.fps), sampling_rate=_sampling_rate(survey, choice.num_frames),
        jitter=(choice.crop, round(choice.crop * 1.25)), batch_size=batch_size, base_lr=_base_lr(batch_size),
        warmup_epochs=float(max(1, round(epochs / 15))), max_epoch=epochs, num_workers=num_workers,
        step_seconds=step, seconds=epochs * epoch,
    )  # fmt: skip


def _batch_size(num_train: int, device: torch.device) -> int:
    """A power of two with at least seven steps an epoch, where there are so many videos."""
    most = 64 if device.type == "cuda" else 16
    return max(2, min(most, 2 ** int(math.log2(max(2, num_train / 7)))))


def _base_lr(batch_size: int) -> float:
    """In proportion to the batch from the demo's 0.04 at 16, which small networks with three losses a step learn with."""
    return round(0.04 * batch_size / 16, 4)


def _target_fps(fps: float) -> int:
    return max(1, round(fps))


def _sampling_rate(survey: Survey, num_frames: int) -> int:
    """Frames between two of a clip, so that a clip spans most of a short video and at most about three seconds."""
    span = min(0.9 * survey.short_seconds, 3.0)
    return max(1, math.floor(span * survey.fps / num_frames))


def time_step(choice: NetworkChoice, num_classes: int, batch_size: int, device: torch.device) -> float:
    """Seconds of a mutual training step of random clips: the faster of two, after one that warms up."""
    model = create_model(
        "x3d", space=choice.space, num_classes=num_classes, width_factor=choice.width_factor,
        depth_factor=choice.depth_factor, dim_c5=choice.dim_c5, dropout_rate=0.2,
    ).place(device).train()  # fmt: skip
    mean, std = (0.45,) * 3, (0.225,) * 3
    step = MutualStep(model, subnets=["smallest", "random"], objective="inplace_distillation", mean=mean, std=std, seed=0)
    optimizer = build_optimizer(model, base_lr=0.0, weight_decay=0.0)
    shape = (batch_size, 3, choice.num_frames, choice.crop, choice.crop)
    clips = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    labels = torch.randint(0, num_classes, (batch_size,), device=device)
    times = []
    for number in range(1 + _TIMED_STEPS):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        step(clips, labels, number)  # reads the losses, and so waits for the device
        optimizer.step()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def describe_recipe(
    recipe: Recipe, survey: Survey, *, data: str, output: str, num_classes: int, num_train: int, weights: str | None = None
) -> str:
    """The recipe as a commented YAML config. data, output: folders, as text. weights: a checkpoint to start from."""
    start = f"""  # The classifier starts anew: its classes are these videos'.
  CHECKPOINT_FILE_PATH: {_quoted(weights)}
  CHECKPOINT_RESET_HEAD: True
""" if weights else ""
    network = recipe.network
    span = network.num_frames * recipe.sampling_rate / recipe.target_fps
    return f"""# Made for {num_train} training videos of {num_classes} classes: {survey.seconds:.1f} s long (nine in ten over {survey.short_seconds:.1f} s),
# {survey.fps:.4g} frames a second, short side {survey.short_side} pixels (medians of {survey.looked_at - len(survey.bad)} videos).
# Training was estimated at {recipe.seconds / 60:.0f} minutes: {recipe.max_epoch} epochs of steps of {recipe.step_seconds:.2f} s on the machine that made this file.
OUTPUT_DIR: {_quoted(output)}
MODEL:
  MODEL_NAME: X3D
  NUM_CLASSES: {num_classes}
  DROPOUT_RATE: 0.2
X3D:
  # A larger network is more accurate where there are many videos, and slower: 2.0 and 2.2 are X3D-M's.
  WIDTH_FACTOR: {network.width_factor}
  DEPTH_FACTOR: {network.depth_factor}
  BOTTLENECK_FACTOR: 2.25
  DIM_C5: {network.dim_c5}
MUTUAL:
  ENABLE: True
  # What can be chosen at run time: any width from half to all of the channels, these sizes in pixels, these numbers of frames.
  WIDTH_RANGE: [0.5, 1.0]
  SPATIAL_SIZES: {list(network.spatial_sizes)}
  TEMPORAL_SIZES: {list(network.temporal_sizes)}
GRID:
  WIDTH_STEP: 0.125
DATA:
  PATH_TO_DATA_DIR: {_quoted(data)}
  INPUT_CHANNEL_NUM: [3]
  # A clip: {network.num_frames} frames, every {recipe.sampling_rate}. of {recipe.target_fps} a second, which is {span:.1f} s of a video.
  NUM_FRAMES: {network.num_frames}
  SAMPLING_RATE: {recipe.sampling_rate}
  TARGET_FPS: {recipe.target_fps}
  TRAIN_JITTER_SCALES: {list(recipe.jitter)}
  TRAIN_CROP_SIZE: {network.crop}
  TEST_CROP_SIZE: {network.crop}
  # Set it False where left and right are what tells classes apart.
  RANDOM_FLIP: True
TRAIN:
  BATCH_SIZE: {recipe.batch_size}
  EVAL_PERIOD: {max(1, recipe.max_epoch // 6)}
  CHECKPOINT_PERIOD: {max(1, recipe.max_epoch // 12)}
{start}SOLVER:
  # In proportion to the batch. Halve it where the loss is not finite.
  BASE_LR: {recipe.base_lr}
  MAX_EPOCH: {recipe.max_epoch}
  WARMUP_EPOCHS: {recipe.warmup_epochs}
  WARMUP_START_LR: {recipe.base_lr / 10:.4g}
  WEIGHT_DECAY: 5e-5
  CLIP_GRAD_L2NORM: 5.0
RESNET:
  # A residual branch that starts at zero wakes too late for a run of minutes.
  ZERO_INIT_FINAL_BN: False
CALIBRATION:
  NUM_CLIPS: 256
TEST:
  BATCH_SIZE: 16
  NUM_ENSEMBLE_VIEWS: 4
  NUM_SPATIAL_CROPS: 3
DATA_LOADER:
  NUM_WORKERS: {recipe.num_workers}
"""


def _quoted(text: str) -> str:
    """A YAML string, whatever the name of a folder holds."""
    return "'" + text.replace("'", "''") + "'"
