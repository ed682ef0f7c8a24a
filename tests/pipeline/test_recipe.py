"""What `mutual3d init` plans: the network, the epochs and the time that fit videos, machine and minutes."""

import pytest
import torch
from tiny import tiny_network

from mutual3d.models import create_model
from mutual3d.pipeline import load_config
from mutual3d.pipeline.recipe import CHOICES, StepTime, VideoCounts, describe_recipe, fit_recipe, network_of_checkpoint
from mutual3d.pipeline.survey import Survey
from mutual3d.utils.files import save_tensors

SURVEY = Survey(looked_at=10, seconds=2.5, short_seconds=2.0, fps=25.0, short_side=144, read_seconds=0.01)


def plan(minutes, survey=SURVEY, choices=CHOICES, step=0.1, num_train=70):
    """The recipe on a machine whose time grows with the pixels of a clip."""
    def measure(choice, num_classes, batch_size, device):
        size = choice.num_frames * choice.crop**2 / (8 * 48**2)
        return StepTime(step * size, step * size / 30, 30)

    return fit_recipe(
        survey, videos=VideoCounts(num_train, 10, 10, classes=10), minutes=minutes, device=torch.device("cpu"), num_workers=0,
        measure=measure, choices=choices,
    )  # fmt: skip


@pytest.mark.parametrize("minutes", [2, 5, 20, 200])
def test_the_plan_keeps_to_the_minutes_and_more_of_them_buy_more(minutes):
    recipe = plan(minutes)
    assert 15 <= recipe.max_epoch <= 150 and recipe.seconds <= 60 * minutes
    assert recipe.network.crop <= 144 and recipe.sampling_rate * recipe.network.num_frames <= 0.9 * 2.0 * 25
    more = plan(2 * minutes)
    assert (more.network.crop, more.max_epoch) >= (recipe.network.crop, recipe.max_epoch) or more.network.crop > recipe.network.crop


def test_too_few_minutes_are_refused_with_enough_of_them():
    with pytest.raises(ValueError, match=r"give --minutes (\d+) or more") as refused:
        plan(0.3)
    needed = int(str(refused.value).partition("--minutes ")[2].split()[0])
    assert plan(needed).max_epoch >= 15


def test_the_written_config_loads_and_starts_from_a_checkpoint_of_other_classes(tmp_path):
    network = tiny_network()
    save_tensors(tmp_path / "c.pyth", {"model_state": network.state_dict(), "model_arguments": network.arguments})
    choice = network_of_checkpoint(tmp_path / "c.pyth")
    assert choice.space == network.space and choice.dim_c5 == 32
    recipe = plan(5, choices=(choice,))
    text = describe_recipe(
        recipe, SURVEY, data=str(tmp_path), output=str(tmp_path / "it's out"), num_classes=3, num_train=70, weights=str(tmp_path / "c.pyth")
    )
    (tmp_path / "config.yaml").write_text(text)
    cfg = load_config(tmp_path / "config.yaml")
    assert cfg.TRAIN.CHECKPOINT_RESET_HEAD and list(cfg.MUTUAL.SPATIAL_SIZES) == [16, 24] and cfg.MODEL.NUM_CLASSES == 3
    assert cfg.NUM_GPUS == 0  # as the minutes were planned: a run of it computes on the CPU, also where there is a GPU


def test_checkpoints_that_cannot_be_planned_for_are_refused_in_words(tmp_path):
    save_tensors(tmp_path / "bare.pyth", {"model_state": {"a": torch.zeros(1)}})
    with pytest.raises(ValueError, match="bare.pyth' does not say which network it holds"):
        network_of_checkpoint(tmp_path / "bare.pyth")
    other = create_model("wide_resnet", space={"width_range": [1.0, 1.0], "spatial_sizes": [24]}, num_classes=3, depth=10, widen_factor=1)
    save_tensors(tmp_path / "other.pyth", {"model_state": other.state_dict(), "model_arguments": other.arguments})
    with pytest.raises(ValueError, match="other.pyth' holds a network wide_resnet, and init plans for plain X3D"):
        network_of_checkpoint(tmp_path / "other.pyth")
