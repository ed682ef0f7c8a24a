"""What the stages of a run share: the network, the output directory, and how videos are measured."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch

from mutual3d.data.datasets.dataset import ClipDataset, play_of
from mutual3d.data.loader import Batch, ClipLoader
from mutual3d.evaluation import PartialResult, Scoring, VideoPass, calibrate, grid_configurations, measure
from mutual3d.evaluation.calibration import statistics_to_dict
from mutual3d.metrics.metrics import Metric
from mutual3d.metrics.recording import RecordingMetric, VideoRecord
from mutual3d.models import AdaptiveNetwork
from mutual3d.models.interop import Report, load_checkpoint
from mutual3d.pipeline.plans import CalibrationPlan, RunPlan
from mutual3d.sampling import Configuration, prepare_clip
from mutual3d.training import Checkpoints
from mutual3d.utils import distributed
from mutual3d.utils.fingerprint import fingerprint
from mutual3d.utils.logging import logger
from mutual3d.utils.threads import computing_threads


class Samples(Protocol):
    """What a pass runs over: a `ClipLoader`, or batches of one that were kept. `num_samples`: of all processes."""

    num_samples: int

    @property
    def dataset(self) -> ClipDataset:
        """What the samples are of."""

    def __len__(self) -> int: ...

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Those of this process after the first `start`, the same each time for one epoch."""


def network_fingerprint(network: AdaptiveNetwork) -> str:
    """Changes with weights and statistics: by it a result that lies in a directory is known to be this network's."""
    return fingerprint(network.state_dict(), statistics_to_dict(network.statistics))


def check_same_classes(source: str | Path, theirs: Sequence[str] | None, ours: Sequence[str] | None) -> None:
    """ValueError where the classes of a trained network are not those of the data that it is measured on: one would be taken for another.

    source: the network's file, for the message. theirs, ours: names by label, of the file and of the data; None where nothing names them.
    """
    for number, names in enumerate(zip(theirs or (), ours or ())):
        if names[0] != names[1]:
            raise ValueError(
                f"'{source}' was trained on other classes than those of this run's data: number {number} is '{names[0]}' there and "
                f"'{names[1]}' here; give data with the same classes in the same order or, where they only have other names, a file of the "
                "trained ones as DATA.CLASS_NAMES_PATH"
            )


class Workspace:
    """The network of a plan on this process's device, and its output directory: the stages change the one and fill the other.

    checkpoint_name: where the weights came from, for a table's provenance.
    """

    def __init__(self, plan: RunPlan, device: torch.device) -> None:
        self.plan, self.device = plan, device
        self.output, self.preprocessing = plan.output, plan.measuring.preprocessing
        torch.manual_seed(plan.seed)
        self.model = plan.make_model().place(device)
        self.checkpoints = Checkpoints(self.output, plan.training.keep_checkpoints if plan.training else 0)
        self.checkpoint_name = "random weights"
        # Larger sizes may be added after training, to be measured with the norms of this one.
        self.trained_largest = self.model.space.largest

    # ---- Weights -----------------------------------------------------------------------------------------------------

    def load(self, path: Path, reset_head: bool = False, kind: str | None = None, inflate: bool = False) -> Report:
        """Take the weights of a checkpoint that fits the network exactly, but for the classifier if told so; returns what was taken.

        kind, inflate: as of `mutual3d.models.interop.load_checkpoint`, which recognises other projects' files.
        """
        report = load_checkpoint(self.model, path, reset_head=reset_head, kind=kind, inflate=inflate)
        self.checkpoint_name = Path(path).name
        logger.info("weights from '%s'", path)
        return report

    def load_trained(self) -> None:
        """Weights for a run that does not train: the plan's, or the newest checkpoint. FileNotFoundError without any, ValueError where they
        were trained on other classes than the plan's data have."""
        path = self.plan.weights or self.checkpoints.last()
        if path is None:
            raise FileNotFoundError(
                f"no weights in '{self.checkpoints.directory}': train first, or give TEST.CHECKPOINT_FILE_PATH"
            )
        report = self.load(path, kind=self.plan.weights_kind if self.plan.weights else None)
        check_same_classes(path, report.class_names, self.plan.class_names)

    # ---- Configurations ----------------------------------------------------------------------------------------------

    def grid_configurations(self) -> list[Configuration]:
        """The grid's configurations, each network once."""
        return grid_configurations(self.model.space, self.plan.width_step, self.model.network_key)

    def test_configurations(self) -> list[Configuration]:
        """What the multi-view test runs: those that the plan names, or the largest that was trained."""
        named = self.plan.test.configurations if self.plan.test else ()
        return [self.model.space.check(text) for text in named or [self.trained_largest]]

    def check_test_configurations(self) -> None:
        """ValueError for one that will not be in the space, to which sizes and numbers of frames are added after training."""
        space, plan = self.model.space, self.plan
        sizes, frames = (*space.spatial_sizes, *plan.interpolated_sizes), (*space.temporal_sizes, *plan.unseen_frames)
        space = dataclasses.replace(space, spatial_sizes=sizes, temporal_sizes=frames)
        for text in self.plan.test.configurations if self.plan.test else ():
            space.check(text)

    # ---- Measuring ---------------------------------------------------------------------------------------------------

    def fingerprint(self, loader: ClipLoader, *parts: object) -> str:
        """Changes with weights, statistics, the data of `loader` (looked at by the main process), scoring, and `parts`."""
        data = distributed.from_main(lambda: loader.fingerprint)
        statistics = statistics_to_dict(self.model.statistics)
        return fingerprint(self.model.state_dict(), statistics, data, self.preprocessing, *parts)

    def partial_result(self, name: str, made_under: str) -> PartialResult:
        """The file in which a stage keeps what it has so far."""
        return PartialResult(self.output / name, made_under, self.plan.save_seconds)

    def prepare(self, clips_BCTHW: torch.Tensor) -> torch.Tensor:
        """uint8 clips from the loader -> normalised clips on the device."""
        cut = self.preprocessing
        return prepare_clip(clips_BCTHW, self.device, cut.mean, cut.std, cut.reverse_channels, self.model.memory_format)

    def calibrate(self, samples: Samples, configurations: Sequence[Configuration], plan: CalibrationPlan, partial: PartialResult | None = None) -> None:
        """Give the network the statistics of each configuration, of one pass over clips, as the plan averages them.

        partial: where the pass keeps what it has so far.
        """
        with computing_threads(self.plan.num_threads):
            calibrate(
                self.model, functools.partial(samples.batches, 0), configurations, prepare=self.prepare, average=plan.average,
                videos=VideoPass(len(samples), samples.num_samples, plan.max_unreadable, partial),
            )  # fmt: skip

    def measure(
        self,
        samples: Samples,
        configurations: Sequence[Configuration],
        description: str,
        partial: PartialResult | None = None,
        record: Callable[[], VideoRecord] | None = None,
    ) -> dict[Configuration, Metric]:
        """{configuration: metric} over all samples, which are read once.

        record: make each a RecordingMetric with this, made anew, beside it.
        """
        plan = self.plan.measuring
        metric = plan.metric(samples.dataset)
        with computing_threads(self.plan.num_threads):
            return measure(
                self.model, functools.partial(samples.batches, 0), configurations,
                prepare=self.prepare, metric=(lambda: RecordingMetric(metric(), record())) if record else metric,
                scoring=Scoring(self.preprocessing.activation, self.preprocessing.ensemble, plan.clips_per_forward),
                videos=VideoPass(len(samples), samples.num_samples, plan.max_unreadable, partial), description=description,
                play=play_of(samples.dataset),
            )  # fmt: skip
