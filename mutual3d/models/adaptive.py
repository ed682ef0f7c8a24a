"""What every adaptive network does: activate a configuration, extract it as a plain module."""

import copy
import itertools
import re
from collections import OrderedDict
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

import torch
import torch.nn as nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mutual3d.layers import PrivateNorms, SlimmableLayer, interpolated_norm, make_private, slimmable_norms
from mutual3d.sampling import fit_clips, preferred_memory_format


class NotCalibratedError(RuntimeError):
    """A configuration was asked to run in evaluation before its batch norm statistics were computed."""


class Plan(NamedTuple):
    """What activating a configuration sets: (layer or norm, its attributes) pairs."""

    configuration: object
    runs_in_eval: bool
    settings: list


class AdaptiveNetwork(nn.Module):
    """A chain of stages, run in order of registration, at any configuration of its search space.

    Takes a list of pathways (float B, C, T, H, W, each already at the active configuration's size) and returns logits.
    Where the last stage `takes_boxes` it is given `boxes` too (float N, 5: position in the batch, then x1, y1, x2, y2 in
    [0, 1] of the picture), and the logits are the boxes'.
    `statistics` maps Configuration to BNStatistics: data that calibration gives (`set_statistics`) and files carry.
    `arguments` is what `create_model` needs to build the same network again. A network of several pathways gives
    `split`, a function that makes them of one clip: the first is the adaptive one, the others always stay whole.
    `clip_frames`: frames of the clip that it takes, where they are not the largest temporal size.
    `own_statistics` says whose running statistics training keeps: those of the `largest` configuration, of every
    configuration that has norms of its own (`private`), or of `none`; all others have to be calibrated.
    """

    def __init__(self, stages, space, split=None, clip_frames=None):
        super().__init__()
        for name, stage in stages.items():
            self.add_module(name, stage)
        self.space, self.arguments, self.private_by = space, None, None
        self.own_statistics = "largest"
        self.split, self.clip_frames = split or _one_pathway, clip_frames or space.temporal_sizes[-1]
        self.takes_boxes = getattr(list(stages.values())[-1], "takes_boxes", False)
        self.statistics = MappingProxyType({})
        self._take_parts()
        self.space = replace(space, width_groups=max(1, len(self._roots)))
        self.activate(space.largest)

    def _take_parts(self):
        """Find the layers and norms that activating is about."""
        self._plans = {}
        self._norms = slimmable_norms(self)
        self._layers = [layer for layer in self.modules() if isinstance(layer, SlimmableLayer)]
        self._private = [part for part in self.modules() if isinstance(part, PrivateNorms)]
        rules = [rule.root for layer in self._layers for rule in (layer.in_rule, layer.out_rule)]
        self._roots = [root for root in dict.fromkeys(rules) if root is not None]

    def forward(self, pathways, boxes=None):
        if not self.training:
            self._refuse_uncalibrated()
        return _run_stages(self, pathways, boxes)

    def place(self, device):
        """Move to `device`, in the memory format that is fastest there; returns the network."""
        last = preferred_memory_format(device) != torch.contiguous_format
        formats = {4: torch.channels_last, 5: torch.channels_last_3d} if last else {}
        self.to(device)
        for parameter in self.parameters():
            parameter.data = parameter.data.contiguous(memory_format=formats.get(parameter.ndim, torch.contiguous_format))
        return self

    def fit_clip(self, clip_BCTHW):
        """The pathways of a full-size clip as the active configuration sees them: the argument of `forward`."""
        ((_, pathways),) = self.fit_clips(clip_BCTHW, [self.active])
        return pathways

    def fit_clips(self, clip_BCTHW, configurations):
        """Yield (configuration, pathways) for each; configurations of the same sizes share one shrunk clip."""
        adaptive, *whole = self.split(clip_BCTHW)
        for configuration, fitted in fit_clips(adaptive, configurations, self.space):
            yield configuration, [fitted, *whole]

    def signature(self, width):
        """Channel counts that `width` rounds to, one for each distinct scaled count, in order of first use."""
        width = self._layer_widths(width)
        return tuple(root.at(width) for root in self._roots)

    def _layer_widths(self, width):
        """What layers take for a configuration's width: the number, or {scaled count: number}."""
        return dict(zip(self._roots, width)) if isinstance(width, tuple) else width

    def activate(self, configuration):
        """Run at `configuration` (a Configuration, or text such as 0.8-160-9) from now on; returns the network.

        Sets the widths, and the batch norm statistics if the configuration was calibrated. Raises ValueError when the
        configuration is not in the search space.
        """
        plan = self._plans.get(configuration) or self._plan(configuration)
        self.active, self._runs_in_eval = plan.configuration, plan.runs_in_eval
        # Attributes set past nn.Module's own __setattr__, which takes ten times as long: switching is done per request.
        for part, values in plan.settings:
            vars(part).update(values)
        return self

    def _plan(self, configuration):
        """What `activate` sets for a configuration, computed once; kept for those that have statistics."""
        configuration = self.space.check(configuration)
        statistics, width = self.find_statistics(configuration), self._layer_widths(configuration.width)
        index, is_home = self._private_index(configuration)
        settings = [(layer, layer.settings(width)) for layer in self._layers]
        settings += [(part, part.settings(index)) for part in self._private]
        for name, norm in self._norms.items():
            own = statistics and name in statistics.mean and (statistics.mean[name], statistics.variance[name])
            settings.append((norm, norm.settings(is_home, own or None)))
        plan = Plan(configuration, is_home or statistics is not None, settings)
        if plan.runs_in_eval:
            self._plans[configuration] = plan
        return plan

    # ---- Norms of one's own --------------------------------------------------------------------------------------

    def make_norms_private(self, by):
        """Give each listed width (`by="width"`: S-Net) or each size (`by="size"`: RS-Net) norms of its own.

        A size is one of the products of spatial and temporal sizes. With `own_statistics` private the norms' running
        statistics serve the configurations that they are trained at in full: a width at the largest size, a size at the
        greatest width. Raises ValueError when there are no listed widths, or the greatest is not the range's.
        """
        space = self.space
        if by == "width" and (not space.listed_widths or space.listed_widths[-1] != space.width_range[1]):
            raise ValueError(
                f"private norms by width need MUTUAL.WIDTHS that end at MUTUAL.WIDTH_RANGE's {space.width_range[1]:g}: "
                f"they are {list(space.listed_widths)}"
            )
        sizes = [*itertools.product(reversed(space.spatial_sizes), reversed(space.temporal_sizes))]
        self.private_by = by
        self._private_keys = list(reversed(space.listed_widths)) if by == "width" else sizes
        if by == "width":
            make_private(self, lambda norm: [norm.narrowed(width) for width in self._private_keys])
        else:
            make_private(self, lambda norm: [copy.deepcopy(norm) for _ in self._private_keys])
        self._take_parts()
        return self.activate(self.active)

    def add_size(self, spatial):
        """Take a spatial size that was not trained: its private norms lie between its neighbours' (RS-Net, 4.3).

        Everything of a norm is interpolated linearly. Raises ValueError where norms are not private by size, and for a
        size outside the trained ones or among them.
        """
        sizes = self.space.spatial_sizes
        if self.private_by != "size" or spatial in sizes or not sizes[0] < spatial < sizes[-1]:
            raise ValueError(f"size {spatial} cannot lie between private norms by size of {', '.join(map(str, sizes))} pixels")
        lower = max(size for size in sizes if size < spatial)
        upper = min(size for size in sizes if size > spatial)
        for temporal in self.space.temporal_sizes:
            low, high = (self._private_keys.index((size, temporal)) for size in (lower, upper))
            for part in self._private:
                share = (spatial - lower) / (upper - lower)
                part.norms.append(interpolated_norm(part.norms[low], part.norms[high], share))
            self._private_keys.append((spatial, temporal))
        self.space = replace(self.space, spatial_sizes=(*sizes, spatial))
        if self.arguments:
            self.arguments["interpolated_sizes"] = [*self.arguments.get("interpolated_sizes", []), spatial]
        self._take_parts()
        return self.activate(self.active)

    def _private_index(self, configuration):
        """(which of the private norms runs, whether running statistics are this configuration's own)."""
        if self.private_by is None:
            return 0, self._keeps_statistics(configuration, configuration == self.space.largest)
        size, largest = (configuration.spatial, configuration.temporal), self.space.largest
        if self.private_by == "size":
            key, is_home = size, configuration.width == largest.width
        else:
            key, is_home = configuration.width, size == (largest.spatial, largest.temporal)
        if key not in self._private_keys:
            known = ", ".join(f"{width:g}" for width in self._private_keys)
            raise ValueError(f"{configuration}: width {key} has no norms of its own; there are norms for {known}")
        return self._private_keys.index(key), self._keeps_statistics(configuration, is_home)

    def _keeps_statistics(self, configuration, is_home):
        """Whether training updates running statistics at this configuration; `is_home`: its norms are its own."""
        if self.own_statistics == "largest":
            return configuration == self.space.largest
        return is_home and self.own_statistics == "private"

    def can_evaluate(self, configuration):
        """Whether the configuration runs in evaluation: it was calibrated, or running statistics are its own."""
        configuration = self.space.check(configuration)
        return self._private_index(configuration)[1] or self.find_statistics(configuration) is not None

    # ---- Statistics ----------------------------------------------------------------------------------------------

    def set_statistics(self, statistics):
        """Add or replace the BNStatistics of configurations (a dict); they take the parameters' device and dtype."""
        like = next(self.parameters())
        moved = {self.space.check(c): s.map(lambda tensor: tensor.to(like)) for c, s in statistics.items()}
        self._replace_statistics({**self.statistics, **moved})

    def _replace_statistics(self, statistics):
        self.statistics = MappingProxyType(statistics)
        self._plans = {}
        self.activate(self.active)

    def find_statistics(self, configuration):
        """The statistics of `configuration`, or of one with the same signature and sizes; None if there are none."""
        if configuration in self.statistics:
            return self.statistics[configuration]
        key = self._statistics_key(configuration)
        return next((s for c, s in self.statistics.items() if self._statistics_key(c) == key), None)

    def _statistics_key(self, configuration):
        return self.network_key(configuration.width), configuration.spatial, configuration.temporal

    def network_key(self, width):
        """What tells networks apart: the signature, and the width itself where it has norms of its own."""
        return self.signature(width), width if self.private_by == "width" else None

    def _refuse_uncalibrated(self):
        if not self._runs_in_eval:
            known = f"calibrated are {len(self.statistics)}, such as {next(iter(self.statistics))}" if self.statistics else "none is"
            raise NotCalibratedError(
                f"configuration {self.active} was never calibrated ({known}), and batch norm statistics of another one are "
                "wrong for it: run `python tools/run_net.py --cfg CONFIG.yaml TRAIN.ENABLE False`, or call "
                "mutual3d.evaluation.calibrate(model, ...) for it"
            )

    def subnetwork(self, configuration):
        """A plain `nn.Sequential` of ordinary layers with the weights of `configuration`.

        Its batch norms hold the first channels of the running statistics, which are right for training and for
        configurations whose own they are; `extract` gives the calibrated network.
        """
        configuration = self.space.check(configuration)
        index, _ = self._private_index(configuration)
        width = self._layer_widths(configuration.width)
        stages = OrderedDict((name, _plain(stage, width, index)) for name, stage in self.named_children())
        return PlainNetwork(stages).train(self.training)

    def extract(self, configuration, fold_bn=False):
        """A plain `nn.Sequential` without slimmable layers that gives this network's outputs at `configuration`.

        fold_bn: fold every norm into the convolution before it, where one is (evaluation only).
        Raises ValueError outside the space and NotCalibratedError when there are no statistics.
        """
        configuration = self.space.check(configuration)
        statistics = self.find_statistics(configuration)
        network = self.subnetwork(configuration).eval()
        if statistics is not None:
            _load_statistics(network, statistics)
        elif not self._private_index(configuration)[1]:
            raise NotCalibratedError(f"configuration {configuration} was never calibrated and cannot be extracted")
        return _fold_norms(network) if fold_bn else network

    def _apply(self, function, recurse=True):
        """Statistics follow the parameters to another device or dtype."""
        super()._apply(function, recurse)
        self._replace_statistics({c: s.map(function) for c, s in self.statistics.items()})
        return self

    def __deepcopy__(self, memo):
        """A copy with its own parameters; plans are about the original's layers and are made anew."""
        twin = self.__class__.__new__(self.__class__)
        memo[id(self)] = twin
        state = {key: value for key, value in vars(self).items() if key not in ("_plans", "statistics")}
        vars(twin).update(copy.deepcopy(state, memo), _plans={}, statistics=MappingProxyType(dict(self.statistics)))
        return twin.activate(twin.active)


class PlainNetwork(nn.Sequential):
    """Stages of ordinary layers; takes what AdaptiveNetwork.forward takes, at the size that it was made for."""

    def forward(self, pathways, boxes=None):
        return _run_stages(self, pathways, boxes)


def _run_stages(network, pathways, boxes):
    *stages, head = network.children()
    for stage in stages:
        pathways = stage(pathways)
    return head(pathways) if boxes is None else head(pathways, boxes)


def _one_pathway(clip_BCTHW):
    return [clip_BCTHW]


def _plain(module, width, private_index):
    """A copy of `module` in which every slimmable layer and norm is an ordinary one of that width."""
    if isinstance(module, PrivateNorms):
        module = module.norms[private_index]
    if hasattr(module, "plain"):
        return module.plain(width)
    shell = copy.copy(module)
    shell._parameters, shell._buffers = copy.deepcopy(module._parameters), copy.deepcopy(module._buffers)
    children = module._modules.items()
    shell._modules = OrderedDict((name, _plain(child, width, private_index)) for name, child in children)
    return shell


def _load_statistics(network, statistics):
    for name, mean in statistics.mean.items():
        norm = network.get_submodule(re.sub(r"\.norms\.\d+$", "", name))
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(statistics.variance[name])


def _fold_norms(module):
    """Fold each norm into the convolution registered just before it; blocks here register them in that order."""
    previous = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.modules.batchnorm._BatchNorm) and isinstance(previous, nn.modules.conv._ConvNd):
            setattr(module, previous_name, fuse_conv_bn_eval(previous, child))
            setattr(module, name, nn.Identity())
        else:
            _fold_norms(child)
        previous, previous_name = child, name
    return module
