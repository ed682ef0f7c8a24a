"""Networks and configs by name, without a YAML file of one's own."""

from pathlib import Path

from mutual3d.config import CfgNode, find_config, list_configs
from mutual3d.config import get_cfg as _defaults
from mutual3d.models import AdaptiveNetwork, build_model
from mutual3d.models.arguments import check_arguments
from mutual3d.models.interop import load_checkpoint
from mutual3d.utils.checkpoint import ClassCountError
from mutual3d.utils.words import unknown_word

_PREFIX = "MUTUAL_"
# Families whose configs are networks as published, not recipes for one data set.
_FAMILIES = ("Kinetics", "ImageNet")


def _configs() -> dict[str, str]:
    """{name of a network: the config that describes it}."""
    split = (name.split("/") for name in list_configs())
    return {
        name.removeprefix(_PREFIX).lower(): f"{family}/{name}"
        for family, name in split if family in _FAMILIES and name.startswith(_PREFIX)
    }  # fmt: skip


def list_models() -> list[str]:
    """Names that `create_model` takes, such as x3d_m and slow_8x8_r50."""
    return sorted(_configs())


def get_cfg(name: str | Path | None = None) -> CfgNode:
    """The CfgNode that PySlowFast's users know: defaults, and the settings of a config by name or path; not frozen.

    Raises FileNotFoundError for an unknown name, with the nearest one.
    """
    cfg = _defaults()
    if name is not None:
        cfg.merge_from_file(find_config(name))
    return cfg


def create_model(
    name: str, *, num_classes: int | None = None, weights: str | Path | None = None, reset_head: bool = False
) -> AdaptiveNetwork:
    """An adaptive network as published, with its search space; in training mode.

    Args:
        name: one of `list_models()`.
        num_classes: None takes the published number, 400 or 1000.
        weights: a checkpoint or bundle of this project, or a file of PySlowFast's, PyTorchVideo's or torchvision's, recognised
            by its names; None leaves random weights. Where `num_classes` is given and is not the file's, the classifier is
            left new, with a warning.
        reset_head: leave the classifier new in any case.

    Raises ValueError for an unknown name, with the nearest, for a number of classes that is none, and for weights that do
    not fit.
    """
    configs = _configs()
    if name not in configs:
        raise ValueError(unknown_word("the name of the network", name, sorted(configs)))
    cfg = get_cfg(configs[name])
    if num_classes is not None:
        check_arguments(name, {"num_classes": num_classes})
        cfg.merge_from_list(["MODEL.NUM_CLASSES", num_classes])
    model = build_model(cfg)
    if weights is not None:
        try:
            load_checkpoint(model, weights, reset_head=True if reset_head else None if num_classes is not None else False)
        except ClassCountError as error:
            raise ClassCountError(
                weights, error.there, error.here,
                f"give num_classes={error.there} to take its classifier too, or the number of your own classes, whose classifier is new",
            ) from None  # fmt: skip
    return model
