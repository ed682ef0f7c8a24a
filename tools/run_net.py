"""Train, calibrate, measure, report and test: what the YAML enables, in this order.

python tools/run_net.py --cfg configs/Kinetics/MUTUAL_X3D_M.yaml DATA.PATH_TO_DATA_DIR /data/k400
torchrun --nproc_per_node 8 tools/run_net.py --cfg configs/Kinetics/MUTUAL_X3D_M.yaml
"""

import argparse
import datetime
import functools
import time
from pathlib import Path

import torch

from mutual3d.config import load_config
from mutual3d.data.build import build_calibration_loader, build_loader, find_class_names, image_resize
from mutual3d.deploy import AdaptiveModel, Preprocessing
from mutual3d.evaluation import PartialResult, QueryTable, calibrate, digest, grid_configurations, measure
from mutual3d.evaluation.build import build_metric
from mutual3d.evaluation.calibration import statistics_from_dict, statistics_to_dict
from mutual3d.evaluation.cost import device_name
from mutual3d.evaluation.grid import build_table, count_costs, measure_latencies
from mutual3d.evaluation.plots import plot_accuracy
from mutual3d.evaluation.report import write_report
from mutual3d.models import build_model
from mutual3d.sampling import prepare_clip
from mutual3d.training import Checkpoints, Trainer
from mutual3d.training.build import build_optimizer, build_schedule, build_step
from mutual3d.utils import distributed
from mutual3d.utils.checkpoint import load_weights, read_weights
from mutual3d.utils.command_line import run_command
from mutual3d.utils.files import ensure_directory, load_tensors, save_tensors, write_json
from mutual3d.utils.logging import log_json_stats, logger, read_json_stats, setup_logging


class Run:
    """One run of a config on this process's device: the stages share the network and the output directory."""

    def __init__(self, cfg, device):
        self.cfg, self.device = cfg, device
        self.output = Path(cfg.OUTPUT_DIR)
        torch.manual_seed(cfg.RNG_SEED)
        self.model = build_model(cfg).place(device)
        self.checkpoints = Checkpoints(self.output)
        self.checkpoint_name = "random weights"
        self.class_names = find_class_names(cfg)
        self.writer = None
        self.seconds = {}

    # ---- Training ------------------------------------------------------------------------------------------------

    def train(self):
        """Train to SOLVER.MAX_EPOCH, going on from the newest checkpoint of the output directory."""
        cfg = self.cfg
        step = build_step(cfg, self.model, self.device)
        optimizer = build_optimizer(cfg, self.model, step.objective)
        start = self._starting_epoch(optimizer, step)
        if start >= cfg.SOLVER.MAX_EPOCH:
            logger.info("training is finished: %d epochs", start)
            return
        self.writer = self._open_writer()
        trainer = Trainer(
            step, optimizer, self._loader("train", "train"), build_schedule(cfg),
            device=self.device, max_epoch=cfg.SOLVER.MAX_EPOCH, seed=cfg.RNG_SEED,
            clip_value=cfg.SOLVER.CLIP_GRAD_VAL, clip_norm=cfg.SOLVER.CLIP_GRAD_L2NORM,
            max_unreadable=cfg.DATA_LOADER.MAX_UNREADABLE_TRAIN, log_period=cfg.LOG_PERIOD,
            after_epoch=lambda epoch: self._after_epoch(epoch, optimizer, step), writer=self.writer,
        )  # fmt: skip
        trainer.train(start)
        if self.writer:
            self.writer.close()
        distributed.broadcast_buffers(self.model)

    def _starting_epoch(self, optimizer, step):
        cfg = self.cfg
        newest = distributed.agree(self.checkpoints.last(), "the newest checkpoint")
        if cfg.TRAIN.AUTO_RESUME and newest is not None:
            if cfg.TRAIN.CHECKPOINT_FILE_PATH:
                logger.warning("TRAIN.CHECKPOINT_FILE_PATH is not read: this run goes on from its own '%s'", newest)
            epoch = self.checkpoints.resume(self.model, optimizer, step.scaler, step.objective, recipe_of(cfg))
            self.checkpoint_name = self.checkpoints.path(epoch).name
            logger.info("going on from '%s'", newest)
            return epoch
        if cfg.TRAIN.CHECKPOINT_FILE_PATH:
            self._load(cfg.TRAIN.CHECKPOINT_FILE_PATH, cfg.TRAIN.CHECKPOINT_RESET_HEAD)
        return 0

    def _after_epoch(self, epoch, optimizer, step):
        last = epoch == self.cfg.SOLVER.MAX_EPOCH
        if last or epoch % self.cfg.TRAIN.CHECKPOINT_PERIOD == 0:
            self.checkpoints.save(
                self.model, optimizer, epoch=epoch, config=self.cfg.dump(), scaler=step.scaler, objective=step.objective,
                recipe=recipe_of(self.cfg),
            )
            self.checkpoint_name = self.checkpoints.path(epoch).name
        if last or epoch % self.cfg.TRAIN.EVAL_PERIOD == 0:
            self._validate(epoch)

    def _validate(self, epoch):
        """Accuracy of the largest configuration on the validation split, with its running statistics."""
        try:
            loader = self._loader("val", "single_view")
        except FileNotFoundError as error:
            logger.warning("validation after epoch %d is skipped: %s", epoch, error)
            return
        distributed.broadcast_buffers(self.model)
        start = time.perf_counter()
        largest = self.model.space.largest
        if not self.model.can_evaluate(largest):
            logger.warning("validation after epoch %d is skipped: %s is not trained in every step", epoch, largest)
            return
        stats = as_errors(self._measure(loader, [largest], f"validate {epoch}")[largest].values())
        epochs = f"{epoch}/{self.cfg.SOLVER.MAX_EPOCH}"
        log_json_stats({"_type": "val_epoch", "epoch": epochs, "time_diff": time.perf_counter() - start, **stats})
        for key, value in stats.items() if self.writer else ():
            self.writer.add_scalar(f"Val/{key}", value, epoch)

    def _open_writer(self):
        cfg = self.cfg
        if not cfg.TENSORBOARD.ENABLE or not distributed.is_main():
            return None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError:
            raise ModuleNotFoundError("TENSORBOARD.ENABLE needs tensorboard: pip install -e .[tensorboard]") from None
        return SummaryWriter(cfg.TENSORBOARD.LOG_DIR or str(self.output / f"runs-{cfg.TRAIN.DATASET}"))

    # ---- Calibration and the grid --------------------------------------------------------------------------------

    def load_trained(self):
        """Weights for a run that does not train: TEST.CHECKPOINT_FILE_PATH, or the newest checkpoint."""
        path = self.cfg.TEST.CHECKPOINT_FILE_PATH or self.checkpoints.last()
        if path is None:
            raise FileNotFoundError(
                f"no weights in '{self.checkpoints.directory}': train first, or give TEST.CHECKPOINT_FILE_PATH"
            )
        self._load(path)

    def _load(self, path, reset_head=False):
        load_weights(self.model, read_weights(path), path, reset_head)
        self.checkpoint_name = Path(path).name
        logger.info("weights from '%s'", path)

    def calibrate(self):
        """Statistics of every configuration that the run will measure, or an earlier run's of the same weights."""
        cfg, loader = self.cfg, build_calibration_loader(self.cfg, **self._ranks())
        wanted = list(dict.fromkeys([*self.configurations(), *self.test_configurations]))
        average = cfg.CALIBRATION.AVERAGE
        mark = digest(self.model.state_dict(), wanted, loader.fingerprint, cfg.DATA.MEAN, cfg.DATA.STD, average)
        if self.load_statistics(mark):
            return
        partial = PartialResult(self.output / ".calibration", mark, cfg.PARTIAL_SAVE_SECONDS)
        calibrate(
            self.model, functools.partial(loader.batches, 0), wanted, prepare=self.prepare, average=average,
            num_batches=len(loader), partial=partial, max_unreadable=cfg.DATA_LOADER.MAX_UNREADABLE_TRAIN,
            num_videos=loader.num_samples,
        )  # fmt: skip
        content = {"fingerprint": mark, "weights": digest(self.model.state_dict())}
        if distributed.is_main():
            content["statistics"] = statistics_to_dict(self.model.statistics)
            save_tensors(self.output / "statistics.pyth", content)
        distributed.barrier()
        partial.remove()

    def load_statistics(self, mark=None):
        """Take statistics.pyth if it was computed under `mark`, or, without one, for the weights at hand."""
        path = self.output / "statistics.pyth"
        if not distributed.agree(path.is_file(), f"whether there is a '{path}'"):
            return False
        saved = load_tensors(path)
        if mark != saved["fingerprint"] if mark else digest(self.model.state_dict()) != saved["weights"]:
            return False
        self.model.set_statistics(statistics_from_dict(saved["statistics"]))
        logger.info("calibrated statistics from '%s'", path)
        return True

    def measure_grid(self):
        """Accuracy, cost and latency of every configuration: the query table. One that fits is not measured again."""
        cfg = self.cfg
        loader = self._loader(cfg.GRID.SPLIT, "single_view", num_views=cfg.GRID.NUM_VIEWS)
        mark = digest(
            self.model.state_dict(), statistics_to_dict(self.model.statistics), loader.fingerprint, self.configurations(),
            cfg.DATA.MEAN, cfg.DATA.STD, cfg.DATA.ENSEMBLE_METHOD, cfg.GRID.LATENCY_DEVICES, cfg.GRID.LATENCY_REPEATS,
        )  # fmt: skip
        path = self.output / "query_table.json"
        found = path.is_file() and QueryTable.load(path)
        if distributed.agree(bool(found and found.provenance.get("fingerprint") == mark), f"the table '{path}'"):
            logger.info("the grid was measured before: '%s'", path)
            return found
        partial = PartialResult(self.output / ".grid", mark, cfg.PARTIAL_SAVE_SECONDS)
        metrics = self._measure(loader, self.configurations(), "measure the grid", partial)
        table = self._table(metrics, mark, loader.dataset.num_views) if distributed.is_main() else None
        distributed.barrier()
        if distributed.is_main():
            self._write_table(table)
        partial.remove()
        return table

    @property
    def test_configurations(self):
        """What the multi-view test runs: TEST.CONFIGURATIONS, or the largest."""
        space = self.model.space
        return [space.check(text) for text in self.cfg.TEST.CONFIGURATIONS or [space.largest]]

    def configurations(self):
        """The grid's configurations, each network once."""
        return grid_configurations(self.model.space, self.cfg.GRID.WIDTH_STEP, self.model.network_key)

    def _table(self, metrics, mark, num_views):
        cfg, configurations = self.cfg, list(metrics)
        devices = self._latency_devices()
        latencies = {}
        for device in devices:
            latencies |= measure_latencies(
                self.model, configurations, cfg.DATA.TEST_CROP_SIZE, device,
                repeats=cfg.GRID.LATENCY_REPEATS, mean=cfg.DATA.MEAN, std=cfg.DATA.STD,
            )  # fmt: skip
        costs = count_costs(self.model, configurations, cfg.DATA.TEST_CROP_SIZE)
        provenance = self._provenance(next(iter(metrics.values())), devices, num_views)
        return build_table(self.model, metrics, costs, latencies, {**provenance, "fingerprint": mark})

    def _latency_devices(self):
        names = self.cfg.GRID.LATENCY_DEVICES
        there = [name for name in names if torch.device(name).type == "cpu" or torch.cuda.is_available()]
        for name in set(names) - set(there):
            logger.warning("GRID.LATENCY_DEVICES names %s and there is none: not measured", name)
        return [torch.device(name) for name in there]

    def _provenance(self, metric, devices, num_views):
        cfg = self.cfg
        return {
            "metric": metric.primary,
            "split": cfg.GRID.SPLIT,
            "num_views": num_views,
            "crop": cfg.DATA.TEST_CROP_SIZE,
            "cost_counted_at": f"{cfg.DATA.TEST_CROP_SIZE} x {cfg.DATA.TEST_CROP_SIZE} pixels",
            "num_videos": metric.num_videos,
            "dataset": cfg.DATA.PATH_TO_DATA_DIR,
            "model": cfg.MODEL.MODEL_NAME,
            "checkpoint": self.checkpoint_name,
            "latency_devices": ", ".join(f"{device}: {device_name(device)}" for device in devices) or "none",
            "date": datetime.date.today().isoformat(),
            "torch": torch.__version__,
        }

    def _write_table(self, table):
        table.save_json(self.output / "query_table.json")
        table.save_csv(self.output / "query_table.csv")
        plot_accuracy(table, self.output / "accuracy_vs_gflops.png")
        stats = read_json_stats(self.output / "stdout.log")
        history = [entry for entry in stats if entry.get("_type") in ("train_epoch", "val_epoch")]
        write_report(table, self.output / "report.html", history=history)
        logger.info("the best configuration for each budget:\n%s", table.format(table.frontier()))

    def save_adaptive(self, table):
        """Write adaptive.pyth: weights, statistics and table, for mutual3d.load."""
        cfg = self.cfg
        preprocessing = Preprocessing(
            mean=tuple(cfg.DATA.MEAN), std=tuple(cfg.DATA.STD), num_frames=cfg.DATA.NUM_FRAMES,
            sampling_rate=cfg.DATA.SAMPLING_RATE, target_fps=cfg.DATA.TARGET_FPS, crop=cfg.DATA.TEST_CROP_SIZE,
            activation=cfg.MODEL.HEAD_ACT, ensemble=cfg.DATA.ENSEMBLE_METHOD, resize=image_resize(cfg),
        )  # fmt: skip
        model = AdaptiveModel(self.model, preprocessing=preprocessing, table=table, class_names=self.class_names)
        model.save(self.output / "adaptive.pyth")

    # ---- Multi-view test -----------------------------------------------------------------------------------------

    def test(self):
        """TEST.NUM_ENSEMBLE_VIEWS x TEST.NUM_SPATIAL_CROPS views of every video of TEST.SPLIT."""
        cfg = self.cfg
        loader = self._loader(cfg.TEST.SPLIT, "multi_view")
        configurations = self.test_configurations
        scores = {}
        metrics = self._measure(loader, configurations, "test", on_scores=_collector(scores))
        views = f"{loader.dataset.num_views}x{loader.dataset.num_crops}"
        results = {str(c): {k: f"{v:.2f}" for k, v in metrics[c].values().items()} for c in configurations}
        for configuration, values in results.items():
            log_json_stats({
                "split": "test_final", "configuration": configuration, "views": views, "crop": cfg.DATA.TEST_CROP_SIZE,
                **values,
            })  # fmt: skip
        if distributed.is_main():
            summary = {"split": cfg.TEST.SPLIT, "views": views, "crop": cfg.DATA.TEST_CROP_SIZE, "results": results}
            write_json(self.output / "test_results.json", summary)
            self._write_details(metrics)
        self._save_scores(scores)

    def _write_details(self, metrics):
        """Average precision of each class and, of boxes, every detection: what the metrics have beyond one number."""
        per_class = {str(c): metric.per_class() for c, metric in metrics.items() if hasattr(metric, "per_class")}
        if per_class:
            write_json(self.output / "per_class_ap.json", per_class)
        for configuration, metric in metrics.items():
            if hasattr(metric, "write_results"):
                metric.write_results(self.output / f"detections_{configuration}.csv")

    def _save_scores(self, scores):
        path = self.cfg.TEST.SAVE_RESULTS_PATH
        joined = {}
        for part in distributed.gather(scores) if path else []:
            for configuration, videos in part.items():
                joined.setdefault(configuration, {}).update(videos)
        if path and distributed.is_main():
            save_tensors(self.output / path, joined)

    # ---- Shared --------------------------------------------------------------------------------------------------

    def prepare(self, clips_BCTHW):
        """uint8 clips from the loader -> normalised clips on the device."""
        return prepare_clip(clips_BCTHW, self.device, self.cfg.DATA.MEAN, self.cfg.DATA.STD)

    def _measure(self, loader, configurations, description, partial=None, on_scores=None):
        return measure(
            self.model, functools.partial(loader.batches, 0), configurations,
            prepare=self.prepare, metric=build_metric(self.cfg, loader.dataset), activation=self.cfg.MODEL.HEAD_ACT,
            ensemble=self.cfg.DATA.ENSEMBLE_METHOD, num_batches=len(loader),
            max_unreadable=self.cfg.DATA_LOADER.MAX_UNREADABLE_TEST, num_videos=loader.num_samples,
            partial=partial, description=description, on_scores=on_scores,
            clips_per_forward=max(1, self.cfg.TEST.BATCH_SIZE // distributed.world_size()),
        )  # fmt: skip

    def _loader(self, split, mode, **options):
        return build_loader(self.cfg, split, mode, **self._ranks(), **options)

    def _ranks(self):
        return {"rank": distributed.rank(), "world_size": distributed.world_size()}

    def timed(self, name, stage, *arguments):
        """Run a stage and remember the seconds it took."""
        start = time.perf_counter()
        result = stage(*arguments)
        self.seconds[name] = time.perf_counter() - start
        return result


def recipe_of(cfg):
    """The settings that make a run another one, as text; its length, rates and places may change."""
    keys = ("MODEL.MODEL_NAME", "MODEL.NUM_CLASSES", "TRAIN.DATASET", "MUTUAL.ENABLE", "DATA.NUM_FRAMES", "DATA.TRAIN_CROP_SIZE")
    if cfg.MUTUAL.ENABLE:
        keys += tuple(f"MUTUAL.{name}" for name in cfg.MUTUAL)
    return {key: str(functools.reduce(lambda node, part: node[part], key.split("."), cfg)) for key in keys}


def as_errors(values):
    """A metric's values as PySlowFast's users know them: accuracies turned into errors, the rest as it is."""
    return {
        name.replace("_acc", "_err"): 100 - value if name.endswith("_acc") else value for name, value in values.items()
    }


def _collector(scores):
    """Keep every video's scores by configuration and position in the csv."""

    def collect(configuration, indices, values):
        scores.setdefault(str(configuration), {}).update(zip(indices.tolist(), values))

    return collect


def check_splits(cfg, ranks):
    """Build every loader that an enabled stage will need, so that a mistake shows before the hours of training."""
    adaptive = cfg.MUTUAL.ENABLE
    if cfg.TRAIN.ENABLE:
        build_loader(cfg, "train", "train", **ranks)
    if cfg.CALIBRATION.ENABLE and adaptive:
        build_calibration_loader(cfg, **ranks)
    if cfg.GRID.ENABLE and adaptive:
        build_loader(cfg, cfg.GRID.SPLIT, "single_view", **ranks)
    if cfg.TEST.ENABLE:
        build_loader(cfg, cfg.TEST.SPLIT, "multi_view", **ranks)


def run(cfg, device):
    """Every stage that the config enables."""
    check_splits(cfg, {"rank": distributed.rank(), "world_size": distributed.world_size()})
    this, adaptive = Run(cfg, device), cfg.MUTUAL.ENABLE
    if cfg.TRAIN.ENABLE:
        this.timed("train", this.train)
    else:
        this.load_trained()
    for size in cfg.GRID.INTERPOLATED_SIZES if adaptive else ():
        this.model.add_size(size)
    if cfg.CALIBRATION.ENABLE and adaptive:
        this.timed("calibrate", this.calibrate)
    elif adaptive:
        this.load_statistics()
    if not adaptive and distributed.is_main():
        this.save_adaptive(None)
    if cfg.GRID.ENABLE and adaptive:
        table = this.timed("measure the grid", this.measure_grid)
        if distributed.is_main():
            this.save_adaptive(table)
    if cfg.TEST.ENABLE:
        this.timed("test", this.test)
    logger.info("seconds: %s", ", ".join(f"{name} {seconds:.1f}" for name, seconds in this.seconds.items()))


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg", required=True, help="YAML file, for instance configs/Demo/MUTUAL_X3D.yaml")
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="KEY VALUE pairs; --opts may be left out")
    parsed, bare = parser.parse_known_args(arguments)
    return parsed.cfg, [*bare, *parsed.opts]


def main(arguments=None):
    path, overrides = parse(arguments and [str(word) for word in arguments])
    cfg = load_config(path, overrides)
    ensure_directory(cfg.OUTPUT_DIR)
    device = distributed.choose_device(cfg.NUM_GPUS)
    with distributed.process_group(device, cfg.DIST_BACKEND):
        setup_logging(cfg.OUTPUT_DIR)
        if cfg.NUM_GPUS > 1 and distributed.world_size() == 1 and device.type == "cuda":
            logger.warning("NUM_GPUS is %d and one process runs: start it with torchrun --nproc_per_node", cfg.NUM_GPUS)
        run(cfg, device)


if __name__ == "__main__":
    run_command(main)
