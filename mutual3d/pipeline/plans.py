"""What a run does, as data: one small plan for each stage. `mutual3d.pipeline.build.from_config` makes them of a config.

Data sets, networks and optimizers come as functions that make them, since they are costly and some need what an earlier
stage made; a stage calls each once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from mutual3d.config import Changes
from mutual3d.cost.axes import ALWAYS_COUNTED
from mutual3d.data.datasets.dataset import ClipDataset
from mutual3d.data.loader import ClipLoader, TrainingLoader
from mutual3d.metrics.metrics import Metric
from mutual3d.models import AdaptiveNetwork
from mutual3d.sampling import Preprocessing
from mutual3d.training import BatchTransform, MutualStep, StoredTeacher, TrainingCourse, WeightAverage
from mutual3d.training.objectives import Objective

MakeLoader = Callable[[], ClipLoader]
# Of the network that is trained, by which some batches come to be.
MakeTrainingLoader = Callable[[AdaptiveNetwork], TrainingLoader]


@dataclass(frozen=True)
class MeasuringPlan:
    """How videos become scores and numbers, the same in validation, grid and test.

    metric: for a data set, a function that makes an empty metric. clips_per_forward: of one process.
    max_unreadable: share of the videos of a pass that may be unreadable.
    """

    preprocessing: Preprocessing
    metric: Callable[[ClipDataset], Callable[[], Metric]]
    clips_per_forward: int = 64
    max_unreadable: float = 0.0


@dataclass(frozen=True)
class TrainingPlan:
    """Training from the newest checkpoint of the output directory, from `weights`, or from random weights.

    loader, validation: of the training, made of its network, and of the validation split; `validation` may raise FileNotFoundError, and then no
    epoch is validated. schedule: exact epoch -> learning rate. settings: the run's settings as text, for checkpoints;
    changed_settings: what differs from such a text. weights: a checkpoint to start from (weights_kind and inflate: as of
    `load_checkpoint`); reset_head: but for its classifier.
    doubts: what to warn of a training set before anything starts, in words; empty for none. periods: in epochs. keep_checkpoints:
    of finished epochs, the newest; 0 and less keeps all. trace: a file for a trace of some steps, None times none. tensorboard: a
    directory, None writes none. precise_batches: training batches whose statistics become the running ones before each checkpoint and each
    validation (BN.USE_PRECISE_STATS); 0 leaves those of training. transforms: what becomes of a step's clips and labels first.
    make_average: of the model's weights, which is then what is evaluated and kept; None keeps the weights themselves. tracks_smallest:
    keep running statistics of the narrowest configuration that every step runs, and validate it too. make_teacher: of the training set,
    whose stored logits are learned from too; None learns from none.
    """

    loader: MakeTrainingLoader
    validation: MakeLoader
    make_step: Callable[[AdaptiveNetwork, torch.device], MutualStep]
    make_optimizer: Callable[[AdaptiveNetwork, Objective], torch.optim.Optimizer]
    schedule: Callable[[float], float]
    course: TrainingCourse
    settings: str
    changed_settings: Callable[[str], Changes]
    doubts: Callable[[ClipDataset], str] = lambda dataset: ""
    checkpoint_period: int = 10
    eval_period: int = 10
    keep_checkpoints: int = 0
    weights: Path | None = None
    weights_kind: str | None = None
    inflate: bool = False
    reset_head: bool = False
    auto_resume: bool = True
    allow_other_data: bool = False
    tensorboard: Path | None = None
    transforms: Sequence[BatchTransform] = ()
    make_average: Callable[[AdaptiveNetwork], WeightAverage | None] = lambda model: None
    trace: Path | None = None
    tracks_smallest: bool = False
    precise_batches: int = 0
    make_teacher: Callable[[ClipDataset], StoredTeacher | None] = lambda dataset: None


@dataclass(frozen=True)
class CalibrationPlan:
    """Batch norm statistics of every configuration that is measured or tested. average: `exact` or `moving`.

    with_own: also of those that training keeps running statistics of (private norms), which then count no more.
    """

    loader: MakeLoader
    average: str = "exact"
    with_own: bool = False
    max_unreadable: float = 0.0


# Tables that are there, of before cascades were, stay those of a run that asks for this many.
DEFAULT_CASCADES = 2


@dataclass(frozen=True)
class GridPlan:
    """Accuracy and costs of every configuration: the query table.

    split: the loader's, for the table's provenance. latency_devices: such as cpu, cuda:1, for the costs that depend on one.
    runtimes: names of `mutual3d.deploy.runtimes.RUNTIMES` that the front is timed in, beside PyTorch on the model's own weights.
    costs: names of `mutual3d.cost.axes.COSTS`. about: further provenance. cascades: configurations in a cascade, at most; 0
    looks for none.
    """

    loader: MakeLoader
    split: str
    latency_devices: tuple[str, ...] = ("cpu",)
    latency_repeats: int = 10
    runtimes: tuple[str, ...] = ()
    costs: tuple[str, ...] = (*ALWAYS_COUNTED, "latency_ms")
    about: Mapping[str, str] = field(default_factory=dict)
    cascades: int = DEFAULT_CASCADES


@dataclass(frozen=True)
class TestPlan:
    """The multi-view test. configurations: as text; () tests the largest. scores: a file in the output directory for the
    scores of every video, None writes none. has_boxes: a video's scores are those of its boxes."""

    # pytest would take the class for tests.
    __test__ = False

    loader: MakeLoader
    split: str
    configurations: tuple[str, ...] = ()
    scores: str | None = None
    has_boxes: bool = False


@dataclass(frozen=True)
class RunPlan:
    """A whole run. A stage that is None is left out.

    weights: of a run that does not train; None takes the newest checkpoint of `output`. width_step: distance between the
    widths of the grid. interpolated_sizes, unseen_frames: spatial sizes and numbers of frames added to the trained ones. has_statistics: configurations have
    batch norm statistics of their own, computed now or by an earlier run. save_seconds: between two saves of what a stage
    has so far. num_threads: that a CPU trains, calibrates and scores with; 0 leaves PyTorch's choice. class_names: by label. settings, command: the config as text and the command line, for the report.
    """

    output: Path
    make_model: Callable[[], AdaptiveNetwork]
    seed: int
    measuring: MeasuringPlan
    training: TrainingPlan | None = None
    calibration: CalibrationPlan | None = None
    grid: GridPlan | None = None
    test: TestPlan | None = None
    weights: Path | None = None
    weights_kind: str | None = None
    width_step: float = 0.05
    interpolated_sizes: tuple[int, ...] = ()
    unseen_frames: tuple[int, ...] = ()
    has_statistics: bool = True
    class_names: tuple[str, ...] | None = None
    settings: str = ""
    command: str = ""
    save_seconds: float = 20.0
    num_threads: int = 0


@dataclass(frozen=True)
class SlimPlan:
    """A search for the widths of the layers that lose least within budgets (`mutual3d.pipeline.slimming.slim_network`).

    bundle: the adaptive.pyth of a run. output: the folder of what is written. run: the run's own plan, of which the calibration and
    the grid give a found configuration's statistics and row. calibration: clips that each tried configuration's statistics are
    computed on. search: videos, held out from training, that its accuracy is measured on. Both are read once and kept in memory.
    split: that of `search`, for the table's provenance. cost: a name of `mutual3d.cost.axes.COSTS`. budgets: in its unit; each
    gets a row. step: what a width falls by. start: the configuration to start from; None is the largest.
    """

    bundle: Path
    output: Path
    run: RunPlan
    calibration: MakeLoader
    search: MakeLoader
    split: str
    cost: str
    budgets: tuple[float, ...]
    step: float = 0.1
    start: str | None = None


@dataclass(frozen=True)
class LogitsPlan:
    """Logits of every video of a list, for a training to learn from (`mutual3d.pipeline.logits.write_logits`).

    bundle: the adaptive.pyth of a run. output: the file to write. run: the run's own plan, which says how clips are cut and videos measured.
    loader: of the list. configuration: as text; None is the largest. num_views: clips of a video that the loader is to give.
    """

    bundle: Path
    output: Path
    run: RunPlan
    loader: MakeLoader
    configuration: str | None = None
    num_views: int = 1


@dataclass(frozen=True)
class MachinePlan:
    """Where a run writes, what it runs on, and for how long. num_gpus: 0 runs on the CPU. backend: of torch.distributed.
    max_minutes: after which it saves and ends; 0 sets no limit."""

    output: Path
    num_gpus: int = 1
    backend: str = "nccl"
    max_minutes: float = 0.0


@dataclass(frozen=True)
class CountingPlan:
    """What is counted without data. crop: pixels of a view. subnets: the rules of a mutual step, None of a static one.
    subnets_start_epoch: before which there are none."""

    make_model: Callable[[], AdaptiveNetwork]
    crop: int
    width_step: float
    subnets: tuple[str, ...] | None = None
    with_largest: bool = True
    subnets_start_epoch: float = 0.0
