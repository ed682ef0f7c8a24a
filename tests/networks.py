"""The networks that tests of `models` run on (a later one joins by one entry), and weights and statistics for them."""

import zlib
from dataclasses import dataclass
from typing import Callable

import torch

from mutual3d.layers import BNStatistics, slimmable_norms
from mutual3d.models import create_model

WIDTHS, SIZES, FRAMES = [0.5, 1.0], [32, 48], [4, 8]


def one_pathway(configuration, dtype=torch.float32, batch=2):
    """A random clip of the configuration's size, as the only pathway."""
    sizes = configuration.temporal, configuration.spatial, configuration.spatial
    return [torch.randn(batch, 3, *sizes, generator=torch.Generator().manual_seed(100)).to(dtype)]


@dataclass(frozen=True)
class Case:
    """arguments: of `create_model`, without the space. inputs: function of a configuration -> list of pathways."""

    arguments: dict
    inputs: Callable = one_pathway

    def build(self, width_range=WIDTHS, spatial_sizes=SIZES, temporal_sizes=FRAMES, **arguments):
        """The network in evaluation mode, with weights that are not the trivial ones of initialisation."""
        space = {"width_range": width_range, "spatial_sizes": spatial_sizes, "temporal_sizes": temporal_sizes}
        return fill_by_rule(create_model(**{**self.arguments, **arguments}, space=space)).eval()


NETWORKS = {
    "x3d_small": Case(dict(name="x3d", num_classes=7, width_factor=1.0, depth_factor=1.0, dim_c5=64)),
    "x3d_m": Case(dict(name="x3d", num_classes=11)),
}


def fill_by_rule(network):
    """Give every weight and statistic the value that its name alone decides, as the recorded outputs were made."""
    for key, tensor in network.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            tensor.copy_(_value(key, tensor.shape))
    return network


def _value(key, shape):
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    if key.endswith("running_var"):
        return torch.rand(shape, generator=generator) * 0.5 + 0.75
    if key.endswith(("running_mean", ".bias", "projection.weight")):
        return torch.randn(shape, generator=generator) * 0.05
    if key.endswith("c_bn.weight"):
        return torch.rand(shape, generator=generator) * 0.1 + 0.05
    if len(shape) == 1:
        return torch.rand(shape, generator=generator) * 0.5 + 0.75
    return torch.randn(shape, generator=generator) * (2 / shape[1:].numel()) ** 0.5


def random_statistics(network, configuration):
    """BNStatistics of the active widths, different for every configuration."""
    generator = torch.Generator().manual_seed(zlib.crc32(str(configuration).encode()))
    counts = {name: norm.rule.at(configuration.width) for name, norm in slimmable_norms(network).items()}
    mean = {name: torch.randn(count, generator=generator) * 0.2 for name, count in counts.items()}
    return BNStatistics(mean, {name: torch.rand(c, generator=generator) * 0.5 + 0.75 for name, c in counts.items()})


def calibrate_at_random(network, configurations):
    network.set_statistics({c: random_statistics(network, c) for c in configurations})
    return network
