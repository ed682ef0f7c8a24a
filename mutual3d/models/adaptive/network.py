"""The adaptive network: stages, and the configuration that they run at."""

import copy
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import torch.nn as nn

from mutual3d.layers import (
    BNStatistics,
    Channels,
    NormPairs,
    PrivateAdapters,
    PrivateNorms,
    PrivateParts,
    PrivateQuantizers,
    SlimmableLayer,
    SlimmableNorm,
    Width,
    fold_norms,
    slimmable_norms,
)
from mutual3d.sampling import Configuration, SearchSpace, fit_clips
from mutual3d.utils.memory_format import preferred_memory_format, put_in_format
from mutual3d.utils.targets import Labels

from ..heads import BoxHead, LossHead
from .adapters import put_adapters
from .extraction import Inputs, PlainNetwork, as_inputs, load_statistics, plain_copy, run_stages
from .private_norms import PRIVATE_BY, add_size_between, nearest_frames, norm_means, private_index, put_private_norms
from .quantization import Size, quantize_convolutions
from .statistics import check_norm_statistics, not_calibrated
from .views import ConfigurationView, keep, share

# The max number of configurations whose plans, and whose networks for stateless calls, are kept: beyond measured grids.
_KEPT_PLANS = 512
_KEPT_TWINS = 128


class OtherThreadError(RuntimeError):
    """`activate` was called from a second thread, which would change what the first one's calls compute."""


class Plan(NamedTuple):
    """What activating a configuration sets: (layer or norm, its attributes) pairs."""

    configuration: Configuration
    runs_in_eval: bool
    settings: list[tuple[nn.Module | SlimmableLayer, dict[str, Any]]]


class AdaptiveNetwork(NormPairs):
    """A chain of stages, run in order of registration, at any configuration of its search space.

    Takes a list of pathways (float B, C, T, H, W, each already at the active configuration's size), or the clip itself
    where there is one pathway, and returns logits. `takes` says which: clips, pathways (several), or images; `gives` says what comes out, in a word: classes, or what
    another task is about, such as objects. `in_channels`: of a clip, 3 for RGB. Where the last
    stage is a `BoxHead` with `takes_boxes` it is given `boxes` too (float N, 5: position in the batch, then normalised xyxy, in [0, 1] of the
    image), and the logits are those of the boxes. Where it is a `LossHead` (`takes_labels`), training gives it the labels too, and it
    gives losses. A network of another task gives outputs of its own shape.
    `statistics` maps Configuration to BNStatistics: data that calibration gives (`set_statistics`) and files carry.
    `arguments` is what `create_model` needs to build the same network again. A network of several pathways gives
    `split`, a function that makes them of one clip: the first is the adaptive one, the others always stay whole.
    `clip_frames`: frames of the clip that it takes, where they are not the largest temporal size.
    `own_statistics` says whose running statistics training keeps: those of the `largest` configuration, of every
    configuration that has norms of its own (`private`), of `all` together (norms that every size shares), or of `none`; all others
    have to be calibrated.
    `classifier_name` is the dotted name of the layer whose outputs are the classes; a checkpoint's may be left out then.
    `norm_pairs`: of the stages themselves, where some are convolutions and norms (see `NormPairs`).

    Threads. `activate` changes the network for everybody, so it belongs to the first thread that calls it, until that
    thread has ended or `release` was called; another thread's call raises OtherThreadError. A call that names its
    configuration, `network(pathways, configuration=c)` or `network.at(c)(pathways)`, changes nothing and may come from any
    number of threads. It evaluates, bit for bit what `activate` and a call in evaluation mode give.
    """

    takes = "clips"
    gives = "classes"
    in_channels = 3

    def __init__(
        self,
        stages: Mapping[str, nn.Module],
        space: SearchSpace,
        split: Callable[[torch.Tensor], list[torch.Tensor]] | None = None,
        clip_frames: int | None = None,
        *,
        classifier_name: str | None = None,
        norm_pairs: Iterable[tuple[str, str]] = (),
    ) -> None:
        super().__init__()
        for name, stage in stages.items():
            self.add_module(name, stage)
        self.space = space
        self.arguments: dict[str, Any] = {}
        self.private_by: str | None = None
        # The sizes whose activations have quantisers of their own, see `quantize`, and the numbers of frames with adapters.
        self._quantizer_sizes: list[Size] = []
        self._adapter_frames: list[int] = []
        # What there are parts of one's own for; others, which `add_frames` takes, run with those of the nearest.
        self._trained_frames = space.temporal_sizes
        self.own_statistics = "largest"
        self.split, self.clip_frames = split or _one_pathway, clip_frames or space.temporal_sizes[-1]
        if split is not None:
            self.takes = "pathways"
        last = list(stages.values())[-1]
        self.takes_boxes = isinstance(last, BoxHead) and last.takes_boxes
        self.takes_labels = isinstance(last, LossHead)
        self.norm_pairs = tuple(norm_pairs)
        self.name_classifier(classifier_name)
        self.statistics = MappingProxyType({})
        # Running statistics of configurations beside the largest, which training moves in place (`track_statistics`).
        self.tracked: dict[Configuration, BNStatistics] = {}
        self._start_threads()
        self._take_parts()
        self.space = replace(space, width_groups=max(1, len(self._roots)))
        self._activate(space.largest)

    def name_classifier(self, name: str | None) -> None:
        """Say which layer's outputs are the classes; ValueError unless it is a linear layer or a convolution in here."""
        _check_classifier(self, name)
        self.classifier_name = name

    def _start_threads(self) -> None:
        self._lock = threading.RLock()
        self._owner: weakref.ref[threading.Thread] | None = None

    def _take_parts(self) -> None:
        """Find the layers and norms that activating is about."""
        self._plans, self._twins = {}, {}
        self._formats: dict[str, torch.memory_format] = {}
        self._norms = slimmable_norms(self)
        self._layers = [layer for layer in self.modules() if isinstance(layer, SlimmableLayer)]
        self._private = [part for part in self.modules() if isinstance(part, PrivateParts)]
        rules = [rule.root for layer in self._layers for rule in (layer.in_rule, layer.out_rule)]
        self._roots = [root for root in dict.fromkeys(rules) if root is not None]

    def forward(
        self, pathways: Inputs, boxes: torch.Tensor | None = None, configuration: Configuration | str | None = None,
        labels: Labels | None = None,
    ) -> Any:  # fmt: skip
        """Logits at `configuration`, in evaluation; without one at the active configuration, in the network's own mode.

        labels: of the batch in training, for a network that `takes_labels`, which then gives its losses.
        """
        if configuration is not None:
            # Not called as a module: the hooks of this one have run already.
            return self._twin(configuration).forward(pathways, boxes)
        if not self.training and not self._runs_in_eval:
            raise not_calibrated(self.active, self.statistics)
        return run_stages(self, as_inputs(pathways, self.takes), boxes, labels)

    def place(self, device: torch.device) -> "AdaptiveNetwork":
        """Move to `device`, in the memory format that is fastest there; returns the network."""
        self.to(device)
        put_in_format(self, self.memory_format)
        return self

    @property
    def memory_format(self) -> torch.memory_format:
        """That of the clips with which it runs fastest where it is, and of its weights after `place`."""
        device = next(self.parameters()).device.type
        if device not in self._formats:
            self._formats[device] = preferred_memory_format(self, torch.device(device))
        return self._formats[device]

    def fit_clip(self, clip_BCTHW: torch.Tensor, configuration: Configuration | str | None = None) -> Inputs:
        """The pathways of a full-size clip as `configuration`, or the active one, sees them: the argument of `forward`."""
        chosen = self.active if configuration is None else self._find_plan(configuration).configuration
        ((_, pathways),) = self.fit_clips(clip_BCTHW, [chosen])
        return pathways

    def fit_clips(
        self, clip_BCTHW: torch.Tensor, configurations: Iterable[Configuration]
    ) -> Iterator[tuple[Configuration, Inputs]]:
        """Yield (configuration, pathways) for each; configurations of the same sizes share one shrunk clip."""
        adaptive, *whole = self.split(clip_BCTHW)
        for configuration, fitted in fit_clips(adaptive, configurations, self.space):
            yield configuration, [fitted, *whole]

    def signature(self, width: float | tuple[float, ...]) -> tuple[int, ...]:
        """Channel counts that `width` rounds to, one for each distinct scaled count, in order of first use."""
        widths = self._layer_widths(width)
        return tuple(root.at(widths) for root in self._roots)

    @property
    def width_group_names(self) -> list[str]:
        """Of each group of layers that may have a width of its own, as `Configuration.widths` has them: its first layer's dotted name."""
        names: dict[Channels, str] = {}
        for name, layer in self.named_modules():
            root = layer.out_rule.root if isinstance(layer, SlimmableLayer) else None
            if root is not None:
                names.setdefault(root, name)
        return [names[root] for root in self._roots]

    def _layer_widths(self, width: float | tuple[float, ...]) -> Width:
        """What layers take for a configuration's width: the number, or {scaled count: number}."""
        return dict(zip(self._roots, width)) if isinstance(width, tuple) else width

    def feature_positions(self, configuration: Configuration | str) -> tuple[torch.Tensor, int]:
        """(which inputs of the whole classifier are computed at `configuration`, int64, ascending; how many it has in all).

        The logits at a configuration are those that the whole classifier gives of its features at these places and 0 elsewhere (but
        for their scale, where layers average over their inputs).
        Raises ValueError outside the space, and for a network that names no slimmable layer as its classifier.
        """
        layer = None if self.classifier_name is None else self.get_submodule(self.classifier_name)
        if not isinstance(layer, SlimmableLayer):
            raise ValueError(
                "this network names no slimmable layer as its classifier (classifier_name), whose inputs its features are"
            )
        count = layer.in_rule.at(self._layer_widths(self.space.check(configuration).width))
        return layer.in_rule.select(torch.arange(layer.in_rule.full), count, 0), layer.in_rule.full

    @property
    def gives_rows(self) -> bool:
        """Whether it gives a row of scores for each clip of one size, whatever they are of, which is what runtimes compute and compare."""
        return self.gives == "classes"

    @property
    def has_norms(self) -> bool:
        """Whether it has batch norms, whose statistics its configurations need; one without has nothing to calibrate."""
        return bool(self._norms)

    @property
    def has_fixed_features(self) -> bool:
        """Whether the classifier reads as many features at every width."""
        layer = None if self.classifier_name is None else self.get_submodule(self.classifier_name)
        return isinstance(layer, SlimmableLayer) and layer.in_rule.root is None

    def activate(self, configuration: Configuration | str) -> "AdaptiveNetwork":
        """Run at `configuration` (a Configuration, or text such as 0.8-160-9) from now on; returns the network.

        Sets the widths, and the batch norm statistics if the configuration was calibrated. Raises ValueError when the
        configuration is not in the search space, and OtherThreadError when another thread activates this network.
        """
        plan = self._find_plan(configuration)
        self._own()
        return self._set(plan)

    def release(self) -> None:
        """Let another thread call `activate` from now on: for a network that is handed over as a whole."""
        self._owner = None

    def _own(self) -> None:
        """Make the calling thread the one that activates, or refuse it."""
        thread = threading.current_thread()
        owner = None if self._owner is None else self._owner()
        if owner is thread:
            return
        with self._lock:
            owner = None if self._owner is None else self._owner()
            if owner is not None and owner is not thread and owner.is_alive():
                raise OtherThreadError(
                    f"the thread '{owner.name}' activates this network's configurations, and '{thread.name}' would change what "
                    "that one computes: name the configuration in the call, model(clip, configuration=\"0.8-160-9\"), or hold "
                    "a view, model.at(\"0.8-160-9\"); both are safe from any number of threads. To hand the whole model over, "
                    "call model.release() first"
                )
            self._owner = weakref.ref(thread)

    def _activate(self, configuration: Configuration | str) -> "AdaptiveNetwork":
        """`activate` by the network itself, whichever thread that happens in."""
        return self._set(self._find_plan(configuration))

    def _set(self, plan: Plan) -> "AdaptiveNetwork":
        self.active, self._runs_in_eval = plan.configuration, plan.runs_in_eval
        # Attributes set past nn.Module's own __setattr__, which takes ten times as long: switching is done per request.
        for part, values in plan.settings:
            part.__dict__.update(values)
        return self

    def _find_plan(self, configuration: Configuration | str) -> Plan:
        """The plan of a Configuration or its text; reading a text takes longer than switching, so that it is kept too."""
        is_key = isinstance(configuration, (str, Configuration))
        plan = self._plans.get(configuration) if is_key else None
        return plan or self._plan(configuration)

    def _plan(self, given: Configuration | str) -> Plan:
        """What `activate` sets for a configuration, computed once; kept for those that have statistics."""
        configuration = self.space.check(given)
        with self._lock:
            tracked, width = self.tracked.get(configuration), self._layer_widths(configuration.width)
            statistics = self.find_statistics(configuration) or tracked
            is_home, chosen = self._private_index(configuration)[1], self._chosen_parts(configuration)
            settings: list[tuple[nn.Module | SlimmableLayer, dict[str, Any]]]
            settings = [(layer, layer.settings(width)) for layer in self._layers]
            settings += [(part, part.settings(chosen[type(part)])) for part in self._private]
            for name, norm in self._norms.items():
                own = statistics and name in statistics.mean and (statistics.mean[name], statistics.variance[name])
                moved = tracked and (tracked.mean[name], tracked.variance[name])
                settings.append((norm, norm.settings(is_home, own or None, moved or None)))
            runs_in_eval = is_home or statistics is not None or not self.has_norms
            plan = self._plans.get(configuration) or Plan(configuration, runs_in_eval, settings)
            if plan.runs_in_eval:
                keep(self._plans, configuration, plan, _KEPT_PLANS)
                if isinstance(given, str):
                    keep(self._plans, given, plan, _KEPT_PLANS)
            return plan

    # ---- Calls that name their configuration ---------------------------------------------------------------------

    def at(self, configuration: Configuration | str) -> "ConfigurationView":
        """This network at `configuration`, whatever is active: a small module with the same weights, for any thread.

        Raises ValueError when the configuration is not in the search space.
        """
        return ConfigurationView(self, self.space.check(configuration))

    def _twin(self, configuration: Configuration | str) -> "AdaptiveNetwork":
        """The network that runs a call which names `configuration`: made once, of this one's own parameters."""
        is_key = isinstance(configuration, (str, Configuration))
        twin = self._twins.get(configuration) if is_key else None
        if twin is not None:
            return twin
        with self._lock:
            plan = self._find_plan(configuration)
            if not plan.runs_in_eval:
                raise not_calibrated(plan.configuration, self.statistics)
            twin = self._twins.get(plan.configuration) or self._make_twin(plan)
            keep(self._twins, plan.configuration, twin, _KEPT_TWINS)
            if isinstance(configuration, str):
                keep(self._twins, configuration, twin, _KEPT_TWINS)
            return twin

    def _make_twin(self, plan: Plan) -> "AdaptiveNetwork":
        """Modules of their own, set to the plan for good, over the same parameters and buffers."""
        twins: dict[int, nn.Module] = {}
        twin = share(self, twins)
        for module in twins.values():
            # Slices of the weights that each of many twins kept would be as much memory as the networks taken out.
            module.__dict__.update(training=False, keeps_slice=False, _kept=None)
        for part, values in plan.settings:
            twins[id(part)].__dict__.update(values)
        norms = {name: twins[id(norm)] for name, norm in self._norms.items()}
        for norm in norms.values():
            assert isinstance(norm, SlimmableNorm)
            norm.observer = None
        twin.__dict__.update(
            active=plan.configuration, _runs_in_eval=True, _plans={}, _twins={}, _norms=norms,
            _layers=[twins[id(layer)] for layer in self._layers], _private=[twins[id(part)] for part in self._private],
        )  # fmt: skip
        return twin

    # ---- Norms, adapters and quantisers of one's own -------------------------------------------------------------

    def make_norms_private(self, by: str) -> "AdaptiveNetwork":
        """Give each listed width (`by="width"`: S-Net), each size (`by="size"`: RS-Net) or number of frames (`by="frames"`: FFN) norms of its own.

        A size is one of the products of spatial and temporal sizes. With `own_statistics` private the norms' running
        statistics serve the configurations that they are trained at in full: a width at the largest size, a size at the
        max width, a number of frames at both. Raises ValueError when there are no listed widths, or their max is not that of the range,
        and for a single number of frames.
        """
        self._private_keys = put_private_norms(self, self.space, by)
        self.private_by = by
        self._take_parts()
        return self._activate(self.active)

    def add_size(self, spatial: int) -> "AdaptiveNetwork":
        """Take a spatial size that was not trained: its private norms lie between its neighbours' (RS-Net, 4.3).

        Everything of a norm is interpolated linearly; outside the sizes that are there it is the nearest one's (RS-Net, Table 8).
        Full-size clips are from then on those of the largest size. Raises ValueError where norms are not private by size, and for
        a size that is there.
        """
        sizes = self.space.spatial_sizes
        if self.private_by != "size":
            raise ValueError(f"size {spatial} cannot be added: norms of its own come from those of other sizes (MUTUAL.BATCHNORM private_size)")
        for kind, keys in ((PrivateNorms, self._private_keys), (PrivateQuantizers, self._quantizer_sizes)):
            if lists := [part.parts for part in self._private if isinstance(part, kind)]:
                add_size_between(lists, keys, self.space, spatial)
        self.space = replace(self.space, spatial_sizes=(*sizes, spatial))
        if self.arguments:
            self.arguments["interpolated_sizes"] = [*self.arguments.get("interpolated_sizes", []), spatial]
        self._take_parts()
        return self._activate(self.active)

    def add_adapters(self) -> "AdaptiveNetwork":
        """Give each residual block an adapter of its own for each number of frames (FFN), see `put_adapters`; returns the network."""
        self._adapter_frames = put_adapters(self, self.space)
        self._take_parts()
        return self._activate(self.active)

    def add_frames(self, temporal: int) -> "AdaptiveNetwork":
        """Take a number of frames that was not trained: what numbers of frames have of their own is the nearest trained one's (FFN).

        Norms that all share, and widths' own, have to be calibrated for it. Raises ValueError for a number that is there, and for one
        that is not between 1 and the largest, which is what a clip has.
        """
        frames = self.space.temporal_sizes
        if temporal in frames or not 1 <= temporal < frames[-1]:
            raise ValueError(
                f"{temporal} frames cannot be added: give a number from 1 to {frames[-1] - 1} that is not among {', '.join(map(str, frames))}"
            )
        self.space = replace(self.space, temporal_sizes=(*frames, temporal))
        if self.arguments:
            self.arguments["unseen_frames"] = [*self.arguments.get("unseen_frames", []), temporal]
        self._take_parts()
        return self._activate(self.active)

    def quantize(self, weight_bits: int, activation_bits: int) -> "AdaptiveNetwork":
        """Quantise the weights and the inputs of convolutions (LQ-Nets), see `quantize_convolutions`; returns the network.

        Each size, a product of spatial and temporal sizes, has quantisers of activations of its own. weight_bits, activation_bits: 32
        leaves those as they are.
        """
        self._quantizer_sizes = quantize_convolutions(
            self, self.space, weight_bits, activation_bits, classifier_name=self.classifier_name
        )
        self._take_parts()
        return self._activate(self.active)

    @property
    def quantizes_activations(self) -> bool:
        """Whether activations take the nearest of a few levels: a value at a threshold is moved by a whole level where a sum is rounded
        in another way, so that one configuration's scores are not the same to the last bits wherever it runs."""
        return any(isinstance(part, PrivateQuantizers) for part in self._private)

    @property
    def has_private_parameters(self) -> bool:
        """Whether there are parameters that some configurations alone run with, so that a step may leave some without a gradient."""
        return any(True for part in self._private for _ in part.parameters())

    def _chosen_parts(self, configuration: Configuration) -> dict[type[PrivateParts], int]:
        """Of each kind of parts of one's own, which one runs."""
        return {
            PrivateNorms: self._private_index(configuration)[0],
            PrivateQuantizers: self._size_index(configuration),
            PrivateAdapters: self._adapter_index(configuration),
        }

    def _size_index(self, configuration: Configuration) -> int:
        """Which of the quantisers of a place runs."""
        frames = nearest_frames(configuration.temporal, self._trained_frames)
        return self._quantizer_sizes.index((configuration.spatial, frames)) if self.quantizes_activations else 0

    def _adapter_index(self, configuration: Configuration) -> int:
        """Which of the adapters of a block runs."""
        return self._adapter_frames.index(nearest_frames(configuration.temporal, self._adapter_frames)) if self._adapter_frames else 0

    def _private_index(self, configuration: Configuration) -> tuple[int, bool]:
        """(which of the private norms runs, whether running statistics are this configuration's own)."""
        if self.private_by is None:
            return 0, self._keeps_statistics(configuration, configuration == self.space.largest)
        index, is_home = private_index(self.private_by, self._private_keys, configuration, self.space.largest, self._trained_frames)
        return index, self._keeps_statistics(configuration, is_home)

    def _keeps_statistics(self, configuration: Configuration, is_home: bool) -> bool:
        """Whether training updates running statistics at this configuration; `is_home`: its norms are its own."""
        if self.own_statistics == "all":
            return True
        if self.own_statistics == "largest":
            return configuration == self.space.largest
        return is_home and self.own_statistics == "private"

    def can_evaluate(self, configuration: Configuration | str) -> bool:
        """Whether the configuration runs in evaluation: it was calibrated, running statistics are its own, or there is no norm."""
        configuration = self.space.check(configuration)
        has_own = self._private_index(configuration)[1] or configuration in self.tracked
        return not self.has_norms or has_own or self.find_statistics(configuration) is not None

    def has_own_statistics(self, configuration: Configuration | str) -> bool:
        """Whether training keeps running statistics for the configuration in norms of its own (S-Net, RS-Net), or in those that all
        share: its paper measures it with these. ValueError outside the space."""
        return self.own_statistics in ("private", "all") and self._private_index(self.space.check(configuration))[1]

    def private_norm_means(self) -> dict[str, dict[str, list[float]]]:
        """{configuration: {scale, shift, mean, variance: one number for each norm, the mean over its channels}} of the widths, sizes or
        numbers of frames that have norms of their own (RS-Net, Fig. 6); empty where norms are shared."""
        found: dict[str, dict[str, list[float]]] = {}
        if self.private_by is None:
            return found
        for index, key in enumerate(self._private_keys):
            configuration = PRIVATE_BY[self.private_by].home(key, self.space.largest)
            own = {name: norm for name, norm in self._norms.items() if name.endswith(f".norms.{index}")}
            found[str(configuration)] = norm_means(own, self.find_statistics(configuration))
        return found

    # ---- Statistics ----------------------------------------------------------------------------------------------

    def set_statistics(self, statistics: Mapping[Configuration, BNStatistics]) -> None:
        """Add or replace the BNStatistics of configurations; they take the parameters' device and dtype.

        Raises ValueError as `check_statistics` does.
        """
        self.check_statistics(statistics)
        like = next(self.parameters())
        moved = {self.space.check(c): s.map(lambda tensor: tensor.to(like)) for c, s in statistics.items()}
        with self._lock:
            self._replace_statistics({**self.statistics, **moved})

    def reset_statistics(self, statistics: Mapping[Configuration, BNStatistics]) -> None:
        """Have these alone, which `statistics` held before: what was tried meanwhile is forgotten."""
        with self._lock:
            self._replace_statistics(dict(statistics))

    def track_statistics(self, configuration: Configuration | str | None) -> None:
        """Let training keep running statistics of `configuration` too, with which it evaluates until it is calibrated; None ends it.

        As of the largest, they are moving averages over the steps that run it (US-Net, 3.2). One configuration is tracked at a
        time, from mean 0 and variance 1 on. Raises ValueError outside the space, and for norms of one's own, which track theirs.
        """
        if configuration is not None and self.private_by is not None:
            raise ValueError("norms that are private to widths, sizes or numbers of frames keep their own running statistics: nothing is tracked beside them")
        tracked = {}
        if configuration is not None:
            configuration = self.space.check(configuration)
            width = self._layer_widths(configuration.width)
            norms = {name: (norm.weight.detach(), norm.rule.at(width)) for name, norm in self._norms.items()}
            tracked[configuration] = BNStatistics(
                {name: weight.new_zeros(count) for name, (weight, count) in norms.items()},
                {name: weight.new_ones(count) for name, (weight, count) in norms.items()},
            )
        with self._lock:
            self._replace_tracked(tracked)

    def load_tracked(self, tracked: Mapping[Configuration, BNStatistics]) -> None:
        """Go on with what `tracked` of an earlier process held, as far as it is tracked here. Raises ValueError as `check_statistics` does."""
        known = {c: s for c, s in tracked.items() if c in self.tracked}
        self.check_statistics(known)
        like = next(self.parameters())
        with self._lock:
            self._replace_tracked({**self.tracked, **{c: s.map(lambda tensor: tensor.to(like, copy=True)) for c, s in known.items()}})

    def _replace_tracked(self, tracked: dict[Configuration, BNStatistics]) -> None:
        self.tracked = tracked
        self._replace_statistics(dict(self.statistics))

    def check_statistics(self, statistics: Mapping[Configuration, BNStatistics]) -> None:
        """Raise ValueError, naming configuration and norm, where statistics cannot be this network's.

        For a configuration outside the space, a norm that is missing or unknown, a wrong shape, a value that is not finite,
        a negative variance. Of norms of one's own (`make_norms_private`) those that the configuration runs must be there.
        """
        for configuration, values in statistics.items():
            self._check_own_statistics(self.space.check(configuration), values)

    def _check_own_statistics(self, configuration: Configuration, statistics: BNStatistics) -> None:
        names = self._running_norms(configuration)
        check_norm_statistics(configuration, statistics, self._norms, self._layer_widths(configuration.width), names)

    def _running_norms(self, configuration: Configuration) -> list[str]:
        """The names of the norms that a configuration runs."""
        index, _ = self._private_index(configuration)
        return [name for name in self._norms if self.private_by is None or name.endswith(f".norms.{index}")]

    def _replace_statistics(self, statistics: dict[Configuration, BNStatistics]) -> None:
        self.statistics = MappingProxyType(statistics)
        self._plans, self._twins = {}, {}
        self._activate(self.active)

    def find_statistics(self, configuration: Configuration) -> BNStatistics | None:
        """The statistics of `configuration`, or of one with the same signature and sizes; None if there are none."""
        if configuration in self.statistics:
            return self.statistics[configuration]
        key = self._statistics_key(configuration)
        return next((s for c, s in self.statistics.items() if self._statistics_key(c) == key), None)

    def _statistics_key(self, configuration: Configuration) -> tuple:
        return self.network_key(configuration.width), configuration.spatial, configuration.temporal

    def network_key(self, width: float | tuple[float, ...]) -> tuple:
        """What tells networks apart: the signature, and the width itself where it has norms of its own."""
        return self.signature(width), width if self.private_by == "width" else None

    def subnetwork_key(self, configuration: Configuration | str) -> tuple:
        """What tells the networks of `subnetwork` apart: configurations of one key have the same one."""
        configuration = self.space.check(configuration)
        return configuration.width, *self._chosen_parts(configuration).values()

    def subnetwork(self, configuration: Configuration | str) -> "PlainNetwork":
        """A plain `nn.Sequential` of ordinary layers with the weights of `configuration`.

        Its batch norms hold the first channels of the running statistics, which are right for training and for
        configurations whose own they are; `extract` gives the calibrated network.
        """
        configuration = self.space.check(configuration)
        width, chosen = self._layer_widths(configuration.width), self._chosen_parts(configuration)
        stages = OrderedDict((name, plain_copy(stage, width, chosen)) for name, stage in self.named_children())
        return PlainNetwork(stages, self.takes, self.classifier_name, self.norm_pairs).train(self.training)

    def extract(self, configuration: Configuration | str, fold_bn: bool = False) -> "PlainNetwork":
        """A plain `nn.Sequential` without slimmable layers that gives this network's outputs at `configuration`.

        fold_bn: fold every norm into its convolution where the two are declared a pair (`NormPairs`; evaluation only).
        Raises ValueError outside the space and NotCalibratedError when there are no statistics.
        """
        configuration = self.space.check(configuration)
        statistics = self.find_statistics(configuration)
        network = self.subnetwork(configuration).eval()
        if statistics is not None:
            load_statistics(network, statistics.only(self._running_norms(configuration)))
        elif self.has_norms and not self._private_index(configuration)[1]:
            raise not_calibrated(configuration, self.statistics)
        return fold_norms(network) if fold_bn else network

    # ---- Copies and moves ----------------------------------------------------------------------------------------

    def _apply(self, function: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "AdaptiveNetwork":
        """Statistics follow the parameters to another device or dtype."""
        super()._apply(function, recurse)
        with self._lock:
            self.tracked = {c: s.map(function) for c, s in self.tracked.items()}
            self._replace_statistics({c: s.map(function) for c, s in self.statistics.items()})
        return self

    def __getstate__(self) -> dict:
        """What a pickle carries: plans and twins are about these very layers, and a lock belongs to one process."""
        left_out = ("_plans", "_twins", "_formats", "_lock", "_owner")
        state = {key: value for key, value in vars(self).items() if key not in left_out}
        return {**state, "statistics": dict(self.statistics)}

    def __setstate__(self, state: dict) -> None:
        super().__setstate__({**state, "statistics": MappingProxyType(state["statistics"])})
        self._start_threads()
        self._plans, self._twins, self._formats = {}, {}, {}
        self._activate(self.active)

    def __deepcopy__(self, memo: dict) -> "AdaptiveNetwork":
        """A copy with its own parameters; statistics are never changed in place, and shared."""
        twin = self.__class__.__new__(self.__class__)
        memo[id(self)] = twin
        state = self.__getstate__()
        statistics = state.pop("statistics")
        twin.__setstate__({**copy.deepcopy(state, memo), "statistics": statistics})
        return twin


def _check_classifier(network: nn.Module, name: str | None) -> None:
    """The classifier that a network names must be there."""
    if name is None:
        return
    if not isinstance(dict(network.named_modules()).get(name), (nn.Linear, nn.modules.conv._ConvNd)):
        raise ValueError(f"classifier_name is '{name}', and the network has no linear layer or convolution of that name")


def _one_pathway(clip_BCTHW: torch.Tensor) -> list[torch.Tensor]:
    return [clip_BCTHW]
