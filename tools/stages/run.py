"""What the stages of a run share: the network, the output directory, loaders, and how videos are measured."""

import contextlib
import dataclasses
import functools
import time
from pathlib import Path

import torch

from mutual3d.data.build import build_calibration_loader, build_loader, find_class_names, unused_classes
from mutual3d.data.datasets.kinetics import VideoDataset
from mutual3d.data.loader import ClipLoader
from mutual3d.evaluation import grid_configurations, measure
from mutual3d.metrics.recording import RecordingMetric
from mutual3d.metrics.build import build_metric
from mutual3d.models import build_model
from mutual3d.sampling import prepare_clip
from mutual3d.training import Checkpoints
from mutual3d.utils import distributed
from mutual3d.utils.checkpoint import load_weights, read_weights
from mutual3d.utils.logging import logger


class Run:
    """A config on this process's device: the stages share its network and its output directory."""

    def __init__(self, cfg, device):
        self.cfg, self.device = cfg, device
        self.output = Path(cfg.OUTPUT_DIR)
        torch.manual_seed(cfg.RNG_SEED)
        self.model = build_model(cfg).place(device)
        self.checkpoints = Checkpoints(self.output)
        self.checkpoint_name = "random weights"
        self.class_names = find_class_names(cfg)
        self.seconds = {}
        # Videos that crashed a worker or never answered: no stage tries them again.
        self.lost = {}

    def load(self, path, reset_head=False):
        """Take the weights of a checkpoint that fits the network exactly, but for the classifier if told so."""
        load_weights(self.model, read_weights(path), path, reset_head)
        self.checkpoint_name = Path(path).name
        logger.info("weights from '%s'", path)

    def load_trained(self):
        """Weights for a run that does not train: TEST.CHECKPOINT_FILE_PATH, or the newest checkpoint."""
        path = self.cfg.TEST.CHECKPOINT_FILE_PATH or self.checkpoints.last()
        if path is None:
            raise FileNotFoundError(
                f"no weights in '{self.checkpoints.directory}': train first, or give TEST.CHECKPOINT_FILE_PATH"
            )
        self.load(path)

    @property
    def test_configurations(self):
        """What the multi-view test runs: TEST.CONFIGURATIONS, or the largest."""
        space = self.model.space
        return [space.check(text) for text in self.cfg.TEST.CONFIGURATIONS or [space.largest]]

    @property
    def only_tests(self):
        """Whether no stage makes anything of the network that is tested."""
        cfg = self.cfg
        calibrates = cfg.CALIBRATION.ENABLE and (cfg.MUTUAL.ENABLE or cfg.BN.USE_PRECISE_STATS)
        return not (cfg.TRAIN.ENABLE or calibrates or cfg.MUTUAL.ENABLE and cfg.GRID.ENABLE)

    def check_test_configurations(self):
        """ValueError for one that will not be in the space, to which interpolated sizes are added after training."""
        sizes = {*self.model.space.spatial_sizes, *self.cfg.GRID.INTERPOLATED_SIZES}
        space = dataclasses.replace(self.model.space, spatial_sizes=tuple(sorted(sizes)))
        for text in self.cfg.TEST.CONFIGURATIONS if self.cfg.TEST.ENABLE else ():
            space.check(text)

    def configurations(self):
        """The grid's configurations, each network once."""
        return grid_configurations(self.model.space, self.cfg.GRID.WIDTH_STEP, self.model.network_key)

    def loader(self, split, mode, **options):
        """This process's share of a split; see `build_loader`."""
        return build_loader(self.cfg, split, mode, **ranks(), lost=self.lost, **options)

    def calibration_loader(self):
        return build_calibration_loader(self.cfg, **ranks(), lost=self.lost)

    def data_fingerprint(self, loader: ClipLoader) -> str:
        """Changes with the content of what a loader serves; the main process looks at the files for all."""
        return distributed.from_main(lambda: loader.fingerprint)

    def prepare(self, clips_BCTHW):
        """uint8 clips from the loader -> normalised clips on the device."""
        return prepare_clip(clips_BCTHW, self.device, self.cfg.DATA.MEAN, self.cfg.DATA.STD)

    def measure(self, loader, configurations, description, partial=None, records=False):
        """{configuration: metric} over all videos of a loader, which are decoded once.

        records: make each a RecordingMetric, which keeps the scores of every video.
        """
        metric = build_metric(self.cfg, loader.dataset)
        return measure(
            self.model, functools.partial(loader.batches, 0), configurations,
            prepare=self.prepare, metric=(lambda: RecordingMetric(metric())) if records else metric, activation=self.cfg.MODEL.HEAD_ACT,
            ensemble=self.cfg.DATA.ENSEMBLE_METHOD, num_batches=len(loader),
            max_unreadable=self.cfg.DATA_LOADER.MAX_UNREADABLE_TEST, num_videos=loader.num_samples,
            partial=partial, description=description,
            clips_per_forward=max(1, self.cfg.TEST.BATCH_SIZE // distributed.world_size()),
        )  # fmt: skip

    def timed(self, name, stage, *arguments):
        """Call a stage and remember the seconds it took."""
        start = time.perf_counter()
        result = stage(self, *arguments)
        self.seconds[name] = time.perf_counter() - start
        return result


def ranks():
    """This process's share of the data."""
    return {"rank": distributed.rank(), "world_size": distributed.world_size()}


def check_splits(cfg):
    """Build every loader that an enabled stage will need, so that a mistake shows before the hours of training."""
    adaptive = cfg.MUTUAL.ENABLE
    if cfg.TRAIN.ENABLE:
        loader = build_loader(cfg, "train", "train", **ranks())
        unused = unused_classes(cfg, loader.dataset) if isinstance(loader.dataset, VideoDataset) else ""
        if unused and distributed.is_main():
            logger.warning(unused)
        # Training without a validation list goes on without validation.
        with contextlib.suppress(FileNotFoundError):
            build_loader(cfg, "val", "single_view", **ranks())
    if cfg.CALIBRATION.ENABLE and (adaptive or cfg.BN.USE_PRECISE_STATS):
        build_calibration_loader(cfg, **ranks())
    if cfg.GRID.ENABLE and adaptive:
        build_loader(cfg, cfg.GRID.SPLIT, "single_view", **ranks())
    if cfg.TEST.ENABLE:
        build_loader(cfg, cfg.TEST.SPLIT, "multi_view", **ranks())
