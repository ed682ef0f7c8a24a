"""A config that fits videos, machine and time: what `mutual3d init` writes."""

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from mutual3d.evaluation.grid import grid_configurations
from mutual3d.models import AdaptiveNetwork, create_model, load_network
from mutual3d.pipeline.survey import Survey
from mutual3d.sampling import SearchSpace, prepare_clip
from mutual3d.training import Method, MutualStep
from mutual3d.training.optimizer import build_optimizer
from mutual3d.utils.checkpoint import read_weights
from mutual3d.utils.files import load_tensors

# A network of a few hundred videos wants this many epochs before anything else; below the fewest it learns nothing.
_WANTED_EPOCHS = 60
_FEWEST_EPOCHS = 15
_MOST_EPOCHS = 150
# Steps that are timed; of these so many of the slowest are left out: another program had the machine then.
_TIMED_STEPS, _OUTLIERS = 6, 2
_CALIBRATION_CLIPS, _TEST_VIEWS, _TEST_CROPS, _WIDTH_STEP, _LATENCY_REPEATS = 256, 4, 3, 0.125, 10
_VALIDATIONS = 6
# A configuration of the grid costs this share of the largest's time on the average. Of its arithmetic it is about 0.27: sizes of a
# half, three quarters and all are 0.60 of the pixels, frames of three, five and eight eighths 0.67 of the frames, and widths from
# a half to all 0.59 (dense layers) to 0.75 (depthwise ones) of the channels' work. What a small network costs whatever it
# computes is the rest; the share errs on the side of a run that ends early.
_SHARE_OF_LARGEST = 0.45
# Starting, saving, figures and the report.
_OVERHEAD_SECONDS = 8.0


class StepTime(NamedTuple):
    """Seconds of a mutual training step, and of one clip through the largest configuration; configurations in the grid."""

    step: float
    clip: float
    configurations: int


@dataclass(frozen=True)
class NetworkChoice:
    """An X3D of some size, for clips of `num_frames` frames of `crop` pixels; the rest is `create_model`'s."""

    crop: int
    num_frames: int
    width_factor: float
    depth_factor: float
    dim_c5: int
    dim_c1: int = 12
    bottleneck_factor: float = 2.25
    scale_res2: bool = False
    trained_space: SearchSpace | None = None

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
        """That of the checkpoint which training starts from, or one that fits the sizes."""
        return self.trained_space or SearchSpace((0.5, 1.0), self.spatial_sizes, self.temporal_sizes)


# From small to large. The last ones are for GPUs: X3D-S and X3D-M as published.
CHOICES = (
    NetworkChoice(48, 8, 1.0, 0.6, 256),
    NetworkChoice(64, 8, 1.0, 1.0, 256),
    NetworkChoice(96, 8, 1.0, 1.0, 256),
    NetworkChoice(112, 12, 1.5, 1.5, 512),
    NetworkChoice(160, 13, 2.0, 2.2, 2048),
    NetworkChoice(224, 16, 2.0, 2.2, 2048),
)


def network_of_checkpoint(path: str | Path) -> NetworkChoice:
    """The X3D in a checkpoint or an adaptive.pyth of this project, whatever its classes are.

    Raises ValueError, which names the file and the way out, for a file that does not say which network it holds, for another
    kind of network, and for weights that are not its own; FileNotFoundError where there is none.
    """
    content = load_tensors(path)
    arguments = content.get("model_arguments") if isinstance(content, dict) else None
    if not isinstance(arguments, dict):
        raise ValueError(
            f"'{path}' does not say which network it holds: give a checkpoint or an adaptive.pyth of a run; `mutual3d convert` "
            "makes one of another project's weights"
        )
    network = load_network(arguments, read_weights(path), path)
    space, name = network.space, arguments.get("name")
    is_quantized = {"weight_bits", "activation_bits"} & arguments.keys()
    plain = arguments.get("detection") is None and arguments.get("batchnorm", "calibrated") == "calibrated" and not is_quantized
    if name != "x3d" or not plain or space.listed_widths:
        what = f"a network {name}" if name != "x3d" else "an X3D for boxes, with private norms, with quantised weights, or with listed widths"
        raise ValueError(
            f"'{path}' holds {what}, and init plans for plain X3D: take the config that it was trained with, and set "
            "TRAIN.CHECKPOINT_FILE_PATH and TRAIN.CHECKPOINT_RESET_HEAD"
        )
    known = {
        "width_factor": 2.0, "depth_factor": 2.2, "dim_c5": 2048, "dim_c1": 12, "bottleneck_factor": 2.25, "scale_res2": False
    }  # fmt: skip
    return NetworkChoice(
        crop=space.largest.spatial, num_frames=space.largest.temporal, trained_space=space,
        **{key: arguments.get(key, default) for key, default in known.items()},
    )  # fmt: skip


@dataclass(frozen=True)
class VideoCounts:
    """How many videos each list of a run has, and of how many classes they are."""

    train: int
    val: int
    test: int
    classes: int


@dataclass(frozen=True)
class Recipe:
    """The settings of a run. seconds: what all of it is estimated to take, step_seconds: what one step took.

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
    num_gpus: int
    step_seconds: float
    seconds: float


def fit_recipe(
    survey: Survey,
    *,
    videos: VideoCounts,
    minutes: float,
    device: torch.device,
    num_workers: int,
    measure: Callable[[NetworkChoice, int, int, torch.device], StepTime] | None = None,
    choices: Sequence[NetworkChoice] = CHOICES,
) -> Recipe:
    """The largest network that trains for enough epochs, is calibrated, measured and tested, in `minutes` on `device`.

    measure: (network, classes, batch size, device) -> its times; by default a few steps are timed. Raises
    ValueError when not even the smallest network gets through the fewest epochs, with the minutes that it needs.
    num_workers: processes that read videos.
    """
    measure = measure or time_step
    batch_size = _batch_size(videos.train, device)
    steps = max(1, videos.train // batch_size)
    read = survey.read_seconds * steps * batch_size / max(1, num_workers)
    best = None
    for choice in choices:
        if best is not None and choice.crop > survey.short_side:
            break
        times = measure(choice, videos.classes, batch_size, device)
        step = times.step
        # Workers read while the network computes; in one process one waits for the other.
        epoch = max(steps * step, read) if num_workers else steps * step + read
        after = _seconds_after_training(times, survey.read_seconds / max(1, num_workers), videos)
        if best is not None and (60 * minutes - after) / epoch < _WANTED_EPOCHS:
            break
        best = choice, step, epoch, after
    assert best is not None, "there is no network to choose"
    choice, step, epoch, after = best
    epochs = max(0, int((60 * minutes - after) / epoch))
    if epochs < _FEWEST_EPOCHS:
        needed = math.ceil((_FEWEST_EPOCHS * epoch + after) / 60)
        raise ValueError(
            f"{minutes:g} minutes are {epochs} epochs of {videos.train} videos on {device}, and under {_FEWEST_EPOCHS} a network "
            f"learns nothing: give --minutes {needed} or more, fewer videos, smaller copies of them, or a GPU"
        )
    epochs = min(epochs, _MOST_EPOCHS)
    return Recipe(
        network=choice, target_fps=_target_fps(survey.fps), sampling_rate=_sampling_rate(survey, choice.num_frames),
        jitter=(choice.crop, round(choice.crop * 1.25)), batch_size=batch_size, base_lr=_base_lr(batch_size),
        warmup_epochs=float(max(1, round(epochs / 15))), max_epoch=epochs, num_workers=num_workers,
        num_gpus=int(device.type == "cuda"), step_seconds=step, seconds=epochs * epoch + after,
    )  # fmt: skip


def _seconds_after_training(times: StepTime, read: float, videos: VideoCounts) -> float:
    """Seconds of validation, calibration, grid with its latencies, and test: whatever the number of epochs is.

    read: seconds of one video.
    """
    clip, configurations = times.clip, times.configurations
    small = _SHARE_OF_LARGEST * clip
    calibrated = min(videos.train, _CALIBRATION_CLIPS)
    views = _TEST_VIEWS * _TEST_CROPS
    return (
        _OVERHEAD_SECONDS
        + _VALIDATIONS * videos.val * (clip + read)
        + calibrated * (configurations * small + read)
        + configurations * (videos.val + _LATENCY_REPEATS) * small + videos.val * read
        + videos.test * (views * clip + _TEST_VIEWS * read)
    )  # fmt: skip


def _batch_size(num_train: int, device: torch.device) -> int:
    """A power of two with at least seven steps an epoch, where there are so many videos."""
    max_batch = 64 if device.type == "cuda" else 16
    return max(2, min(max_batch, 2 ** int(math.log2(max(2, num_train / 7)))))


def _base_lr(batch_size: int) -> float:
    """In proportion to the batch from the demo's 0.04 at 16, which small networks with three losses a step learn with."""
    return round(0.04 * batch_size / 16, 4)


def _target_fps(fps: float) -> int:
    return max(1, round(fps))


def _sampling_rate(survey: Survey, num_frames: int) -> int:
    """Frames between two of a clip, so that a clip spans most of a short video and at most about three seconds."""
    span = min(0.9 * survey.short_seconds, 3.0)
    return max(1, math.floor(span * survey.fps / num_frames))


def time_step(choice: NetworkChoice, num_classes: int, batch_size: int, device: torch.device) -> StepTime:
    """Times of random clips: means of a few steps without the slowest, after one that warms up. batch_size: clips in a step."""
    model = create_model(
        "x3d", space=choice.space, num_classes=num_classes, width_factor=choice.width_factor,
        depth_factor=choice.depth_factor, dim_c5=choice.dim_c5, dim_c1=choice.dim_c1, dropout_rate=0.2,
        bottleneck_factor=choice.bottleneck_factor, scale_res2=choice.scale_res2,
    ).place(device).train()  # fmt: skip
    prepare = functools.partial(prepare_clip, device=device, mean=(0.45,) * 3, std=(0.225,) * 3, memory_format=model.memory_format)
    step = MutualStep(model, Method(("smallest", "random"), "inplace_distillation"), prepare=prepare, seed=0)
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
    usual = sorted(times[1:])[: _TIMED_STEPS - _OUTLIERS]
    configurations = grid_configurations(choice.space, _WIDTH_STEP, model.signature)
    return StepTime(sum(usual) / len(usual), _time_clip(model, clips), len(configurations))


def _time_clip(model: AdaptiveNetwork, clips_BCTHW: torch.Tensor) -> float:
    """Seconds of a clip, among a batch, through the largest configuration without gradients: the faster of two batches."""
    floats, times = clips_BCTHW.float() / 255, []
    with torch.no_grad():
        for _ in range(2):
            start = time.perf_counter()
            model(model.fit_clip(floats, model.space.largest)).sum().item()  # which waits for the device
            times.append(time.perf_counter() - start)
    return min(times) / len(clips_BCTHW)


def describe_recipe(
    recipe: Recipe, survey: Survey, *, data: str, output: str, num_classes: int, num_train: int, weights: str | None = None
) -> str:
    """The recipe as a commented YAML config. data, output: folders, as text. weights: a checkpoint to start from.

    num_classes, num_train: numbers of classes and of training videos.
    """
    start = f"""  # The classifier starts anew: its classes are these videos'.
  CHECKPOINT_FILE_PATH: {_quoted(weights)}
  CHECKPOINT_RESET_HEAD: True
""" if weights else ""
    network = recipe.network
    span = network.num_frames * recipe.sampling_rate / recipe.target_fps
    return f"""# Made for {num_train} training videos of {num_classes} classes: {survey.seconds:.1f} s long (nine in ten over {survey.short_seconds:.1f} s),
# {survey.fps:.4g} frames a second, short side {survey.short_side} pixels (medians of {survey.looked_at - len(survey.bad)} videos).
# The run was estimated at {recipe.seconds / 60:.1f} minutes: {recipe.max_epoch} epochs of steps of {recipe.step_seconds:.2f} s on the machine that made
# this file, then calibration, the grid of configurations, and the test.
OUTPUT_DIR: {_quoted(output)}
# What the minutes were planned for; 0 is the CPU, also where there is a GPU.
NUM_GPUS: {recipe.num_gpus}
MODEL:
  MODEL_NAME: X3D
  NUM_CLASSES: {num_classes}
  DROPOUT_RATE: 0.2
X3D:
  # A larger network is more accurate where there are many videos, and slower: 2.0 and 2.2 are X3D-M's.
  WIDTH_FACTOR: {network.width_factor}
  DEPTH_FACTOR: {network.depth_factor}
  BOTTLENECK_FACTOR: {network.bottleneck_factor}
  SCALE_RES2: {network.scale_res2}
  # Channels of the stem, and of the layer before the classifier.
  DIM_C1: {network.dim_c1}
  DIM_C5: {network.dim_c5}
MUTUAL:
  ENABLE: True
  # What can be chosen at run time: a width in this range of all channels, these sizes in pixels, these numbers of frames.
  WIDTH_RANGE: {list(network.space.width_range)}
  SPATIAL_SIZES: {list(network.space.spatial_sizes)}
  TEMPORAL_SIZES: {list(network.space.temporal_sizes)}
  # Channels are a multiple of this.
  WIDTH_DIVISOR: {network.space.divisor}
GRID:
  # Between two widths that are measured.
  WIDTH_STEP: {_WIDTH_STEP}
  LATENCY_REPEATS: {_LATENCY_REPEATS}
DATA:
  PATH_TO_DATA_DIR: {_quoted(data)}
  INPUT_CHANNEL_NUM: [3]
  # A clip: {network.num_frames} frames, every {recipe.sampling_rate}. of {recipe.target_fps} a second, which is {span:.1f} s of a video.
  NUM_FRAMES: {network.num_frames}
  SAMPLING_RATE: {recipe.sampling_rate}
  TARGET_FPS: {recipe.target_fps}
  # Training resizes the short side to between these pixels, and cuts a square out; a test cuts its middle.
  TRAIN_JITTER_SCALES: {list(recipe.jitter)}
  TRAIN_CROP_SIZE: {network.crop}
  TEST_CROP_SIZE: {network.crop}
  # Set it False where left and right are what tells classes apart.
  RANDOM_FLIP: True
TRAIN:
  BATCH_SIZE: {recipe.batch_size}
  # Epochs between two validations, and between two checkpoints, from which a run that was stopped goes on.
  EVAL_PERIOD: {max(1, -(-recipe.max_epoch // _VALIDATIONS))}
  CHECKPOINT_PERIOD: {max(1, recipe.max_epoch // 12)}
{start}SOLVER:
  # In proportion to the batch. Halve it where the loss is not finite.
  BASE_LR: {recipe.base_lr}
  MAX_EPOCH: {recipe.max_epoch}
  # Epochs in which the rate rises from WARMUP_START_LR; after them it falls as a cosine.
  WARMUP_EPOCHS: {recipe.warmup_epochs}
  WARMUP_START_LR: {recipe.base_lr / 10:.4g}
  WEIGHT_DECAY: 5e-5
  CLIP_GRAD_L2NORM: 5.0
RESNET:
  # A residual branch that starts at zero wakes too late for a run of minutes.
  ZERO_INIT_FINAL_BN: False
CALIBRATION:
  # Training clips that batch norm statistics of every configuration are computed on.
  NUM_CLIPS: {_CALIBRATION_CLIPS}
TEST:
  BATCH_SIZE: 16
  # Clips over time times crops over the frame, whose scores are averaged, in the test; the table has one of each.
  NUM_ENSEMBLE_VIEWS: {_TEST_VIEWS}
  NUM_SPATIAL_CROPS: {_TEST_CROPS}
DATA_LOADER:
  # Processes that read videos; 0 reads between the steps.
  NUM_WORKERS: {recipe.num_workers}
"""


def _quoted(text: str) -> str:
    """A YAML string, whatever the name of a folder holds."""
    return "'" + text.replace("'", "''") + "'"
