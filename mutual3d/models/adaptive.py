"""What every adaptive network does: activate a configuration, extract it as a plain module."""

import copy
from collections import OrderedDict

import torch.nn as nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mutual3d.layers import SlimmableLayer, slimmable_norms


class NotCalibratedError(RuntimeError):
    """A configuration was asked to run in evaluation before its batch norm statistics were computed."""


class AdaptiveNetwork(nn.Module):
    """A chain of stages, run in order of registration, at any configuration of its search space.

    Takes a list of pathways (float B, C, T, H, W, each already at the active configuration's size) and returns logits.
    `statistics` maps Configuration to BNStatistics: data that calibration fills in and checkpoints carry.
    `arguments` is what `create_model` needs to build the same network again.
    """

    def __init__(self, stages, space):
        super().__init__()
        for name, stage in stages.items():
            self.add_module(name, stage)
        self.space = space
        self.arguments = None
        self.statistics = {}
        self._norms = slimmable_norms(self)
        self._layers = [layer for layer in self.modules() if isinstance(layer, SlimmableLayer)]
        self.activate(space.largest)

    def forward(self, pathways):
        if not self.training:
            self._refuse_uncalibrated()
        for stage in self.children():
            pathways = stage(pathways)
        return pathways

    def signature(self, width):
        """Channel counts that `width` rounds to, one for each distinct scaled count, in order of first use."""
        rules = [rule.root for layer in self._layers for rule in (layer.in_rule, layer.out_rule)]
        return tuple(root.at(width) for root in dict.fromkeys(rules) if root is not None)

    def activate(self, configuration):
        """Run at `configuration` (a Configuration, or text such as 0.8-160-9) from now on; returns the network.

        Sets the widths, and the batch norm statistics if the configuration was calibrated. Raises ValueError when the
        configuration is not in the search space.
        """
        configuration = self.space.check(configuration)
        for layer in self._layers:
            layer.set_width(configuration.width)
        self.active = configuration
        self._activate_statistics(self.find_statistics(configuration))
        return self

    def find_statistics(self, configuration):
        """The statistics of `configuration`, or of one with the same signature and sizes; None if there are none."""
        if configuration in self.statistics:
            return self.statistics[configuration]
        key = self._statistics_key(configuration)
        return next((s for c, s in self.statistics.items() if self._statistics_key(c) == key), None)

    def _statistics_key(self, configuration):
        return self.signature(configuration.width), configuration.spatial, configuration.temporal

    def _activate_statistics(self, statistics):
        is_full = self.active == self.space.largest
        self._runs_in_eval = is_full or statistics is not None
        for name, norm in self._norms.items():
            norm.activate(is_full, statistics and (statistics.mean[name], statistics.variance[name]))

    def _refuse_uncalibrated(self):
        if not self._runs_in_eval:
            raise NotCalibratedError(
                f"configuration {self.active} was never calibrated, and batch norm statistics of another one are wrong "
                "for it: run `python tools/run_net.py --cfg CONFIG.yaml TRAIN.ENABLE False`, or call "
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
            raise NotCalibratedError(f"configuration {configuration} was never calibrated: calibrate it before extracting")
        return _fold_norms(network) if fold_bn else network

    def _apply(self, function, recurse=True):
        """Statistics follow the parameters to another device or dtype."""
        super()._apply(function, recurse)
        self.statistics = {c: s.map(function) for c, s in self.statistics.items()}
        self._activate_statistics(self.find_statistics(self.active))
        return self


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
