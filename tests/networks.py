"""The networks that tests of `models` run on (a later one joins by one entry), and weights and statistics for them."""

import functools
import zlib
from dataclasses import dataclass

import torch

from mutual3d.layers import BNStatistics, slimmable_norms
from mutual3d.models import create_model

WIDTHS, SIZES, FRAMES = [0.5, 1.0], [32, 48], [4, 8]


@dataclass(frozen=True)
class Case:
    """arguments: of `create_model`, without the space. has_frames: False for images, whose only frame count is 1.

    unfolded: last names of the norms that follow no convolution, and so stay when norms are folded.
    """

    arguments: dict
    has_frames: bool = True
    unfolded: frozenset = frozenset()

    def build(self, width_range=WIDTHS, spatial_sizes=SIZES, temporal_sizes=FRAMES, **arguments):
        """The network in evaluation mode, with weights that are not the trivial ones of initialisation."""
        return fill_by_rule(self.create(width_range, spatial_sizes, temporal_sizes, **arguments)).eval()

    def inputs(self, configuration, dtype=torch.float32):
        """What the network makes of a random clip: pathways, the adaptive one of the configuration's size, or images."""
        clip = random_clip(self._on_meta, SIZES[-1]).to(dtype)
        ((_, pathways),) = self._on_meta.fit_clips(clip, [configuration])
        return pathways

    @functools.cached_property
    def _on_meta(self):
        with torch.device("meta"):
            return self.create()

    def create(self, width_range=WIDTHS, spatial_sizes=SIZES, temporal_sizes=FRAMES, **arguments):
        """The network in training mode, as it is initialised."""
        frames = temporal_sizes if self.has_frames else [1]
        space = {"width_range": width_range, "spatial_sizes": spatial_sizes, "temporal_sizes": frames}
        return create_model(**{**self.arguments, **arguments}, space=space)


def random_clip(network, crop, batch=2):
    """A clip of as many frames as the network takes, normalised."""
    shape = batch, 3, network.clip_frames, crop, crop
    return torch.randn(shape, generator=torch.Generator().manual_seed(100))


NETWORKS = {
    "x3d_small": Case(dict(name="x3d", num_classes=7, width_factor=1.0, depth_factor=1.0, dim_c5=64)),
    "x3d_m": Case(dict(name="x3d", num_classes=11)),
    "slow_small": Case(dict(name="slow", num_classes=7, width_per_group=8)),
    "c2d_small": Case(dict(name="c2d", num_classes=7, width_per_group=8)),
    "i3d_small": Case(dict(name="i3d", num_classes=7, width_per_group=8)),
    "slowfast_small": Case(dict(name="slowfast", num_classes=7, width_per_group=16, alpha=4)),
}
IMAGE_NETWORKS = {
    "mobilenet_v1_small": Case(dict(name="mobilenet_v1", num_classes=7, small_images=True), has_frames=False),
    "mobilenet_v2_small": Case(dict(name="mobilenet_v2", num_classes=7), has_frames=False),
    "mobilenet_v3_small": Case(dict(name="mobilenet_v3", num_classes=7), has_frames=False),
    "resnet18_small": Case(
        dict(name="resnet2d", num_classes=7, depth=18, width_per_group=16, small_images=True), has_frames=False
    ),
    "se_resnet18_small": Case(
        dict(name="resnet2d", num_classes=7, depth=18, width_per_group=16, small_images=True, se_reduction=4), has_frames=False
    ),
    "resnet50_small": Case(dict(name="resnet2d", num_classes=7, width_per_group=16), has_frames=False),
    "vgg16_small": Case(
        dict(name="vgg16", num_classes=7, width_per_group=16, dim_fc=64, small_images=True), has_frames=False
    ),
    "wide_resnet_small": Case(
        dict(name="wide_resnet", num_classes=7, depth=10, widen_factor=2, dropout_rate=0.3),
        has_frames=False,
        unfolded=frozenset({"bn1", "bn"}),
    ),
}
# Their logits are of each place of a map: B, K, h, w.
MAP_NETWORKS = {
    "refinenet_small": Case(
        dict(name="refinenet", num_classes=7, depth=18, width_per_group=16, refine_channels=16, dropout_rate=0.3), has_frames=False
    ),
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
