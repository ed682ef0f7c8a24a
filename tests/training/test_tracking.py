"""Running statistics of the smallest configuration while training, and its validation beside the largest (US-Net, 3.2)."""

import copy
import functools
import pickle

import pytest
import torch
from tiny import SPACE, overrides, same, tiny_network, write_set

from mutual3d.cli import run as run_net
from mutual3d.evaluation.calibration import statistics_to_dict
from mutual3d.layers import batch_over, slimmable_norms
from mutual3d.models import create_model
from mutual3d.pipeline import load_config
from mutual3d.pipeline import training as training_stage
from mutual3d.sampling import SearchSpace, prepare_clip, smallest_of_every_step
from mutual3d.training import Method, MutualStep
from mutual3d.utils.files import load_tensors
from mutual3d.utils.logging import read_json_stats


def network():
    torch.manual_seed(0)
    return tiny_network().train()


def clips(seed, count=4, frames=2, size=16):
    return torch.randn(count, 3, frames, size, size, generator=torch.Generator().manual_seed(seed))


def test_they_are_the_moving_averages_that_a_plain_network_of_that_size_keeps():
    model = network()
    plain = copy.deepcopy(model.subnetwork(SPACE.smallest)).train()
    model.track_statistics(SPACE.smallest)
    for seed in range(3):
        model.activate(SPACE.largest)([clips(seed, frames=4, size=24)])
        model.activate(SPACE.smallest)([clips(seed)])
        model.activate("0.75-16-2")([clips(seed)])
        plain([clips(seed)])
    tracked = model.tracked[SPACE.smallest]
    for name in slimmable_norms(model):
        kept = plain.get_submodule(name)
        # PyTorch's running variance is unbiased, as the largest's is.
        assert torch.equal(tracked.mean[name], kept.running_mean) and torch.equal(tracked.variance[name], kept.running_var)
    model.eval()
    plain.eval()
    assert model.can_evaluate(SPACE.smallest) and not model.can_evaluate("0.75-16-2") and not model.statistics
    with torch.no_grad():
        assert torch.equal(model.activate(SPACE.smallest)([clips(9)]), plain([clips(9)]))


def test_the_largest_and_what_others_train_are_left_as_they_were():
    results = []
    for is_tracked in (False, True):
        model = network()
        if is_tracked:
            model.track_statistics(SPACE.smallest)
        outputs = [model.activate(c)(model.fit_clip(clips(5, frames=4, size=24))) for c in (SPACE.largest, SPACE.smallest)]
        results.append((outputs, model.state_dict()))
    assert all(torch.equal(a, b) for a, b in zip(*(outputs for outputs, _ in results)))
    assert same(*(dict(state) for _, state in results))


def test_parts_of_a_batch_count_together():
    model = network()
    model.track_statistics(SPACE.smallest)
    batch_over(model, num_parts=2)
    stem = model.s1.pathway0_stem
    seen = []
    stem.bn.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    model.activate(SPACE.smallest)([clips(1)])
    parts = [seen[0][i::2].transpose(0, 1).flatten(1) for i in range(2)]
    mean = torch.stack([part.mean(1) for part in parts])
    variance = torch.stack([part.var(1) for part in parts])
    tracked = model.tracked[SPACE.smallest]
    torch.testing.assert_close(tracked.mean["s1.pathway0_stem.bn"], 0.1 * mean.mean(0))
    torch.testing.assert_close(tracked.variance["s1.pathway0_stem.bn"], 0.9 + 0.1 * (variance.mean(0) + mean.var(0, correction=0)))


def test_they_follow_copies_files_and_moves_and_end():
    model = network()
    model.track_statistics(SPACE.smallest)
    model.activate(SPACE.smallest)([clips(1)])
    kept = statistics_to_dict(model.tracked)
    twin = copy.deepcopy(model)
    twin.activate(SPACE.smallest)([clips(2)])
    assert same(statistics_to_dict(model.tracked), kept) and not same(statistics_to_dict(twin.tracked), kept)
    assert same(statistics_to_dict(pickle.loads(pickle.dumps(model)).tracked), kept)
    other = network()
    other.load_tracked(model.tracked)
    assert not other.tracked
    other.track_statistics(SPACE.smallest)
    other.load_tracked(model.tracked)
    assert same(statistics_to_dict(other.tracked), kept)
    other.activate(SPACE.smallest)([clips(2)])
    assert same(statistics_to_dict(other.tracked), statistics_to_dict(twin.tracked)) and same(statistics_to_dict(model.tracked), kept)
    assert next(iter(model.double().tracked.values())).mean["s1.pathway0_stem.bn"].dtype == torch.float64
    model.track_statistics(None)
    assert not model.tracked and not model.can_evaluate(SPACE.smallest)


def test_what_was_calibrated_counts_more():
    model = network().eval()
    model.track_statistics(SPACE.smallest)
    before = model.activate(SPACE.smallest)([clips(1)])
    model.set_statistics({SPACE.smallest: model.tracked[SPACE.smallest].map(lambda tensor: tensor + 0.5)})
    assert not torch.allclose(model.activate(SPACE.smallest)([clips(1)]), before)


def test_norms_of_ones_own_track_theirs():
    space = {"width_range": [0.5, 1.0], "spatial_sizes": [24], "temporal_sizes": [4], "listed_widths": [0.5, 1.0]}
    model = create_model("x3d", num_classes=2, depth_factor=0.5, space=space, batchnorm="private_width", own_statistics="private")
    with pytest.raises(ValueError, match="private to widths, sizes or numbers of frames keep their own running statistics"):
        model.track_statistics("0.5-24-4")


@pytest.mark.parametrize("objective", ["inplace_distillation", "labels"])
def test_a_step_moves_them_once(objective):
    model = network()
    model.track_statistics(SPACE.smallest)
    prepare = functools.partial(prepare_clip, device=torch.device("cpu"), mean=[0.5], std=[0.25])
    step = MutualStep(model, Method(("smallest", "random"), objective), prepare=prepare, seed=0)
    pixels = torch.randint(0, 256, (4, 3, 4, 24, 24), dtype=torch.uint8)
    twin = network()
    twin.track_statistics(SPACE.smallest)
    step(pixels, torch.tensor([0, 1, 0, 1]), step=0)
    twin.activate(SPACE.smallest)(twin.fit_clip(prepare(pixels)))
    assert same(statistics_to_dict(model.tracked), statistics_to_dict(twin.tracked))


# ---- Which configuration it is -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names, expected",
    [
        (["smallest", "random"], "0.5-16-2"), (["smallest_width_full_size", "random_width"], "0.5-24-4"),
        (["smallest_width", "random", "random"], None), (["random_widths"], None), ([], None), (["each_size"], "1-16-2"),
        (["smallest_width_full_size", "smallest"], "0.5-16-2"),
    ],
)  # fmt: skip
def test_what_is_tracked_runs_in_every_step(names, expected):
    found = smallest_of_every_step(SPACE, names)
    assert (None if found is None else str(found)) == expected


def test_what_is_drawn_of_one_value_is_no_chance():
    images = SearchSpace((0.5, 1.0), (32,), (1,))
    state = torch.get_rng_state()
    assert str(smallest_of_every_step(images, ["smallest_width", "random", "random"])) == "0.5-32"
    assert torch.equal(torch.get_rng_state(), state)


# ---- A run -----------------------------------------------------------------------------------------------------------------

CHANGES = {"MUTUAL.TRACK_SMALLEST": True, "TRAIN.EVAL_PERIOD": 1, "CALIBRATION.ENABLE": False, "GRID.ENABLE": False, "TEST.ENABLE": False}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set"), num_videos=8)


def train(data, output, **changes):
    config = output.parent / "tiny.yaml"
    output.parent.mkdir(exist_ok=True)
    config.write_text("RNG_SEED: 3\n")
    run_net.main(["--cfg", str(config), *overrides(data, output, **{**CHANGES, **changes})])
    return read_json_stats(output / "stdout.log")


def test_a_run_validates_the_smallest_beside_the_largest_and_resumes_to_the_bit(data, tmp_path, monkeypatch):
    stats = train(data, tmp_path / "out")
    lines = [line for line in stats if line.get("_type") == "val_smallest_epoch"]
    assert [line["epoch"] for line in lines] == ["1/2", "2/2"] and {line["configuration"] for line in lines} == {"0.5-16-2"}
    assert all(0 <= line["top1_err"] <= 100 for line in lines)
    assert [line["epoch"] for line in stats if line.get("_type") == "val_epoch"] == ["1/2", "2/2"]
    # Stopped behind the first epoch, and gone on with.
    with monkeypatch.context() as patch:
        validate = training_stage._Training._validate

        def stopping(self, epoch):
            validate(self, epoch)
            raise KeyboardInterrupt

        patch.setattr(training_stage._Training, "_validate", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path / "again" / "out")
    again = train(data, tmp_path / "again" / "out")
    assert [line for line in again if line.get("_type") == "val_smallest_epoch"] == lines
    first, second = (load_tensors(folder / "checkpoints" / "checkpoint_epoch_00002.pyth") for folder in (tmp_path / "out", tmp_path / "again" / "out"))
    assert same(first["tracked_state"], second["tracked_state"]) and list(first["tracked_state"]) == ["0.5-16-2"]
    assert same(first["model_state"], second["model_state"])


def test_nothing_is_validated_before_its_first_step(data, tmp_path):
    stats = train(data, tmp_path / "out", **{"MUTUAL.SUBNETS_START_EPOCH": 1.0})
    assert [line["epoch"] for line in stats if line.get("_type") == "val_smallest_epoch"] == ["2/2"]


@pytest.mark.parametrize(
    "words, message",
    [
        (["MUTUAL.SUBNETS", "['random']"], r"no rule of MUTUAL.SUBNETS \['random'\] runs one and the same configuration"),
        (["MODEL.EMA", "True"], "with MODEL.EMA their average is validated"),
        (["MUTUAL.BATCHNORM", "private_size"], "with MUTUAL.BATCHNORM private_size norms keep their own"),
    ],
)
def test_what_cannot_be_tracked_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        load_config("Demo/MUTUAL_X3D", ["MUTUAL.TRACK_SMALLEST", "True", *words])
