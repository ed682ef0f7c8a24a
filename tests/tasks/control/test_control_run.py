"""Control through the same command as everything: trained, stopped and resumed, measured, loaded."""

import pytest
import torch
from tiny import same

import mutual3d
from mutual3d.cli import run as run_net
from mutual3d.cli import slim
from mutual3d.deploy.runtimes import RUNTIMES
from mutual3d.models import build_model
from mutual3d.pipeline import load_config
from mutual3d.table.query_table import QueryTable
from mutual3d.training import MutualStep
from mutual3d.utils.files import load_tensors, read_json
from mutual3d.utils.logging import read_json_stats
from mutual3d.utils.stopping import StopRequestedError, request_stop

# A few hundred steps of the game.
CHANGES = {
    "CONTROL.NUM_GAMES": 4, "CONTROL.STEPS": 16, "CONTROL.ROLLOUTS": 3, "CONTROL.PASSES": 2, "CONTROL.EPISODES": 4, "CONTROL.MAX_STEPS": 40,
    "POLICY.CHANNELS": [16], "POLICY.NUM_FEATURES": 32, "TRAIN.BATCH_SIZE": 32, "SOLVER.MAX_EPOCH": 2, "TRAIN.EVAL_PERIOD": 1,
    "GRID.WIDTH_STEP": 0.25, "GRID.LATENCY_REPEATS": 1, "GRID.RUNTIMES": [], "LOG_PERIOD": 1, "TEST.BATCH_SIZE": 2, "NUM_GPUS": 0,
}  # fmt: skip


def words(output, **changes):
    values = {**CHANGES, "OUTPUT_DIR": output, **changes}
    return ["--cfg", "Demo/CONTROL", *(str(word) for pair in values.items() for word in pair)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    pytest.importorskip("minatar", reason="pip install -e .[rl]")
    output = tmp_path_factory.mktemp("run") / "out"
    run_net.main(words(output))
    return output


def test_the_table_has_the_mean_return_at_every_width(finished):
    table = QueryTable.load(finished / "query_table.json")
    # A quarter and a half of 16 channels are eight each, of 32 features they differ.
    assert [str(row.configuration) for row in table.rows] == ["0.25-10", "0.5-10", "0.75-10", "1-10"]
    assert table.metric == "mean_return" and table.provenance["metrics"]["mean_return"]["unit"] == "points"
    assert table.provenance["num_videos"] == 4 and table.provenance["sample"] == "episode"
    assert all(row.accuracy["mean_return"] >= 0 and row.accuracy["return_interval"] >= 0 and row.latency_ms for row in table.rows)
    costs = [row.gflops for row in table.rows]
    assert costs == sorted(set(costs)) and costs[0] > 0
    results = read_json(finished / "test_results.json")
    assert results["num_videos"] == 4 and float(results["results"]["1-10"]["mean_return"]) >= 0


def test_epochs_are_logged_with_their_losses_and_returns(finished):
    stats = read_json_stats(finished / "stdout.log")
    validated = [row for row in stats if row.get("_type") == "val_epoch"]
    assert [row["epoch"] for row in validated] == ["1/2", "2/2"] and all(row["mean_return"] >= 0 for row in validated)
    played = [row for row in stats if row.get("_type") == "play_epoch"]
    assert [row["steps"] for row in played] == [192, 384] and all(row["episodes"] and row["mean_return"] >= 0 for row in played)
    trained = [row for row in stats if row.get("_type") == "train_epoch"]
    assert {"policy_loss", "value_loss", "entropy_loss"} <= trained[0].keys()


def test_a_row_measured_again_gives_its_own_return(finished):
    table = QueryTable.load(finished / "query_table.json")
    (finished / "query_table.json").unlink()
    run_net.main(words(finished, **{"TEST.ENABLE": False}))
    again = QueryTable.load(finished / "query_table.json")
    assert [row.accuracy for row in again.rows] == [row.accuracy for row in table.rows]


def test_the_bundle_gives_probabilities_of_actions(finished):
    model = mutual3d.load(finished / "adaptive.pyth")
    observations = 255 * torch.randint(0, 2, (5, 4, 10, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for row in model.table.rows:
        probabilities = model(observations, configuration=row.configuration)
        assert probabilities.shape == (5, 3)
        torch.testing.assert_close(probabilities.sum(1), torch.ones(5))
    with pytest.raises(ValueError, match="needs the scores of classes, and this model gives actions"):
        model.predict("clip.mp4")
    for wrong in (observations[:, :3], observations.repeat(1, 1, 1, 2)):
        with pytest.raises(ValueError, match="give B, 4, 10, 10"):
            model(wrong)


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_a_policy_runs_in_runtimes(finished, runtime, tmp_path):
    if not RUNTIMES[runtime].is_installed:
        pytest.skip(f"{runtime} is not installed")
    model = mutual3d.load(finished / "adaptive.pyth")
    observations = 255 * torch.randint(0, 2, (2, 4, 10, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = {row.configuration: model(observations, configuration=row.configuration) for row in model.table.rows}
    model.run_in(runtime, cache=tmp_path)
    for configuration, probabilities in expected.items():
        torch.testing.assert_close(model(observations, configuration=configuration), probabilities, rtol=1e-3, atol=1e-4)
        # Also as clips of one frame, as a run times them.
        torch.testing.assert_close(model(observations[:, :, None], configuration=configuration), probabilities, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("calls, objective", [([3], "inplace_distillation"), ([1, 6], "labels"), ([4, 9], "labels")])
def test_stopped_training_goes_on_and_ends_the_same_to_the_bit(finished, tmp_path, monkeypatch, calls, objective):
    """An epoch has twelve steps, four of them from each roll-out."""
    short = {"GRID.ENABLE": False, "TEST.ENABLE": False, "MUTUAL.OBJECTIVE": objective, "TRAIN.EVAL_PERIOD": 2}
    whole, output = tmp_path / "whole", tmp_path / "stopped"
    run_net.main(words(whole, **short))
    original = MutualStep.__call__
    for number in calls:
        done = []

        def stopping(step, *arguments, number=number, done=done, **options):
            done.append(1)
            if len(done) == number:
                request_stop("a test")
            return original(step, *arguments, **options)

        monkeypatch.setattr(MutualStep, "__call__", stopping)
        with pytest.raises(StopRequestedError):
            run_net.main(words(output, **short))
        assert list((output / "checkpoints").glob("unfinished_*"))
    monkeypatch.setattr(MutualStep, "__call__", original)
    run_net.main(words(output, **short))
    states = [load_tensors(path / "checkpoints/checkpoint_epoch_00002.pyth") for path in (whole, output)]
    for part in ("model_state", "optimizer_state"):
        assert same(states[0][part], states[1][part]), part
    played = [[row for row in read_json_stats(path / "stdout.log") if row.get("_type") == "play_epoch"] for path in (whole, output)]
    assert played[0] == played[1]


def test_one_policy_alone_trains_too(finished, tmp_path):
    run_net.main(words(tmp_path / "out", **{"MUTUAL.ENABLE": False, "SOLVER.MAX_EPOCH": 1, "GRID.LATENCY_DEVICES": [], "TEST.ENABLE": False}))
    (row,) = QueryTable.load(tmp_path / "out/query_table.json").rows
    assert str(row.configuration) == "1-10"


def test_the_papers_config_runs(tmp_path):
    """Some steps of Atari's Breakout by the whole network."""
    for package in ("ale_py", "gymnasium", "cv2"):
        pytest.importorskip(package, reason="pip install -e .[rl]")
    changes = {
        "CONTROL.NUM_GAMES": 2, "CONTROL.STEPS": 8, "CONTROL.ROLLOUTS": 2, "CONTROL.EPISODES": 2, "CONTROL.MAX_STEPS": 6, "TRAIN.BATCH_SIZE": 16,
        "SOLVER.MAX_EPOCH": 1, "TRAIN.EVAL_PERIOD": 2, "GRID.WIDTH_STEP": 0.75, "GRID.LATENCY_DEVICES": [], "TEST.ENABLE": False, "NUM_GPUS": 0,
        "OUTPUT_DIR": tmp_path / "out",
    }  # fmt: skip
    run_net.main(["--cfg", "Atari/US_BREAKOUT", *(str(word) for pair in changes.items() for word in pair)])
    table = QueryTable.load(tmp_path / "out/query_table.json")
    assert [(str(row.configuration), row.parameters) for row in table.rows] == [("0.25-84", 56229), ("0.75-84", 488933), ("1-84", 865413)]
    assert all(row.accuracy["mean_return"] >= 0 for row in table.rows)
    (played,) = [row for row in read_json_stats(tmp_path / "out/stdout.log") if row.get("_type") == "play_epoch"]
    assert played["steps"] == 32 and played["episodes"] == 4


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"MODEL.LOSS_FUNC": "cross_entropy"}, "MODEL.LOSS_FUNC is 'cross_entropy': with TRAIN.DATASET minatar it must be ppo"),
        ({"MODEL.HEAD_ACT": "none"}, "MODEL.HEAD_ACT is 'none'"),
        ({"DATA.TEST_CROP_SIZE": 12}, "a game is seen whole"),
        ({"MODEL.EMA": True}, "the policy that plays is the one that learns"),
        ({"DATA.MEAN": [0.0, 0.0, 0.0]}, "DATA.MEAN is .0.0, 0.0, 0.0.: it must be a list of one number for each channel"),
        ({"POLICY.STRIDES": [1, 1]}, "POLICY.CHANNELS is .16., KERNEL_SIZES .3. and STRIDES .1, 1."),
        ({"MUTUAL.SPATIAL_SIZES": [8, 10]}, "the linear layer of a policy reads every place"),
        ({"TRAIN.DATASET": "digits", "TEST.DATASET": "digits"}, "clips of TRAIN.DATASET digits have 3 channels"),
    ],
)
def test_settings_that_do_not_go_with_it_are_refused_before_anything_runs(tmp_path, changes, message):
    _, config, *values = words(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        build_model(load_config(config, values))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"MODEL.NUM_CLASSES": 4}, "MODEL.NUM_CLASSES is 4, and breakout has 3 actions"),
        ({"CONTROL.GAME": "pong"}, "CONTROL.GAME is 'pong'"),
        ({"CONTROL.GAME": "freeway"}, "freeway shows 7 channels"),
        ({"TRAIN.BATCH_SIZE": 48}, "TRAIN.BATCH_SIZE 48 does not divide"),
    ],
)
def test_games_that_do_not_go_with_it_are_refused_before_training(finished, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run_net.main(words(tmp_path / "out", **changes))


def test_a_search_for_widths_plays_the_episodes(tmp_path):
    pytest.importorskip("minatar", reason="pip install -e .[rl]")
    run_net.main(words(tmp_path, **{"MUTUAL.WIDTHS_BY": "layer", "CONTROL.ROLLOUTS": 1, "SOLVER.MAX_EPOCH": 1, "TEST.ENABLE": False}))
    budget = 0.7 * QueryTable.load(tmp_path / "query_table.json").row("1-10").gflops
    slim.main([str(tmp_path / "adaptive.pyth"), "--gflops", str(budget), "--step", "0.25", "--videos", "2", "--split", "val"])
    table = QueryTable.load(tmp_path / "slim" / "query_table.json")
    (found,) = table.provenance["slimmed"]
    assert table.row(found).gflops <= budget and table.row(found).accuracy["mean_return"] >= 0
