"""From a name and plain arguments, or from a config, to an adaptive network."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from fvcore.common.config import CfgNode
from fvcore.common.registry import Registry

from mutual3d.sampling import SearchSpace
from mutual3d.utils.checkpoint import check_weights
from mutual3d.utils.words import unknown_word

from .adaptive import AdaptiveNetwork
from .arguments import brief, check_arguments, check_private_norms, check_signature, read_space
from .mobilenet import build_mobilenet_v1, build_mobilenet_v2, build_mobilenet_v3
from .resnet2d import build_resnet2d
from .resnet3d import build_c2d, build_i3d, build_slow, build_slowfast
from .wide_resnet import build_wide_resnet
from .x3d import build_x3d

MODEL_REGISTRY = Registry("MODEL")
MODEL_REGISTRY.__doc__ = "Functions from a config to the name and the arguments of `create_model`."

# Names in MODEL_REGISTRY of networks that take images; the others take clips.
_TAKE_IMAGES = set()
# Those whose configurations are of a pathway with one in SLOWFAST.ALPHA of the clip's frames.
_TWO_PATHWAYS = set()
# PySlowFast's networks that are not here, and what is.
_MISSING = {
    "MViT": "no vision transformers", "PTVMViT": "no vision transformers", "MaskMViT": "no masked vision transformers",
    "ContrastiveModel": "no self-supervised training", "PTVCSN": "no channel-separated networks (CSN)",
    "PTVR2plus1D": "no R(2+1)D",
}  # fmt: skip


def takes_images(function: Callable[[CfgNode], dict]) -> Callable[[CfgNode], dict]:
    """Register, beside MODEL_REGISTRY, that the network of this function takes images."""
    _TAKE_IMAGES.add(function.__name__)
    return function


def has_two_pathways(function: Callable[[CfgNode], dict]) -> Callable[[CfgNode], dict]:
    """Register, beside MODEL_REGISTRY, that the network of this function has SlowFast's two pathways."""
    _TWO_PATHWAYS.add(function.__name__)
    return function


def _unknown_network(name):
    """What to say of a MODEL.MODEL_NAME that is none; empty for one that is."""
    if name in _MISSING:
        return f"MODEL.MODEL_NAME is '{name}': mutual3d has {_MISSING[name]}; it has {', '.join(key for key, _ in MODEL_REGISTRY)}"
    return unknown_word("MODEL.MODEL_NAME", name, (key for key, _ in MODEL_REGISTRY))


def network_takes_images(name: str) -> bool:
    """Whether the network of a MODEL.MODEL_NAME takes images instead of clips."""
    return name in _TAKE_IMAGES


_BUILDERS = {
    "x3d": build_x3d,
    "slow": build_slow,
    "c2d": build_c2d,
    "i3d": build_i3d,
    "slowfast": build_slowfast,
    "mobilenet_v1": build_mobilenet_v1,
    "mobilenet_v2": build_mobilenet_v2,
    "mobilenet_v3": build_mobilenet_v3,
    "resnet2d": build_resnet2d,
    "wide_resnet": build_wide_resnet,
}


def register_network(
    word: str, name: str, build: Callable[..., AdaptiveNetwork], *, is_image: bool = False
) -> Callable[[Callable[[CfgNode], dict]], Callable[[CfgNode], dict]]:
    """Make a network known: a decorator for the function from a config to the arguments of `build`.

    Args:
        word: of MODEL.MODEL_NAME.
        name: of `create_model`, which checkpoints and bundles carry.
        build: takes `space`, `num_classes` and the network's own arguments as keywords.
        is_image: it takes images, not clips.

    Raises ValueError for a word or a name that is taken.
    """
    if word in MODEL_REGISTRY or name in _BUILDERS:
        raise ValueError(f"the network '{word}', '{name}', is there already: choose another name")

    def register(arguments_of: Callable[[CfgNode], dict]) -> Callable[[CfgNode], dict]:
        def named(cfg: CfgNode) -> dict:
            return {"name": name, "space": search_space(cfg), "num_classes": cfg.MODEL.NUM_CLASSES, **arguments_of(cfg)}

        named.__name__ = word
        MODEL_REGISTRY.register(named)
        _BUILDERS[name] = build
        if is_image:
            takes_images(named)
        return arguments_of

    return register


def forget_network(word: str, name: str) -> None:
    """Undo `register_network`."""
    MODEL_REGISTRY._obj_map.pop(word, None)
    _BUILDERS.pop(name, None)
    _TAKE_IMAGES.discard(word)


BATCHNORMS = {"calibrated": None, "private_width": "width", "private_size": "size"}
OWN_STATISTICS = ("largest", "private", "none")


def create_model(
    name: str,
    *,
    space: SearchSpace | Mapping,
    batchnorm: str = "calibrated",
    own_statistics: str = "largest",
    interpolated_sizes: Sequence[int] = (),
    **arguments: Any,
) -> AdaptiveNetwork:
    """The network `name` for `space`, a SearchSpace or its fields as a dict.

    batchnorm: calibrated, private_width or private_size (MUTUAL.BATCHNORM). own_statistics: whose running statistics
    training keeps, largest, private or none (see AdaptiveNetwork). interpolated_sizes: spatial sizes beside the trained
    ones, each with norms between its neighbours'. arguments: those of the network's builder. Raises ValueError, with the
    legal values, for an unknown name, an argument that the network does not have or lacks, and a value of the wrong type
    or outside its limits.
    """
    if not isinstance(name, str) or name not in _BUILDERS:
        raise ValueError(f"there is no network {brief(name)}: choose among {', '.join(_BUILDERS)}")
    if not isinstance(batchnorm, str) or batchnorm not in BATCHNORMS:
        raise ValueError(f"MUTUAL.BATCHNORM is {brief(batchnorm)}: choose among {', '.join(BATCHNORMS)}")
    if own_statistics not in OWN_STATISTICS:
        raise ValueError(f"own_statistics is {brief(own_statistics)}: choose among {', '.join(OWN_STATISTICS)}")
    space = read_space(space)
    check_signature(name, _BUILDERS[name], {"space": space, **arguments})
    check_arguments(name, {**arguments, "interpolated_sizes": interpolated_sizes})
    if batchnorm == "private_size":
        check_private_norms(space, interpolated_sizes)
    network = _BUILDERS[name](space=space, **arguments)
    network.own_statistics = own_statistics
    if BATCHNORMS[batchnorm]:
        network.make_norms_private(BATCHNORMS[batchnorm])
    network._activate(network.space.largest)
    shared = {"name": name, "space": _plain_space(space), "batchnorm": batchnorm, "own_statistics": own_statistics}
    network.arguments = {**shared, **arguments}
    for size in interpolated_sizes:
        network.add_size(size)
    return network


def load_network(arguments: Mapping, state: Mapping[str, torch.Tensor], source: str | os.PathLike) -> AdaptiveNetwork:
    """The network that a file describes, with the file's weights, on the CPU in the memory format that is fastest there.

    arguments: of `create_model`; state: the state dict; source: the file's name for messages. A file cannot ask for more
    than it holds: the arguments have limits, and the network is built without memory first, where its shapes must be those
    of the weights. Raises ValueError that names the file, the entry and the fix.
    """
    if not isinstance(arguments, Mapping) or not all(isinstance(key, str) for key in arguments):
        raise ValueError(f"'{source}': model_arguments is {brief(arguments)}: it must be the dict of create_model's arguments")
    missing = [key for key in ("name", "space") if key not in arguments]
    if missing:
        raise ValueError(f"'{source}': model_arguments lacks {' and '.join(missing)}: give a checkpoint that a run wrote")
    try:
        with torch.device("meta"):
            draft = create_model(**arguments)
    except Exception as error:  # arguments of a stranger's: what they break is of any kind
        raise ValueError(f"'{source}': model_arguments describe no network: {error}") from error
    state = check_weights(draft, state, source)
    network = create_model(**arguments).place(torch.device("cpu"))
    network.load_state_dict(state)
    return network


def _plain_space(space):
    return {
        "width_range": list(space.width_range),
        "spatial_sizes": list(space.spatial_sizes),
        "temporal_sizes": list(space.temporal_sizes),
        "divisor": space.divisor,
        "listed_widths": list(space.listed_widths),
    }


def build_model(cfg: CfgNode) -> AdaptiveNetwork:
    """The network that a config describes (`MODEL.MODEL_NAME`), as PySlowFast's users know it. Checks the config."""
    mistakes = [text for _, text in check_network(cfg.check())]
    if mistakes:
        raise ValueError("\n".join(mistakes))
    return create_model(**model_arguments(cfg))


def model_arguments(cfg: CfgNode) -> dict:
    """Arguments of `create_model` for a config: plain values that a checkpoint can carry."""
    name = cfg.MODEL.MODEL_NAME
    unknown = _unknown_network(name)
    if unknown:
        raise ValueError(unknown)
    batchnorm = cfg.MUTUAL.BATCHNORM if cfg.MUTUAL.ENABLE else "calibrated"
    return {**MODEL_REGISTRY.get(name)(cfg), "batchnorm": batchnorm, "own_statistics": own_statistics(cfg)}


def check_network(cfg: CfgNode) -> Iterator[tuple[tuple[str, ...], str]]:
    """(keys, sentence) of whatever no network can be built of."""
    unknown = [
        ("MODEL.MODEL_NAME", _unknown_network(cfg.MODEL.MODEL_NAME)),
        ("MUTUAL.BATCHNORM", unknown_word("MUTUAL.BATCHNORM", cfg.MUTUAL.BATCHNORM, BATCHNORMS)),
    ]
    yield from (((key,), text) for key, text in unknown if text)
    if not any(text for _, text in unknown):
        yield from _check_arguments(cfg)
    if cfg.MUTUAL.ENABLE:
        yield from _check_sizes(cfg)
        yield from _check_norms(cfg)


def _check_sizes(cfg):
    """The largest sizes are those that the data have."""
    is_split = cfg.MODEL.MODEL_NAME in _TWO_PATHWAYS
    frames, key = cfg.DATA.NUM_FRAMES, "DATA.NUM_FRAMES"
    if is_split:
        frames, key = frames / cfg.SLOWFAST.ALPHA, "DATA.NUM_FRAMES / SLOWFAST.ALPHA"
    for own, sizes, other, largest in (
        ("MUTUAL.SPATIAL_SIZES", cfg.MUTUAL.SPATIAL_SIZES, "DATA.TRAIN_CROP_SIZE", cfg.DATA.TRAIN_CROP_SIZE),
        ("MUTUAL.TEMPORAL_SIZES", cfg.MUTUAL.TEMPORAL_SIZES, key, frames),
    ):
        if not sizes or max(sizes) != largest:
            yield (own, *other.split(" / ")), f"{own} is {sizes}: its largest value must equal {other}, which is {largest:g}"


def _check_arguments(cfg):
    """What the network's own function, and the space of its configurations, say of the config."""
    keys = ("MODEL.MODEL_NAME", "MODEL.ARCH")
    try:
        space = SearchSpace(**model_arguments(cfg)["space"])
        keys = ("TEST.CONFIGURATIONS",)
        sizes = {*space.spatial_sizes, *cfg.GRID.INTERPOLATED_SIZES}
        space = dataclasses.replace(space, spatial_sizes=tuple(sorted(sizes)))
        for text in cfg.TEST.CONFIGURATIONS:
            space.check(text)
    except ValueError as error:
        yield keys, str(error) if keys[0] == "MODEL.MODEL_NAME" else f"TEST.CONFIGURATIONS: {error}"


def _check_norms(cfg):
    """Norms of one's own need rules that train each of them, and sizes between two of them to interpolate."""
    mutual, sizes = cfg.MUTUAL, cfg.GRID.INTERPOLATED_SIZES
    if mutual.BATCHNORM == "private_width" and list(mutual.SUBNETS) != ["each_width"]:
        yield (
            ("MUTUAL.BATCHNORM", "MUTUAL.SUBNETS"),
            f"MUTUAL.SUBNETS is {mutual.SUBNETS}: with MUTUAL.BATCHNORM private_width it must be [each_width]",
        )
    if sizes and mutual.BATCHNORM != "private_size":
        yield (
            ("GRID.INTERPOLATED_SIZES", "MUTUAL.BATCHNORM"),
            f"GRID.INTERPOLATED_SIZES is {sizes}: it needs MUTUAL.BATCHNORM private_size",
        )
    trained = mutual.SPATIAL_SIZES or [0]
    wrong = [size for size in sizes if size in trained or not min(trained) < size < max(trained)]
    if wrong:
        yield (
            ("GRID.INTERPOLATED_SIZES", "MUTUAL.SPATIAL_SIZES"),
            f"GRID.INTERPOLATED_SIZES {wrong} must lie between the trained sizes {mutual.SPATIAL_SIZES}",
        )


def own_statistics(cfg: CfgNode) -> str:
    """Whose running statistics a run keeps: of what runs in every step with norms that nothing else uses."""
    always = {"private_width": "each_width", "private_size": "each_size"}.get(cfg.MUTUAL.BATCHNORM)
    if not cfg.MUTUAL.ENABLE:
        return "largest"
    if always in cfg.MUTUAL.SUBNETS:
        return "private"
    return "largest" if cfg.MUTUAL.LARGEST or {"each_width", "each_size"} & set(cfg.MUTUAL.SUBNETS) else "none"


def search_space(cfg: CfgNode) -> dict:
    """The config's SearchSpace as plain values; a static network's has one configuration."""
    frames = adaptive_frames(cfg)
    if not cfg.MUTUAL.ENABLE:
        return {"width_range": [1.0, 1.0], "spatial_sizes": [cfg.DATA.TRAIN_CROP_SIZE], "temporal_sizes": [frames]}
    return {
        "width_range": list(cfg.MUTUAL.WIDTH_RANGE),
        "spatial_sizes": list(cfg.MUTUAL.SPATIAL_SIZES),
        "temporal_sizes": list(cfg.MUTUAL.TEMPORAL_SIZES),
        "divisor": cfg.MUTUAL.WIDTH_DIVISOR,
        "listed_widths": list(cfg.MUTUAL.WIDTHS),
    }


def adaptive_frames(cfg: CfgNode) -> int:
    """Frames of the pathway that has configurations: the clip's, or SlowFast's Slow ones."""
    if cfg.MODEL.MODEL_NAME not in _TWO_PATHWAYS:
        return cfg.DATA.NUM_FRAMES
    frames, alpha = cfg.DATA.NUM_FRAMES, cfg.SLOWFAST.ALPHA
    if alpha < 1 or frames % alpha:
        raise ValueError(f"DATA.NUM_FRAMES {frames} does not divide by SLOWFAST.ALPHA {alpha}")
    return frames // alpha


@MODEL_REGISTRY.register()
def ResNet(cfg: CfgNode) -> dict:
    return _one_pathway(cfg, cfg.MODEL.ARCH)


@MODEL_REGISTRY.register()
def ResNet_nopool(cfg: CfgNode) -> dict:
    """PySlowFast's file for C2D without a temporal pool names it so."""
    return _one_pathway(cfg, f"{cfg.MODEL.ARCH.removesuffix('_nopool')}_nopool")


@MODEL_REGISTRY.register()
def PTVResNet(cfg: CfgNode) -> dict:
    """PyTorchVideo's Slow, C2D and I3D are the same networks."""
    return ResNet(cfg)


# MODEL.ARCH of a ResNet of one pathway.
_ARCHITECTURES = {
    "slow": {"name": "slow"},
    "c2d": {"name": "c2d"},
    "c2d_nopool": {"name": "c2d", "temporal_pool": False},
    "i3d": {"name": "i3d"},
    "i3d_nopool": {"name": "i3d", "temporal_pool": False},
}


def _one_pathway(cfg, architecture):
    if architecture not in _ARCHITECTURES:
        raise ValueError(f"MODEL.ARCH is '{architecture}': mutual3d's ResNet is {', '.join(_ARCHITECTURES)}")
    return {**_ARCHITECTURES[architecture], **_resnet_arguments(cfg, pathways=1)}


@MODEL_REGISTRY.register()
@has_two_pathways
def SlowFast(cfg: CfgNode) -> dict:
    if cfg.MODEL.ARCH != "slowfast":
        raise ValueError(f"MODEL.ARCH is '{cfg.MODEL.ARCH}': mutual3d's SlowFast is slowfast")
    return {
        "name": "slowfast",
        **_resnet_arguments(cfg, pathways=2),
        "alpha": cfg.SLOWFAST.ALPHA,
        "beta_inv": cfg.SLOWFAST.BETA_INV,
        "fusion_ratio": cfg.SLOWFAST.FUSION_CONV_CHANNEL_RATIO,
        "fusion_kernel": cfg.SLOWFAST.FUSION_KERNEL_SZ,
    }


@MODEL_REGISTRY.register()
@has_two_pathways
def PTVSlowFast(cfg: CfgNode) -> dict:
    """PyTorchVideo's SlowFast is the same network."""
    return SlowFast(cfg)


def _resnet_arguments(cfg, pathways):
    return {
        "space": search_space(cfg),
        "num_classes": cfg.MODEL.NUM_CLASSES,
        "depth": cfg.RESNET.DEPTH,
        "width_per_group": cfg.RESNET.WIDTH_PER_GROUP,
        "temporal_blocks": _of_each_pathway(cfg, "NUM_BLOCK_TEMP_KERNEL", pathways),
        "strides": _of_all_pathways(cfg, "SPATIAL_STRIDES", pathways),
        "dilations": _of_all_pathways(cfg, "SPATIAL_DILATIONS", pathways),
        "dropout_rate": cfg.MODEL.DROPOUT_RATE,
        "fc_init_std": cfg.MODEL.FC_INIT_STD,
        "zero_init_final_bn": cfg.RESNET.ZERO_INIT_FINAL_BN,
        "detection": _detection(cfg),
    }


def _detection(cfg):
    """None for a network of clips; what pools the boxes of one that classifies those."""
    if not cfg.DETECTION.ENABLE:
        return None
    return {"resolution": cfg.DETECTION.ROI_XFORM_RESOLUTION, "aligned": cfg.DETECTION.ALIGNED}


def _of_all_pathways(cfg, key, pathways):
    """One value a stage of a key that PySlowFast writes as a list of pathways a stage."""
    stages = cfg.RESNET[key]
    if len(stages) != 4 or any(len(set(stage)) != 1 or len(stage) not in (1, pathways) for stage in stages):
        raise ValueError(f"RESNET.{key} is {stages}: give four lists of one value, the same for each pathway")
    return [stage[0] for stage in stages]


def _of_each_pathway(cfg, key, pathways):
    """One value a stage, where pathways agree, else a list of each pathway's."""
    stages = cfg.RESNET[key]
    if len(stages) != 4 or any(len(stage) not in (1, pathways) for stage in stages):
        raise ValueError(f"RESNET.{key} is {stages}: give four lists, of one value or of {pathways}, one for each pathway")
    return [stage[0] if len(set(stage)) == 1 else list(stage) for stage in stages]


@MODEL_REGISTRY.register()
def X3D(cfg: CfgNode) -> dict:
    # RESNET.SPATIAL_STRIDES is a ResNet's by default: 1, 2, 2, 2. X3D has no max-pool, and its first stage always strides.
    strides = [2, *_of_all_pathways(cfg, "SPATIAL_STRIDES", pathways=1)[1:]]
    return {
        "name": "x3d",
        "space": search_space(cfg),
        "num_classes": cfg.MODEL.NUM_CLASSES,
        "width_factor": cfg.X3D.WIDTH_FACTOR,
        "depth_factor": cfg.X3D.DEPTH_FACTOR,
        "bottleneck_factor": cfg.X3D.BOTTLENECK_FACTOR,
        "dim_c1": cfg.X3D.DIM_C1,
        "dim_c5": cfg.X3D.DIM_C5,
        "scale_res2": cfg.X3D.SCALE_RES2,
        "strides": strides,
        "dilations": _of_all_pathways(cfg, "SPATIAL_DILATIONS", pathways=1),
        "dropout_rate": cfg.MODEL.DROPOUT_RATE,
        "fc_init_std": cfg.MODEL.FC_INIT_STD,
        "zero_init_final_bn": cfg.RESNET.ZERO_INIT_FINAL_BN,
        "detection": _detection(cfg),
    }


@MODEL_REGISTRY.register()
def PTVX3D(cfg: CfgNode) -> dict:
    """PyTorchVideo's X3D, but for the norm that it leaves out of shortcuts which keep the number of channels."""
    return X3D(cfg)


@MODEL_REGISTRY.register()
@takes_images
def MobileNetV1(cfg: CfgNode) -> dict:
    return {"name": "mobilenet_v1", **_imagenet_arguments(cfg)}


@MODEL_REGISTRY.register()
@takes_images
def MobileNetV2(cfg: CfgNode) -> dict:
    return {"name": "mobilenet_v2", **_imagenet_arguments(cfg)}


@MODEL_REGISTRY.register()
@takes_images
def MobileNetV3(cfg: CfgNode) -> dict:
    return {"name": "mobilenet_v3", **_imagenet_arguments(cfg)}


@MODEL_REGISTRY.register()
@takes_images
def ImageResNet(cfg: CfgNode) -> dict:
    return {
        "name": "resnet2d",
        **_imagenet_arguments(cfg),
        "depth": cfg.RESNET.DEPTH,
        "width_per_group": cfg.RESNET.WIDTH_PER_GROUP,
        "zero_init_final_bn": cfg.RESNET.ZERO_INIT_FINAL_BN,
    }


@MODEL_REGISTRY.register()
@takes_images
def WideResNet(cfg: CfgNode) -> dict:
    return {
        "name": "wide_resnet",
        **_image_arguments(cfg),
        "depth": cfg.WIDERESNET.DEPTH,
        "widen_factor": cfg.WIDERESNET.WIDEN_FACTOR,
    }


def _imagenet_arguments(cfg):
    return {**_image_arguments(cfg), "small_images": cfg.MODEL.SMALL_IMAGES}


def _image_arguments(cfg):
    return {
        "space": search_space(cfg),
        "num_classes": cfg.MODEL.NUM_CLASSES,
        "dropout_rate": cfg.MODEL.DROPOUT_RATE,
        "fc_init_std": cfg.MODEL.FC_INIT_STD,
    }
