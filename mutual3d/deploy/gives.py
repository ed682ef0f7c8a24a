"""What asks for classes, and says so where a network gives something else."""

from typing import TYPE_CHECKING

from mutual3d.utils.text import printable

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


def argument_of(model: "AdaptiveModel") -> str:
    """What a model is called with, as a name that says the shape."""
    return "images_B3HW" if model.network.takes == "images" else "clips_B3THW"


def _explained(model: "AdaptiveModel", what: str) -> str:
    gives = printable(model.network.gives)
    return (
        f"{what} needs the scores of classes, and this model gives {gives}. In Python the model itself gives them, "
        f"mutual3d.load(FILE)({argument_of(model)}, configuration=...) of uint8 pixels; mutual3d run --cfg CONFIG TRAIN.ENABLE False measures it on "
        "its own data"
    )
