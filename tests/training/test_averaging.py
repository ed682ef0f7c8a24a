"""The moving average of weights: its arithmetic, checkpoints and resume, and that a run serves it."""

import shutil

import pytest
import torch
from tiny import overrides, tiny_network, write_set

import mutual3d
from mutual3d.cli import run as run_net
from mutual3d.table.query_table import QueryTable
from mutual3d.training import WeightAverage
from mutual3d.utils.files import load_tensors


def test_the_average_is_the_recurrence_with_its_warm_up():
    model = torch.nn.Linear(2, 2)
    average, expected = WeightAverage(model, decay=0.3), None
    for step in range(8):
        with torch.no_grad():
            model.weight.copy_(torch.full((2, 2), float(step)))
        average.update()
        decay = min(0.3, (1 + step) / (10 + step))
        expected = float(step) if expected is None else decay * expected + (1 - decay) * step
        assert average.weights()["weight"].mean().item() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="MODEL.EMA_DECAY"):
        WeightAverage(model, decay=1.0)


def test_the_models_own_weights_come_back_to_the_bit():
    torch.manual_seed(0)
    model = tiny_network()
    average = WeightAverage(model)
    average.update()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    own = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="inside"), average.in_place():
        assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), average.weights().values()))
        assert not torch.equal(model.head.projection.weight, own["head.projection.weight"])
        raise RuntimeError("inside")
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())


WORDS = {
    "MODEL.EMA": True, "MODEL.EMA_DECAY": 0.5, "MIXUP.ENABLE": True, "AUG.ENABLE": True, "MODEL.LOSS_FUNC": "soft_cross_entropy",
    "GRID.WIDTH_STEP": 0.5, "GRID.CASCADES": 0, "GRID.COSTS": ["gflops"], "TEST.ENABLE": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two epochs with everything that is random: its directory and its data."""
    folder = tmp_path_factory.mktemp("averaged")
    data = write_set(folder / "set", num_videos=8)
    run_net.main(["--cfg", str(write_yaml(folder)), *overrides(data, folder / "whole", **WORDS)])
    return folder, data


def write_yaml(folder):
    path = folder / "tiny.yaml"
    path.write_text("RNG_SEED: 3\n")
    return path


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        if isinstance(value, dict):
            assert_same(value, second[name])
        elif isinstance(value, torch.Tensor):
            assert torch.equal(value, second[name]), name
        elif name != "cfg":
            assert value == second[name], name


def test_a_resumed_run_equals_the_uninterrupted_one_to_the_bit(finished):
    folder, data = finished
    first = folder / "whole/checkpoints/checkpoint_epoch_00001.pyth"
    (folder / "resumed/checkpoints").mkdir(parents=True)
    shutil.copy(first, folder / "resumed/checkpoints")
    run_net.main(["--cfg", str(write_yaml(folder)), *overrides(data, folder / "resumed", **WORDS)])
    last = "checkpoints/checkpoint_epoch_00002.pyth"
    assert_same(load_tensors(folder / "whole" / last), load_tensors(folder / "resumed" / last))
    assert_same(load_tensors(folder / "whole/adaptive.pyth")["model_state"], load_tensors(folder / "resumed/adaptive.pyth")["model_state"])


def test_the_bundle_the_table_and_every_later_stage_have_the_averages(finished, tmp_path):
    folder, data = finished
    checkpoint = load_tensors(folder / "whole/checkpoints/checkpoint_epoch_00002.pyth")
    averages, trained = checkpoint["model_state"], checkpoint["average_state"]["training_weights"]
    assert checkpoint["average_state"]["num_averaged"] == 4
    assert not torch.equal(averages["head.projection.weight"], trained["head.projection.weight"])
    assert_same(load_tensors(folder / "whole/adaptive.pyth")["model_state"], averages)
    table = QueryTable.load(folder / "whole/query_table.json")
    assert table.provenance["weights"] == "moving average of the steps' (MODEL.EMA_DECAY 0.5)"
    # Calibrated: every row can be run.
    model = mutual3d.load(folder / "whole/adaptive.pyth")
    clip = torch.zeros(1, 3, 4, 24, 24, dtype=torch.uint8)
    assert all(model(clip, configuration=row.configuration).isfinite().all() for row in table.rows)
    # A run that goes on when training is finished, and one that only measures, have them too: the table is not measured again.
    before = (folder / "whole/query_table.json").stat().st_mtime_ns
    for words in (WORDS, {**WORDS, "TRAIN.ENABLE": False}):
        run_net.main(["--cfg", str(write_yaml(folder)), *overrides(data, folder / "whole", **words)])
        assert_same(load_tensors(folder / "whole/adaptive.pyth")["model_state"], averages)
        assert (folder / "whole/query_table.json").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="MODEL.EMA"):
        run_net.main(["--cfg", str(write_yaml(folder)), *overrides(data, folder / "whole", **{**WORDS, "MODEL.EMA": False})])
