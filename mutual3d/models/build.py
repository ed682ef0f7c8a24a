"""From a config to an adaptive network, and what networks of one family read of it."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from fvcore.common.config import CfgNode

from mutual3d.layers import WHOLE_BITS
from mutual3d.sampling import RULES, SearchSpace
from mutual3d.utils.words import unknown_word

from .adaptive import AdaptiveNetwork
from .adaptive.private_norms import PRIVATE_BY
from .arguments import wrong_frames, wrong_shared_norms
from .create import BATCHNORMS, create_model
from .registry import find_network, network_words, what_networks_take

# PySlowFast's networks that are not here, and what is.
_MISSING = {
    "MViT": "no vision transformers", "PTVMViT": "no vision transformers", "MaskMViT": "no masked vision transformers",
    "ContrastiveModel": "no self-supervised training", "PTVCSN": "no channel-separated networks (CSN)",
    "PTVR2plus1D": "no R(2+1)D",
}  # fmt: skip


def _unknown_network(name: str) -> str:
    """What to say of a MODEL.MODEL_NAME that is none; empty for one that is."""
    words = network_words()
    if name in _MISSING and name not in words:
        return f"MODEL.MODEL_NAME is '{name}': mutual3d has {_MISSING[name]}; it has {', '.join(words)}"
    return unknown_word("MODEL.MODEL_NAME", name, words)


def network_takes_images(name: str) -> bool:
    """Whether the network of a MODEL.MODEL_NAME takes images instead of clips."""
    return what_networks_take(name) == "images"


def what_network_gives(cfg: CfgNode) -> str | None:
    """What the network of a config gives, in its own word (`AdaptiveNetwork.gives`); None where there is no such network."""
    try:
        return find_network(cfg.MODEL.MODEL_NAME, cfg.MODEL.ARCH).gives
    except ValueError:  # which the network's own check tells
        return None


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
    facts = find_network(name, cfg.MODEL.ARCH)
    shared = {"name": facts.name, "space": search_space(cfg), "num_classes": cfg.MODEL.NUM_CLASSES}
    averaging = {"average_inputs": True} if cfg.MUTUAL.ENABLE and cfg.MUTUAL.AVERAGE_INPUTS else {}
    adapting = {"temporal_adapters": True} if cfg.MUTUAL.ENABLE and cfg.MUTUAL.TEMPORAL_ADAPTERS else {}
    own = {"batchnorm": batchnorm, "own_statistics": own_statistics(cfg), **averaging, **adapting, **_quantization(cfg)}
    return {**shared, **facts.arguments(cfg), **own}


def _quantization(cfg: CfgNode) -> dict[str, int]:
    """Bits of weights and activations where they are not left as they are."""
    bits = {"weight_bits": cfg.MODEL.QUANTIZE.WEIGHT_BITS, "activation_bits": cfg.MODEL.QUANTIZE.ACTIVATION_BITS}
    return {key: value for key, value in bits.items() if value != WHOLE_BITS}


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


def _check_sizes(cfg: CfgNode) -> Iterator[tuple[tuple[str, ...], str]]:
    """The largest sizes are those that the data have."""
    frames, key = cfg.DATA.NUM_FRAMES, "DATA.NUM_FRAMES"
    if what_networks_take(cfg.MODEL.MODEL_NAME) == "pathways":
        frames, key = frames / cfg.SLOWFAST.ALPHA, "DATA.NUM_FRAMES / SLOWFAST.ALPHA"
    for own, sizes, other, largest in (
        ("MUTUAL.SPATIAL_SIZES", cfg.MUTUAL.SPATIAL_SIZES, "DATA.TRAIN_CROP_SIZE", cfg.DATA.TRAIN_CROP_SIZE),
        ("MUTUAL.TEMPORAL_SIZES", cfg.MUTUAL.TEMPORAL_SIZES, key, frames),
    ):
        if not sizes or max(sizes) != largest:
            yield (own, *other.split(" / ")), f"{own} is {sizes}: its largest value must equal {other}, which is {largest:g}"


def _check_arguments(cfg: CfgNode) -> Iterator[tuple[tuple[str, ...], str]]:
    """What the network's own function, and the space of its configurations, say of the config."""
    keys: tuple[str, ...] = ("MODEL.MODEL_NAME", "MODEL.ARCH")
    try:
        space = SearchSpace(**model_arguments(cfg)["space"])
        keys = ("TEST.CONFIGURATIONS",)
        sizes, frames = (*space.spatial_sizes, *cfg.GRID.INTERPOLATED_SIZES), (*space.temporal_sizes, *cfg.GRID.UNSEEN_FRAMES)
        space = dataclasses.replace(space, spatial_sizes=sizes, temporal_sizes=frames)
        for text in cfg.TEST.CONFIGURATIONS:
            space.check(text)
    except ValueError as error:
        yield keys, str(error) if keys[0] == "MODEL.MODEL_NAME" else f"TEST.CONFIGURATIONS: {error}"


def _check_norms(cfg: CfgNode) -> Iterator[tuple[tuple[str, ...], str]]:
    """Norms of one's own need rules that train each of them, and shared running statistics one width."""
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
    if (mutual.BATCHNORM == "private_frames" or mutual.TEMPORAL_ADAPTERS) and (mistake := wrong_frames(mutual.TEMPORAL_SIZES)):
        key = "MUTUAL.BATCHNORM" if mutual.BATCHNORM == "private_frames" else "MUTUAL.TEMPORAL_ADAPTERS"
        yield (key, "MUTUAL.TEMPORAL_SIZES"), mistake
    if mutual.BATCHNORM == "shared" and (mistake := wrong_shared_norms(mutual.WIDTH_RANGE)):
        yield ("MUTUAL.BATCHNORM", "MUTUAL.WIDTH_RANGE"), mistake
    if unfit := [frames for frames in cfg.GRID.UNSEEN_FRAMES if frames in mutual.TEMPORAL_SIZES or frames > max(mutual.TEMPORAL_SIZES or [0])]:
        yield (
            ("GRID.UNSEEN_FRAMES", "MUTUAL.TEMPORAL_SIZES"),
            f"GRID.UNSEEN_FRAMES {unfit} are among the trained numbers of frames {mutual.TEMPORAL_SIZES}, which are measured anyway, or above "
            "them, which no clip has: leave them out",
        )
    trained = mutual.SPATIAL_SIZES or [0]
    if wrong := [size for size in sizes if size in trained]:
        yield (
            ("GRID.INTERPOLATED_SIZES", "MUTUAL.SPATIAL_SIZES"),
            f"GRID.INTERPOLATED_SIZES {wrong} are among the trained sizes {mutual.SPATIAL_SIZES}, which are measured anyway: leave them out",
        )
    if sizes and max(sizes) > max(trained) and cfg.CALIBRATION.TRANSFORM == "train" and cfg.CALIBRATION.ENABLE:
        yield (
            ("CALIBRATION.TRANSFORM", "GRID.INTERPOLATED_SIZES"),
            f"CALIBRATION.TRANSFORM is train, which cuts clips for the trained sizes, and GRID.INTERPOLATED_SIZES has {max(sizes)}: set it test",
        )


def own_statistics(cfg: CfgNode) -> str:
    """Whose running statistics a run keeps: of what runs in every step with norms that nothing else uses."""
    if not cfg.MUTUAL.ENABLE:
        return "largest"
    if cfg.MUTUAL.BATCHNORM == "shared":
        return "all"
    by = BATCHNORMS.get(cfg.MUTUAL.BATCHNORM)
    if by is not None and PRIVATE_BY[by].rule in cfg.MUTUAL.SUBNETS:
        return "private"
    runs_largest = cfg.MUTUAL.LARGEST or any(RULES[name].runs_largest for name in cfg.MUTUAL.SUBNETS if name in RULES)
    return "largest" if runs_largest else "none"


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
        **({} if cfg.MUTUAL.WIDTHS_BY == "stage" else {"widths_by": cfg.MUTUAL.WIDTHS_BY}),
    }


def adaptive_frames(cfg: CfgNode) -> int:
    """Frames of the pathway that has configurations: the clip's, or SlowFast's Slow ones."""
    if what_networks_take(cfg.MODEL.MODEL_NAME) != "pathways":
        return cfg.DATA.NUM_FRAMES
    frames, alpha = cfg.DATA.NUM_FRAMES, cfg.SLOWFAST.ALPHA
    if alpha < 1 or frames % alpha:
        raise ValueError(f"DATA.NUM_FRAMES {frames} does not divide by SLOWFAST.ALPHA {alpha}")
    return frames // alpha


# ---- What networks of one family read ---------------------------------------------------------------------------------


def resnet_arguments(cfg: CfgNode, pathways: int) -> dict[str, Any]:
    """Those of a 3D ResNet: the shape of its stages and what every video network has.

    pathways: how many the network has, 1 or 2. Raises ValueError where a config asks for squeeze-excite, which those of images have.
    """
    if cfg.RESNET.SE_REDUCTION:
        raise ValueError(f"RESNET.SE_REDUCTION is {cfg.RESNET.SE_REDUCTION}: ImageResNet alone has squeeze-excite; set it 0")
    return {
        "depth": cfg.RESNET.DEPTH,
        "width_per_group": cfg.RESNET.WIDTH_PER_GROUP,
        "temporal_blocks": _of_each_pathway(cfg, "NUM_BLOCK_TEMP_KERNEL", pathways),
        "strides": of_all_pathways(cfg, "SPATIAL_STRIDES", pathways),
        "dilations": of_all_pathways(cfg, "SPATIAL_DILATIONS", pathways),
        **video_arguments(cfg),
    }


def video_arguments(cfg: CfgNode) -> dict[str, Any]:
    """What the head of a video network is, and how its weights begin."""
    detection = {"resolution": cfg.DETECTION.ROI_XFORM_RESOLUTION, "aligned": cfg.DETECTION.ALIGNED}
    return {
        "dropout_rate": cfg.MODEL.DROPOUT_RATE,
        "fc_init_std": cfg.MODEL.FC_INIT_STD,
        "zero_init_final_bn": cfg.RESNET.ZERO_INIT_FINAL_BN,
        # None for a network of clips; what pools the boxes of one that classifies those.
        "detection": detection if cfg.DETECTION.ENABLE else None,
    }


def image_arguments(cfg: CfgNode) -> dict[str, Any]:
    """What networks for ImageNet's images and for small ones have."""
    return {
        "dropout_rate": cfg.MODEL.DROPOUT_RATE,
        "fc_init_std": cfg.MODEL.FC_INIT_STD,
        "small_images": cfg.MODEL.SMALL_IMAGES,
    }


def of_all_pathways(cfg: CfgNode, key: str, pathways: int) -> list[int]:
    """One value a stage of a RESNET key that PySlowFast writes as a list of pathways a stage."""
    stages: Sequence[Sequence[int]] = cfg.RESNET[key]
    if len(stages) != 4 or any(len(set(stage)) != 1 or len(stage) not in (1, pathways) for stage in stages):
        raise ValueError(f"RESNET.{key} is {stages}: give four lists of one value, the same for each pathway")
    return [stage[0] for stage in stages]


def _of_each_pathway(cfg: CfgNode, key: str, pathways: int) -> list[int | list[int]]:
    """One value a stage, where pathways agree, else a list of each pathway's."""
    stages: Sequence[Sequence[int]] = cfg.RESNET[key]
    if len(stages) != 4 or any(len(stage) not in (1, pathways) for stage in stages):
        raise ValueError(f"RESNET.{key} is {stages}: give four lists, of one value or of {pathways}, one for each pathway")
    return [stage[0] if len(set(stage)) == 1 else list(stage) for stage in stages]
