"""What asks for classes, and says so where a network gives something else."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # which calls what is here
    from mutual3d.deploy.adaptive_model import AdaptiveModel


def check_gives_classes(model: "AdaptiveModel", what: str) -> None:
    """ValueError where a model's network gives no scores of classes. what: the capability that needs them, in words."""
    if model.network.gives != "classes":
        raise ValueError(_explained(model, what))


def check_gives_rows(model: "AdaptiveModel", what: str) -> None:
    """ValueError where a model's network gives no row of scores for each clip. what: the capability that needs them, in words."""
    if not model.network.gives_rows:
        raise ValueError(_explained(model, what))


def _explained(model: "AdaptiveModel", what: str) -> str:
    return (
        f"{what} needs the scores of classes, and this model gives {model.network.gives}: call the model itself, "
        "model(images_B3HW, configuration=...), in PyTorch"
    )
