"""The one file that is deployed, and the model it loads to."""

import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn as nn

from mutual3d.cost.axes import COSTS, MEAN
from mutual3d.cost.latency_key import LATENCIES
from mutual3d.deploy.cascade import check_cascade, promise, run_cascade, thresholds_of
from mutual3d.deploy.compiled import CompiledConfigurations, Prepared
from mutual3d.deploy.decoding import Decoding
from mutual3d.deploy.embed import Embeddings, embed
from mutual3d.deploy.explain import Explanation, explain_clip
from mutual3d.deploy.fastest import RuntimeChoice, choose_fastest, measured_configurations
from mutual3d.deploy.gives import check_gives_rows
from mutual3d.deploy.live import FrameSource
from mutual3d.deploy.predict import PredictionStream, Reading, collect, predict_each, read_clip, window_seconds
from mutual3d.deploy.prediction import Predictions
from mutual3d.deploy.runtimes import NetworkCache, Runtime, find_runtime
from mutual3d.deploy.scan import Events, Scanner, ScanSettings, ScanStream, usable_cores
from mutual3d.deploy.share import find_bundle
from mutual3d.deploy.sources import Source, list_archive, list_sources
from mutual3d.deploy.spending import Spending
from mutual3d.deploy.stream import DeadlineStream, StreamSettings
from mutual3d.deploy.timing import key_here
from mutual3d.deploy.video_timing import FROM_FILE, key_from_file
from mutual3d.evaluation.calibration import statistics_from_dict, statistics_to_dict
from mutual3d.models import AdaptiveNetwork, load_network
from mutual3d.models.adaptive import ConfigurationView, Inputs
from mutual3d.models.adaptive.statistics import not_calibrated
from mutual3d.sampling import ACTIVATIONS, Cascade, Configuration, Preprocessing, prepare_clip
from mutual3d.table.cascade_row import CascadeRow
from mutual3d.table.query_table import AnyRow, QueryTable, Row
from mutual3d.utils.files import load_tensors, save_tensors
from mutual3d.utils.logging import logger

FORMAT = "mutual3d-adaptive-1"
_CLIP_FORM = "uint8 pixels, or floats that are normalised already"
ENTRIES = ("format", "model_arguments", "model_state", "statistics", "query_table", "preprocessing", "class_names")


class AdaptiveModel(nn.Module):
    """Weights, statistics and query table together: a model that runs at any configuration or budget.

    Takes one full-size clip tensor or array, B, 3, T, S, S (images: B, 3, S, S), uint8 (normalised here) or float
    (normalised already), shrinks it to the active configuration and returns class probabilities B, K. A network that
    classifies boxes takes whole frames, S their short side, and boxes N, 5 (position in the batch; x1, y1, x2, y2 in
    [0, 1]), and returns N, K. What arrives on another device, or as another kind of float, is moved to the weights'.

    Predictions compute no gradients; `network`, called itself, does, and so does a model in training mode.

    Threads: a call may come from any, and each is computed whole at one configuration. `model(clip, configuration=c)` and
    `model.at(c)(clip)` name it; `model(clip)` takes the active one. `activate` and `set_budget`, which change it for
    everybody, belong to the first thread that calls one of them, until that thread has ended or `release` was called.

    A cascade, which is activated as a configuration is, runs each clip at its cheap configuration, and at a dearer one where that
    is not sure; `spending` says what it promised and spent.
    Raises ValueError where class names or preprocessing are not of this network.
    """

    def __init__(
        self,
        network: AdaptiveNetwork,
        *,
        preprocessing: Preprocessing,
        table: QueryTable | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        _check_class_names(class_names, network)
        self.network = network
        self.preprocessing, self.table, self.class_names = preprocessing, table, class_names
        # The file that it was loaded from.
        self.path: Path | None = None
        # What `runtime="auto"` found.
        self.choice: RuntimeChoice | None = None
        self._compiled: CompiledConfigurations | None = None
        self._spending: Spending | None = None
        self.eval()

    @property
    def active(self) -> Configuration:
        """The configuration that a call runs at when it names none; of a cascade the last one, see `stages`."""
        return self.network.active

    @property
    def cascade(self) -> Cascade | None:
        """The cascade that a call runs when it names no configuration; None where one configuration is active."""
        return None if self._spending is None else self._spending.cascade

    @property
    def spending(self) -> Spending | None:
        """What the active cascade promised and spent so far; None where one configuration is active."""
        return self._spending

    @property
    def stages(self) -> tuple[Configuration, ...]:
        """Every configuration that a call which names none may run at: the active one, or all of the cascade."""
        return (self.active,) if self._spending is None else self._spending.cascade.configurations

    @property
    def runtime(self) -> str | None:
        """The name of the runtime that calls run in; None for PyTorch on the model's own weights."""
        return None if self._compiled is None else self._compiled.runtime.name

    def run_in(
        self,
        runtime: str | None,
        *,
        cache: str | os.PathLike | None = None,
        clips: Sequence[torch.Tensor | np.ndarray] = (),
    ) -> "AdaptiveModel":
        """Compute calls in `runtime` from now on, and predictions with them; returns the model. See `mutual3d.load`.

        A configuration is compiled when it is first called, or ahead by `prepare` (seconds, in runtimes that are not PyTorch),
        and compared with PyTorch then; it is kept on disk, and in memory, where all threads share it. Changed weights are
        compiled anew, but for changes through `.data`, which PyTorch does not count: call this again after them. Normalising, shrinking and softmax are part of what is compiled. Runtimes that are not PyTorch compute
        on the CPU, in fp32 unless their name says otherwise.

        `auto` measures the installed runtimes whose scores are PyTorch's to 1e-4, at one configuration, and takes the fastest;
        `choice` says what was measured, which this machine remembers. A configuration that fails there runs in PyTorch.

        Args:
            runtime: the name of one, `auto`, or None for PyTorch on the model's own weights, which all configurations share.
            cache: the folder of compiled networks; None is that of the variable MUTUAL3D_CACHE (`off`: none), or the system's
                own place for such. `mutual3d cache` shows and clears it.
            clips: uint8 clips as the model is called with, of the videos that it is for: int8 chooses its ranges by them.

        Raises ValueError for a word that is no runtime, and where int8 has no clips; ImportError for one that is not
        installed. A call raises CompilationError where the runtime fails, and RuntimeMismatchError where its scores are not
        PyTorch's.
        """
        disk = NetworkCache(cache)
        self.choice = None
        if runtime is None or (runtime == "auto" and not self.network.gives_rows):
            self._compiled = None
            return self
        check_gives_rows(self, f"the runtime {runtime}")
        if runtime == "auto":
            torch_runtime = find_runtime("torch")

            def make(each: Runtime) -> CompiledConfigurations:
                return CompiledConfigurations(self, each, cache=disk)

            self.choice, self._compiled = choose_fastest(self, disk, make)
            self._compiled.fallback = None if self._compiled.runtime is torch_runtime else torch_runtime
        else:
            found = find_runtime(runtime)
            if found.needs_clips and not len(clips):
                raise ValueError(
                    f"the runtime {runtime} chooses its ranges by clips, and there are none: give some of the videos that the "
                    f"model is for, model.run_in('{runtime}', clips=...)"
                )
            given = [self._checked(clip, None, needs_boxes=False)[0] for clip in clips]
            self._compiled = CompiledConfigurations(self, found, cache=disk, clips=given)
        return self

    def prepare(
        self,
        configurations: "Iterable[Configuration | Cascade | str | AnyRow] | None" = None,
        *,
        frame: tuple[int, int] | None = None,
        progress: bool = True,
    ) -> Prepared:
        """Compile configurations ahead of their first call, so that switching between them costs microseconds.

        Args:
            configurations: these, their texts, or rows of the table; of a cascade all that it runs at. None takes the Pareto front over GFLOPs (without a table
                all that are calibrated).
            frame: height and width in pixels of the whole frames that a model of boxes sees; a square by default.
            progress: show a bar; what it took is in the log.

        Returns what was prepared, the seconds, and how many bytes the process grew by. In PyTorch on the model's own weights
        there is nothing to compile. Raises as a call does.
        """
        if configurations is None:
            configurations = measured_configurations(self)
        given = [_parsed(each.configuration if isinstance(each, (Row, CascadeRow)) else each) for each in configurations]
        single = [c for each in given for c in (each.configurations if isinstance(each, Cascade) else [each])]
        chosen = list(dict.fromkeys(self.network.space.check(each) for each in single))
        if self._compiled is None:
            missing = [c for c in chosen if not self.network.can_evaluate(c)]
            if missing:
                raise not_calibrated(missing[0], self.network.statistics)
            return Prepared(tuple(chosen), 0.0, 0)
        prepared = self._compiled.prepare(chosen, frame, progress=progress)
        logger.info("%s", prepared)
        return prepared

    def activate(self, configuration: Configuration | Cascade | str) -> "AdaptiveModel":
        """Run at `configuration` from now on; takes microseconds. ValueError outside the space; see `load`.

        Of a cascade, such as `0.25-24-4@0.83T1.6+1.0-48-8`, the thresholds decide which clips go on; ValueError where clips have
        several labels or boxes. Raises OtherThreadError, a RuntimeError, when another thread activates this model: see the class.
        """
        given = _parsed(configuration)
        if isinstance(given, Cascade):
            self.spend(thresholds_of(self, check_cascade(self, given)))
        else:
            self.network.activate(given)
            if self._spending is not None:
                self._spending = None
        return self

    def spend(self, spending: Spending) -> None:
        """Activate the cascade of a promise, which is kept from now on."""
        self.network.activate(spending.cascade.configurations[-1])
        self._spending = spending

    def release(self) -> None:
        """Let another thread call `activate` from now on: for a model that is handed over as a whole."""
        self.network.release()

    def at(self, configuration: Configuration | Cascade | str) -> ConfigurationView:
        """This model at `configuration`, whatever is active: a small module with the same weights, for any thread.

        Of a cascade its thresholds decide which clips go on. Raises ValueError outside the space, and as `activate` does.
        """
        given = _parsed(configuration)
        return ConfigurationView(self, check_cascade(self, given) if isinstance(given, Cascade) else self.network.space.check(given))

    def set_budget(
        self,
        *,
        gflops: float | None = None,
        latency_ms: float | None = None,
        device: str | None = None,
        source: str = "clip",
        **budgets: float | None,
    ) -> AnyRow:
        """Activate the most accurate measured configuration within the budget; returns its row of the query table.

        A budget in time is held by what was measured on this machine, in this model's runtime, on as many threads as PyTorch
        uses now; where the table has none of it, its Pareto front is measured first, which takes seconds and is told.

        A budget on the mean over clips, `mean_gflops` or `mean_latency_ms`, may activate a cascade: it is kept by sending the
        least sure clips on, as many as it pays for, over a batch and from call to call. All others bound every clip, and beside
        one on the mean the cascade's worst case.

        Args:
            gflops: of one view.
            latency_ms: median of one call with one clip.
            device: take another key's times, such as those of an earlier version's table; they may be another machine's.
            source: what the time begins with: a `clip` in memory, or a `file`, which is opened, decoded and cut too
                (`mutual3d bench MODEL --video CLIP` measures that).
            budgets: of whatever else the table has in its `costs`, such as `parameters=500_000` or `latency_p99_ms=20`, and on
                means.

        Raises BudgetTooSmall, which carries the nearest row, when nothing fits, and ValueError for a budget, device or source
        that the table does not know.
        """
        if self.table is None:
            raise ValueError("this model has no query table: run with GRID.ENABLE True, or activate a configuration")
        if source not in ("clip", "file"):
            raise ValueError(f"source is {source!r:.80}: give 'clip', or 'file' for the time from a file on")
        given: dict[str, float | None] = {"latency_ms": latency_ms, **budgets}
        if device is None and any(value is not None and name.removeprefix(MEAN) in LATENCIES for name, value in given.items()):
            device = key_here(self) if source == "clip" else key_from_file(self)
        if source == "file":
            given[FROM_FILE.name] = given.pop("latency_ms")
            given[FROM_FILE.mean_name] = given.pop(COSTS["latency_ms"].mean_name, None)
        means = {name: limit for name, limit in given.items() if name.startswith(MEAN) and limit is not None}
        if not means:
            row: AnyRow = self.table.select(gflops, device=device, **{n: limit for n, limit in given.items() if not n.startswith(MEAN)})
        else:
            row = self.table.select_mean(device, gflops=gflops, **given)
        if isinstance(row, Row):
            self.activate(row.configuration)
        else:
            check_cascade(self, row.configuration)
            self.spend(promise(self.table, row, means, device))
            logger.info("%s: %s", row.configuration, self._spending)
        return row

    def predict(
        self,
        source: Source,
        stream: bool = False,
        batch: int = 32,
        *,
        window: str | float | None = None,
        step: str | float | None = None,
        views: int = 1,
        configuration: Configuration | Cascade | str | None = None,
        decoding: Decoding = Decoding(),
    ) -> Predictions | PredictionStream:
        """What the network sees in videos and images: a list of `Prediction`, or with `stream` an iterator over them.

        Args:
            source: a file, a folder, a pattern such as `videos/*.mp4`, an array, or a list of these. An array is uint8
                frames T, H, W, 3 (or one, H, W, 3) in RGB at the network's own rate, or clips as calling the model takes.
            stream: give each prediction as it comes, and keep none.
            batch: clips that the network computes together.
            window: a prediction for each stretch of this length, `"2s"` or seconds, instead of one for the whole video.
            step: from the start of a window to that of the next; None takes the window's length.
            views: clips spread over a video (or a window), whose scores are averaged.
            configuration: where to run; None takes the active one.
            decoding: the decoder, the seconds that reading a file may take (with windows: `batch` of them), and whether a bar
                is shown, where not streaming.

        What cannot be read does not end it: it is in `bad` of the result. Raises ValueError and FileNotFoundError for a source
        or a setting that cannot be.
        """
        for name, value in (("batch", batch), ("views", views)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}: give a whole number, 1 or more")
        if step is not None and window is None:
            raise ValueError(f"step is {step!r} without a window: give window too")
        length, between = (None if value is None else window_seconds(value) for value in (window, step))
        how = Reading(views, length, between, batch, decoding)
        sources = list_sources(source)
        found = predict_each(self, sources, how, batch=batch, configuration=configuration)
        if stream:
            return PredictionStream(found)
        predictions = collect(found, len(sources), progress=decoding.progress)
        predictions.several = self.preprocessing.has_several_labels
        if configuration is None and self._spending is not None:
            logger.info("%s: %s", self._spending.cascade, self._spending)
        return predictions

    def scan(
        self,
        source: str | os.PathLike | Sequence[str | os.PathLike],
        *,
        window: str | float | None = None,
        step: str | float | None = None,
        views: int = 1,
        top: int = 5,
        batch: int = 16,
        events: Events | None = None,
        workers: int | None = None,
        decoding: Decoding = Decoding(),
    ) -> ScanStream:
        """A row for each video of an archive, or for each window or segment, as they come: an iterator over `ScanRow`.

        As `predict` with `stream`, by worker processes that each decode, hold the model, at what is active now, and may die: one
        bad video costs itself alone. `mutual3d scan` writes a table, goes on where it was killed, and runs on many machines.

        Args:
            source: a file, a folder, a pattern, a list of files (.txt, .csv), or several of these.
            window, step, views: as of `predict`.
            top: classes of a row.
            batch: clips that a worker computes together.
            events: join the windows into segments: `Events(threshold, background)`.
            workers: processes; None takes one for each core. 0 decodes and computes here.
            decoding: the decoder, the seconds that a video may take without a sign of life, and whether a bar is shown.

        What cannot be read does not end it: it is in `bad` of the result. Raises ValueError and FileNotFoundError for a source
        or a setting that cannot be.
        """
        length, between = (None if value is None else window_seconds(value) for value in (window, step))
        settings = ScanSettings(Reading(views, length, between, decoding=decoding), top, batch, events)
        scanner = Scanner(self, settings, workers=usable_cores() if workers is None else workers)
        names = [source] if isinstance(source, (str, os.PathLike)) else source
        return ScanStream(scanner, list_archive(names), progress=decoding.progress)

    def stream(
        self,
        source: str | os.PathLike | int | FrameSource,
        *,
        deadline_ms: float | None = None,
        fps: float = 5.0,
        window: str | float | None = None,
        when_late: str | None = None,
        seconds: float | None = None,
        configuration: Configuration | str | None = None,
    ) -> DeadlineStream:
        """Answers to a long video or a live feed, a `StreamPrediction` each 1 / `fps` seconds of it, within a deadline.

        Use it in a `with` block, which ends the thread that decodes. The most accurate configuration that the deadline leaves
        time for runs, from window to window, by the times that the last ones took. All are made ready, and timed, before.

        Args:
            source: a file, the number of a camera, an address such as `rtsp://...`, or a `FrameSource`.
            deadline_ms: milliseconds for an answer, from the arrival of a window's last frame in a live source, from taking it
                up in a file; None takes the time until the next answer.
            fps: answers a second of the source's time.
            window: seconds, or `"2s"`, that a clip's frames are spread over; None takes the pace that the network was trained at.
            when_late: `wait`, which keeps all windows and is for files the default, or `drop-oldest`, which a live source
                takes; a file is then played at its own pace.
            seconds: of the source, after which it ends.
            configuration: run at this one always, whatever the deadline.

        A live source that breaks is connected again. Memory does not grow with time. Raises ValueError for a setting that cannot
        be, VideoError for a source that is not there or is no video.
        """
        return DeadlineStream(self, source, StreamSettings(deadline_ms, fps, window, when_late, seconds, configuration))

    def explain(
        self,
        source: Source,
        configurations: Sequence[Configuration | str] | None = None,
        *,
        class_name: str | int | None = None,
        stage: str | None = None,
        decoding: Decoding = Decoding(),
    ) -> list[Explanation]:
        """Where in a clip the network looks: what speaks for a class over space and time, an `Explanation` for each configuration.

        Class activation maps: of the classifier's weights where they are applied to averaged features, of gradients otherwise.
        Computed in PyTorch, whatever the runtime, from any number of threads; nothing is activated.

        Args:
            source: one file or array, as `predict` takes them; the clip in its middle is explained.
            configurations: at which; None takes the active one (of a cascade all).
            class_name: a class by name or number; None explains what each configuration predicts.
            stage: a part of the network, such as `s3`, whose features are explained: finer than the last ones, which None takes.
            decoding: how the file is read.

        Raises VideoError for a file that cannot be read, ValueError for a class, a configuration, a stage or an array that cannot be, and
        for a model of boxes; NotCalibratedError.
        """
        chosen = self.stages if configurations is None else configurations
        return explain_clip(self, read_clip(self, source, decoding), chosen, class_name, stage)

    def embed(
        self,
        source: Source,
        configuration: Configuration | str | None = None,
        *,
        batch: int = 32,
        decoding: Decoding = Decoding(),
    ) -> Embeddings:
        """The features before the classifier, of each file or array, at any configuration: to search clips by, at any budget.

        All configurations give as many, in the places in which the whole classifier reads them. X3D and MobileNet v2 and v3 compute all
        of them at every width. The others compute fewer at smaller widths, and the rest is 0, which the classifier takes for the same
        logits. Trained with `MUTUAL.FEATURE_LOSS`, configurations agree better; `benchmarks/retrieval.py` measures it.

        Args:
            source: files, folders, patterns and arrays, as `predict` takes them; a row for the clip in the middle of each.
            configuration: None takes the active one.
            batch: clips that are computed together.
            decoding: how files are read.

        What cannot be read is in `bad`. Computed in PyTorch, whatever the runtime, from any number of threads. Raises ValueError for a
        cascade and a model of boxes, NotCalibratedError.
        """
        chosen = (self.cascade or self.active) if configuration is None else configuration
        return embed(self, list_sources(source), chosen, batch=batch, decoding=decoding)

    def inputs(self, clip_BCTHW: torch.Tensor | np.ndarray, configuration: Configuration | str | None = None) -> Inputs:
        """What `network`, or what `extract` gives, takes of a full-size clip at a configuration: normalised and shrunk.

        clip_BCTHW: uint8 or normalised, as calling the model takes it. configuration: None takes the active one. Raises ValueError
        as a call does.
        """
        clip, _ = self._checked(clip_BCTHW, None, needs_boxes=False)
        return self._inputs(clip, None, configuration)[0]

    def __repr__(self) -> str:
        name = (self.network.arguments or {}).get("name", type(self.network).__name__)
        space = self.network.space
        classes = "" if self.class_names is None else f", {len(self.class_names)} classes"
        active = self.cascade or self.active
        table = "no table" if self.table is None else f"a table of {len(self.table)} configurations"
        runtime = "" if self.runtime is None else f", in {self.runtime}"
        return f"AdaptiveModel({name}, {space.smallest} to {space.largest}, at {active}{classes}, {table}{runtime})"

    def extract(self, configuration: Configuration | str, fold_bn: bool = False) -> nn.Module:
        """A plain module: takes what `self.network.fit_clip` makes of a normalised clip, returns logits."""
        return self.network.extract(configuration, fold_bn=fold_bn)

    def forward(
        self,
        clip_BCTHW: torch.Tensor | np.ndarray,
        boxes_N5: torch.Tensor | np.ndarray | None = None,
        configuration: Configuration | Cascade | str | None = None,
    ) -> torch.Tensor:
        """Scores B, K, or N, K of the boxes, at `configuration` (a Configuration, a Cascade, or the text of one), or at the active one.

        A network of another task takes images B, 3, H, W of any size, and gives what it `gives`: see its own page.

        Raises ValueError for a clip, boxes or a configuration that are not this model's, and NotCalibratedError.
        """
        clip, boxes = self._checked(clip_BCTHW, boxes_N5)
        if self.training and configuration is None:
            return self._scores(self.network(*self._inputs(clip, boxes, None)))
        # Read once: another thread may activate another configuration meanwhile.
        spending = self._spending if configuration is None else None
        given = self.active if configuration is None else _parsed(configuration)
        if spending is not None:
            given = spending.cascade
        if isinstance(given, Cascade):
            return run_cascade(self, clip, check_cascade(self, given), spending)
        configuration = given
        with torch.no_grad():
            if self._compiled is None or (boxes is not None and not len(boxes)):  # no runtime takes none
                return self.compute(clip, boxes, configuration)
            # Compiled networks of images take no dimension of frames.
            is_clip = self.network.takes == "images" and clip.ndim == 5
            return self._compiled.run(configuration, clip[:, :, 0] if is_clip else clip, boxes)

    def compute(
        self, clip: torch.Tensor, boxes: torch.Tensor | None = None, configuration: Configuration | str | None = None
    ) -> torch.Tensor:
        """As a call, in evaluation, in PyTorch on the model's own weights whatever the runtime; the inputs are not checked."""
        configuration = self.active if configuration is None else configuration
        with torch.no_grad():
            pathways, boxes = self._inputs(clip, boxes, configuration)
            return self._scores(self.network(pathways, boxes, configuration=configuration))

    def _scores(self, outputs: Any) -> Any:
        if not isinstance(outputs, torch.Tensor):
            return outputs
        return ACTIVATIONS[self.preprocessing.activation](outputs.to(torch.promote_types(outputs.dtype, torch.float32)), 1)

    def _checked(
        self, clip: torch.Tensor | np.ndarray, boxes: torch.Tensor | np.ndarray | None, *, needs_boxes: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What a call was given, as tensors that are this model's."""
        clip = _as_tensor(clip, "clip", "uint8 pixels, or floats that are normalised already")
        self._check_clip(clip)
        return clip, self._checked_boxes(boxes, len(clip)) if needs_boxes else None

    def _inputs(
        self, clip_BCTHW: torch.Tensor, boxes_N5: torch.Tensor | None, configuration: Configuration | str | None
    ) -> tuple[Inputs, torch.Tensor | None]:
        """What the network takes: the clip normalised and shrunk, and the boxes."""
        like = next(self.parameters())
        if clip_BCTHW.ndim == 4:
            clip_BCTHW = clip_BCTHW.unsqueeze(2)
        if clip_BCTHW.dtype == torch.uint8:
            cut = self.preprocessing
            clip_BCTHW = prepare_clip(clip_BCTHW, like.device, cut.mean, cut.std, cut.reverse_channels, self.network.memory_format)
        elif self.preprocessing.reverse_channels:
            clip_BCTHW = clip_BCTHW.flip(1)
        boxes = None if boxes_N5 is None else boxes_N5.to(like.device)
        return self.network.fit_clip(clip_BCTHW.to(like.device, like.dtype), configuration), boxes

    def _check_clip(self, clip: torch.Tensor) -> None:
        cut = self.preprocessing
        full: tuple[int, ...] = (len(cut.mean), cut.num_frames, cut.crop, cut.crop)
        given = tuple(clip.shape[1:])
        if len(given) == 3 and self.network.takes == "images":
            given = (given[0], 1, *given[1:])
        if self.network.takes_boxes and len(given) == 4:
            given = (*given[:2], min(given[2:]), min(given[2:]))
        if not self.network.gives_rows and len(given) == 4 and min(given[2:]) > 0:
            # Whole images of any size and form, of which a configuration sees its share.
            given = (*given[:2], *full[2:])
        if given != full or not len(clip):
            full = (*full[:1], *full[2:]) if self.network.takes == "images" else full
            raise ValueError(
                f"the clip is {tuple(clip.shape)}: give B, {', '.join(map(str, full))}, the full size that every "
                "configuration is cut from; the model shrinks it itself"
            )
        if clip.dtype != torch.uint8 and not clip.is_floating_point():
            name = str(clip.dtype).removeprefix("torch.")
            raise ValueError(
                f"the clip is of type {name}: give uint8 pixels from 0 to 255 (clip.to(torch.uint8), clip.astype('uint8')), "
                "which are normalised here, or floats that are normalised already"
            )

    def _checked_boxes(self, boxes: torch.Tensor | np.ndarray | None, num_clips: int) -> torch.Tensor | None:
        """Boxes as a tensor; a position that is not in the batch would read memory that is not the clips'."""
        if not self.network.takes_boxes:
            if boxes is not None:
                raise ValueError("this model classifies clips: leave the boxes out")
            return None
        if boxes is None:
            raise ValueError("this model classifies boxes: give them as a float tensor N, 5 (see AdaptiveModel)")
        boxes = _as_tensor(boxes, "boxes", "floats N, 5")
        if boxes.ndim != 2 or boxes.shape[1] != 5 or not boxes.is_floating_point():
            name = str(boxes.dtype).removeprefix("torch.")
            raise ValueError(f"the boxes are {name} {tuple(boxes.shape)}: give floats N, 5: position in the batch, x1, y1, x2, y2")
        clips, sides = boxes[:, 0], boxes[:, 1:]
        if not bool(((clips >= 0) & (clips < num_clips) & (clips == clips.round())).all()):
            raise ValueError(f"a box is of clip {_first_wrong(clips, num_clips):g}, and there are clips 0 to {num_clips - 1}")
        if not bool((sides.abs() <= 2).all()):
            raise ValueError(
                f"the sides of the boxes reach {sides.abs().max():g}: give them normalised, in [0, 1] of the image, not in pixels"
            )
        return boxes

    def save(self, path: str | os.PathLike) -> None:
        """Write everything to one file of plain data and tensors."""
        save_tensors(
            path,
            {
                "format": FORMAT,
                "model_arguments": self.network.arguments,
                "model_state": self.network.state_dict(),
                "statistics": statistics_to_dict(self.network.statistics),
                "query_table": None if self.table is None else self.table.to_dict(),
                "preprocessing": asdict(self.preprocessing),
                "class_names": self.class_names,
            },
        )

    @classmethod
    def load(
        cls, path: str | os.PathLike, runtime: str | None = None, *, cache: str | os.PathLike | None = None
    ) -> "AdaptiveModel":
        """Load what `save` wrote, onto the CPU, to run in `runtime` (see `mutual3d.load`).

        Raises FileNotFoundError or ValueError that names the file and the fix.

        Nothing is taken on trust: the file may be damaged, or a stranger's. Every entry must be there, no other may, and
        each must be of the network that the file describes, in finite numbers; memory and time are bounded by its size.
        """
        content = load_tensors(path)
        if not isinstance(content, dict) or not isinstance(content.get("format"), str) or content["format"] != FORMAT:
            raise ValueError(
                f"'{path}' is not a deployable model: give the adaptive.pyth that `mutual3d run` writes at its end"
            )
        _check_entries(content, path)
        network = load_network(content["model_arguments"], content["model_state"], os.fspath(path))
        with _entry(path, "statistics"):
            network.set_statistics(_read_statistics(content["statistics"]))
        with _entry(path, "query_table"):
            table = _read_table(content["query_table"], network)
        with _entry(path, "preprocessing"):
            preprocessing = _read_preprocessing(content["preprocessing"], network)
        with _entry(path, "class_names"):
            model = cls(network, preprocessing=preprocessing, table=table, class_names=content["class_names"])
        model.path = Path(path)
        if runtime is not None:
            model.run_in(runtime, cache=cache)
        return model


def load(path: str | os.PathLike, runtime: str | None = None, *, cache: str | os.PathLike | None = None) -> AdaptiveModel:
    """The AdaptiveModel in an `adaptive.pyth`: weights, statistics and query table.

    runtime: what computes its calls: `torch` (each configuration extracted, its norms folded), `onnxruntime`, `openvino`, or
    another one that is registered; `auto` is the fastest one that is installed, as measured on this machine; None is PyTorch
    on the model's own weights, which all configurations share. See `AdaptiveModel.run_in`.
    cache: the folder of compiled networks, where it is not the usual one.

    path: the file, a folder that `mutual3d push` wrote, or `org/name` of the Hugging Face hub (`pip install -e .[hub]`).

    Raises FileNotFoundError or ValueError that names the file and the fix, ValueError for another runtime, and ImportError
    for one that is not installed, and for the hub without its extra.
    """
    return AdaptiveModel.load(find_bundle(path), runtime, cache=cache)


def _parsed(configuration: Configuration | Cascade | str) -> Configuration | Cascade | str:
    """A text that is a cascade's as that; a configuration's stays, which is looked up as it is."""
    return Cascade.parse(configuration) if isinstance(configuration, str) and "@" in configuration else configuration


def _as_tensor(value: object, title: str, form: str) -> torch.Tensor:
    """A tensor of what may be an array; ValueError for anything else."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        value = torch.from_numpy(np.ascontiguousarray(value, value.dtype.newbyteorder("=")))
    if not isinstance(value, torch.Tensor):
        kind = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        raise ValueError(f"the {title} is {kind}: give a tensor or a numpy array of {form}")
    return value


def _first_wrong(clips, num_clips):
    return clips[~((clips >= 0) & (clips < num_clips) & (clips == clips.round()))][0].item()


def _check_class_names(names, network):
    if names is None:
        return
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"class_names is a {type(names).__name__}: give None or a list of text, one name a class")
    named = network.classifier_name
    count = len(network.get_submodule(named).weight) if named else network.arguments.get("num_classes", len(names))
    if len(names) != count:
        raise ValueError(f"class_names has {len(names)} names, and the network gives {count} classes: give one name a class")


# ---- Reading a file --------------------------------------------------------------------------------------------------


def _check_entries(content, path):
    missing = [name for name in ENTRIES if name not in content]
    unknown = [str(name) for name in content if name not in ENTRIES]
    if missing or unknown:
        problems = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has the unknown {', '.join(unknown[:4])}"] * bool(unknown)
        raise ValueError(
            f"'{path}' {' and '.join(problems)}: an adaptive.pyth has {', '.join(ENTRIES)}; write it again with "
            "`mutual3d run`, TRAIN.ENABLE False"
        )


@contextlib.contextmanager
def _entry(path, name):
    """Name the file and the entry in whatever goes wrong: what a stranger's file breaks is of any kind."""
    try:
        yield
    except Exception as error:
        cause = error if isinstance(error, ValueError) else f"it is damaged or made up ({type(error).__name__}: {error})"
        raise ValueError(
            f"'{path}', entry {name}: {cause}. Take another copy of the file, or write it again with `mutual3d run`, "
            "TRAIN.ENABLE False"
        ) from error


def _read_statistics(content):
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"it is a {type(content).__name__}: it must be a dict of a configuration's text to its statistics")
    return statistics_from_dict(content)


def _read_table(content, network):
    if content is None:
        return None
    table = QueryTable.from_dict(content)
    for row in table.rows:
        network.space.check(row.configuration)
    return table


def _read_preprocessing(content, network):
    legal = [field.name for field in fields(Preprocessing)]
    if not isinstance(content, dict):
        raise ValueError(f"it is a {type(content).__name__}: it must be a dict of {', '.join(legal)}")
    unknown = [str(name) for name in content if name not in legal]
    missing = [name for name in legal[:6] if name not in content]
    if unknown or missing:
        raise ValueError(f"it has {', '.join(map(str, content))}: it must have {', '.join(legal)}")
    preprocessing = Preprocessing(**content)
    if preprocessing.num_frames != network.clip_frames:
        raise ValueError(f"num_frames is {preprocessing.num_frames}, and the network takes {network.clip_frames} frames")
    return preprocessing
