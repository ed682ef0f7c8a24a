"""What every adaptive network does: activate a configuration, extract it as a plain module."""

import copy
from collections import OrderedDict
from types import MappingProxyType
from typing import NamedTuple

import torch.nn as nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mutual3d.layers import SlimmableLayer, slimmable_norms
from mutual3d.sampling import fit_clips


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
    `statistics` maps Configuration to BNStatistics: data that calibration gives (`set_statistics`) and files carry.
    `arguments` is what `create_model` needs to build the same network again. A network of several pathways gives
    `split`, a function that makes them of one clip: the first is the adaptive one, the others always stay whole.
    `clip_frames`: frames of the clip that it takes, where they are not the largest temporal size.
    """

    def __init__(self, stages, space, split=None, clip_frames=None):
        super().__init__()
        for name, stage in stages.items():
            self.add_module(name, stage)
        self.space, self.arguments = space, None
        self.split, self.clip_frames = split or _one_pathway, clip_frames or space.temporal_sizes[-1]
        self.statistics = MappingProxyType({})
        self._plans = {}
        self._norms = slimmable_norms(self)
        self._layers = [layer for layer in self.modules() if isinstance(layer, SlimmableLayer)]
        self.activate(space.largest)

    def forward(self, pathways):
        if not self.training:
            self._refuse_uncalibrated()
        for stage in self.children():
            pathways = stage(pathways)
        return pathways

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
        rules = [rule.root for layer in self._layers for rule in (layer.in_rule, layer.out_rule)]
        return tuple(root.at(width) for root in dict.fromkeys(rules) if root is not None)

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
        statistics, is_full = self.find_statistics(configuration), configuration == self.space.largest
        settings = [(layer, layer.settings(configuration.width)) for layer in self._layers]
        for name, norm in self._norms.items():
            own = statistics and (statistics.mean[name], statistics.variance[name])
            settings.append((norm, norm.settings(is_full, own)))
        plan = Plan(configuration, is_full or statistics is not None, settings)
        if plan.runs_in_eval:
            self._plans[configuration] = plan
        return plan

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
        return self.signature(configuration.width), configuration.spatial, configuration.temporal

    def _refuse_uncalibrated(self):
        if not self._runs_in_eval:
            known = f"calibrated are {len(self.statistics)}, such as {max(self.statistics)}" if self.statistics else "none is"
            raise NotCalibratedError(
                f"configuration {self.active} was never calibrated ({known}), and batch norm statistics of another one are "
                "wrong for it: run `python tools/run_net.py --cfg CONFIG.yaml TRAIN.ENABLE False`, or call "
                "mutual3d.evaluation.calibrate(model, ...) for it"
            )

    def subnetwork(self, configuration):
        """A plain `nn.Sequential` of ordinary layers with the weights of `configuration`.

        Its batch norms hold the first channels of the running statistics, which are right for training and for the
        largest configuration only; `extract` gives the calibrated network.
        """
        configuration = self.space.check(configuration)
        stages = OrderedDict((name, _plain(stage, configuration.width)) for name, stage in self.named_children())
        return nn.Sequential(stages).train(self.training)

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
        elif configuration != self.space.largest:
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


def _one_pathway(clip_BCTHW):
    return [clip_BCTHW]


def _plain(module, width):
    """A copy of `module` in which every slimmable layer and norm is an ordinary one of that width."""
    if hasattr(module, "plain"):
        return module.plain(width)
    shell = copy.copy(module)
    shell._parameters, shell._buffers = copy.deepcopy(module._parameters), copy.deepcopy(module._buffers)
    shell._modules = OrderedDict((name, _plain(child, width)) for name, child in module._modules.items())
    return shell


def _load_statistics(network, statistics):
    for name, mean in statistics.mean.items():
        norm = network.get_submodule(name)
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
