"""Maps of classes through the same command as everything else: train, calibrate, measure, test, load; killed and resumed."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import same
from torchvision.transforms.v2.functional import resize

import mutual3d
from mutual3d.cli import run as run_net
from mutual3d.data.prepare.demo_nyudv2 import MAP_CLASSES, make_demo_nyudv2
from mutual3d.evaluation.measure import measure
from mutual3d.pipeline import load_config
from mutual3d.pipeline.build import build_loader
from mutual3d.sampling import prepare_clip
from mutual3d.tasks.segmentation import SegmentationScores, class_map
from mutual3d.utils.files import read_json
from mutual3d.utils.logging import read_json_stats

SMALL = {
    "RESNET.WIDTH_PER_GROUP": 8, "REFINENET.CHANNELS": 8, "NUM_GPUS": 0, "DATA_LOADER.NUM_WORKERS": 0, "TRAIN.BATCH_SIZE": 4,
    "TRAIN.EVAL_PERIOD": 1, "TRAIN.CHECKPOINT_PERIOD": 1, "SOLVER.MAX_EPOCH": 2, "SOLVER.WARMUP_EPOCHS": 0, "MUTUAL.SPATIAL_SIZES": [32, 64], "DATA.TRAIN_CROP_SIZE": 64,
    "DATA.TEST_CROP_SIZE": 64, "DATA.TRAIN_JITTER_SCALES": [64, 80],
    "CALIBRATION.NUM_CLIPS": 8, "CALIBRATION.BATCH_SIZE": 4, "GRID.LATENCY_DEVICES": [], "TEST.BATCH_SIZE": 4,
}  # fmt: skip
LATENCY = {"GRID.LATENCY_DEVICES": ["cpu"], "GRID.LATENCY_REPEATS": 1}
WIDTHS = {
    "MUTUAL.WIDTH_RANGE": [0.5, 1.0], "MUTUAL.SUBNETS": ["smallest_width", "random"], "MUTUAL.LARGEST": True,
    "MUTUAL.OBJECTIVE": "inplace_distillation", "MUTUAL.BATCHNORM": "calibrated", "GRID.WIDTH_STEP": 0.5,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_demo_nyudv2(tmp_path_factory.mktemp("maps") / "data", num_train=12, num_val=4, num_workers=1)


def words(data, output, **changes):
    values = {**SMALL, "DATA.PATH_TO_DATA_DIR": data, "OUTPUT_DIR": output, **changes}
    return [str(word) for pair in values.items() for word in pair]


def run(data, output, **changes):
    run_net.main(["--cfg", "Demo/NYUDv2", *words(data, output, **changes)])
    return output


def test_calibration_by_pictures_of_many_sizes_is_refused_before_training(data, tmp_path):
    """They share no batch, and norms that need statistics would compute by one picture. Norms that keep those of training need none."""
    shutil.copytree(data, tmp_path / "set")
    for number, path in enumerate(sorted((tmp_path / "set" / "RGB").glob("train_*"))):
        for each in (path, tmp_path / "set" / "Label" / f"{path.stem}.png"):
            with Image.open(each) as image:
                image.resize((image.width + number, image.height), Image.Resampling.NEAREST).save(each)
    whole = {"CALIBRATION.TRANSFORM": "test", "GRID.ENABLE": False, "TEST.ENABLE": False, "SOLVER.MAX_EPOCH": 1}
    with pytest.raises(ValueError, match="calibration has 8 images of several sizes, .* set CALIBRATION.TRANSFORM train"):
        run(tmp_path / "set", tmp_path / "out", **WIDTHS, **whole)
    assert not (tmp_path / "out" / "checkpoints").exists()
    run(tmp_path / "set", tmp_path / "own", **whole)


@pytest.fixture(scope="module")
def rs_net(data, tmp_path_factory):
    return run(data, tmp_path_factory.mktemp("rs_net") / "out", **LATENCY)


def test_a_table_has_every_size_with_three_numbers(rs_net):
    table = mutual3d.load(rs_net / "adaptive.pyth").table
    assert [str(row.configuration) for row in table.rows] == ["1-32", "1-64"]
    assert table.metric == "miou" and table.metrics == ["miou", "mean_acc", "pixel_acc"]
    assert all(0 <= value <= 100 for row in table.rows for value in row.accuracy.values())
    costs = [row.gflops for row in table.rows]
    assert 3.5 < costs[1] / costs[0] < 4.2 and all(row.latency_ms for row in table.rows)


def test_the_test_has_its_numbers_and_those_of_each_class(rs_net):
    found = read_json(rs_net / "test_results.json")
    assert found["sample"] == "image" and found["num_videos"] == 4 and set(found["results"]["1-64"]) == {"miou", "pixel_acc", "mean_acc"}
    (per_class,) = read_json(rs_net / "per_class_ap.json").values()
    assert float(found["results"]["1-64"]["miou"]) == pytest.approx(np.mean(list(per_class.values())), abs=0.01)
    text = (rs_net / "report.html").read_text()
    assert "mean IoU" in text and "4 images" in text and MAP_CLASSES[0] in text
    assert "IoU in % of each class that occurs in the table's images" in text and "precision" not in text
    assert "4 images; mean IoU has no simple interval" in text


def test_the_log_shows_losses_and_validation(rs_net):
    lines = read_json_stats(rs_net / "stdout.log")
    epochs = [line for line in lines if line.get("_type") == "train_epoch"]
    assert len(epochs) == 2 and all(np.isfinite(line["loss"]) and "top1_err" not in line for line in epochs)
    assert any("miou" in line and line.get("_type") == "val_epoch" for line in lines)


def test_its_bundle_gives_maps_at_every_size(rs_net, data):
    model = mutual3d.load(rs_net / "adaptive.pyth")
    assert model.class_names == list(MAP_CLASSES)
    picture = np.array(Image.open(data / "RGB" / "val_00000.jpg"))
    # As the test saw it, a whole picture whose short side is the crop's.
    clip = resize(torch.from_numpy(picture).permute(2, 0, 1)[None], [64])
    assert clip.shape == (1, 3, 64, 85)
    for text, shape in (("1-32", (8, 11)), ("1-64", (16, 22))):
        scores = model(clip, configuration=text)
        assert scores.shape == (1, 5, *shape) and torch.allclose(scores.sum(1), torch.ones(1, *shape), atol=1e-5)
        assert class_map(scores, picture.shape[:2]).shape == (1, *picture.shape[:2])
        square = model(clip[..., :64], configuration=text)
        folded = model.network.extract(text, fold_bn=True)
        inputs = model.network.fit_clip(prepare_clip(clip[:, :, None, :, :64], torch.device("cpu"), model.preprocessing.mean, model.preprocessing.std), text)
        torch.testing.assert_close(folded(inputs).softmax(1), square, rtol=1e-3, atol=1e-4)


def test_a_row_measured_again_gives_its_numbers(rs_net, data):
    model = mutual3d.load(rs_net / "adaptive.pyth")
    loader = build_loader(load_config("Demo/NYUDv2", words(data, rs_net)), "val", "single_view")

    def prepare(clips):
        return prepare_clip(clips, torch.device("cpu"), model.preprocessing.mean, model.preprocessing.std)

    for row in model.table.rows:
        found = measure(model.network, lambda start: loader.batches(start=start), [row.configuration], prepare=prepare, metric=SegmentationScores)
        assert found[row.configuration].values() == pytest.approx(row.accuracy, abs=0.01)


def test_every_size_has_norms_of_its_own_and_the_ensemble_its_scores(rs_net):
    state = torch.load(rs_net / "checkpoints" / "checkpoint_epoch_00002.pyth", weights_only=True)
    first, second = (state["model_state"][f"backbone.body.layer2.0.bn1.norms.{i}.running_mean"] for i in range(2))
    assert not torch.equal(first, second)
    assert len(state["objective_state"]["alpha"]) == 2 and state["objective_state"]["alpha"].abs().sum() > 0


def test_a_run_that_was_killed_goes_on_to_the_same_weights(rs_net, data, tmp_path):
    output = run(data, tmp_path / "parts")
    name = "checkpoints/checkpoint_epoch_00002.pyth"
    for path in (name, "adaptive.pyth", "query_table.json", "statistics.pyth"):
        (output / path).unlink(missing_ok=True)
    run(data, tmp_path / "parts")
    whole, resumed = (torch.load(folder / name, weights_only=True) for folder in (rs_net, output))
    assert same(whole["model_state"], resumed["model_state"]) and same(whole["objective_state"], resumed["objective_state"])
    tables = [mutual3d.load(folder / "adaptive.pyth").table for folder in (rs_net, output)]
    assert [row.accuracy for row in tables[0].rows] == [row.accuracy for row in tables[1].rows]


def test_a_crop_for_each_size_is_refused_which_maps_have_not():
    """One crop for three sizes would train the largest size alone."""
    load_config("Demo/NYUDv2", ["DATA.CROP_PADDING", "4", "DATA.COLOR_JITTER", "0.4"])
    with pytest.raises(ValueError, match="MUTUAL.OWN_CROPS is True: TRAIN.DATASET nyudv2 does not read it"):
        load_config("Demo/NYUDv2", ["MUTUAL.OWN_CROPS", "True"])


def test_widths_learn_from_the_largest_configuration(data, tmp_path):
    output = run(data, tmp_path / "out", **WIDTHS, **{"TRAIN.ACCUMULATION_STEPS": 2, "TRAIN.MIXED_PRECISION": True, "SOLVER.MAX_EPOCH": 1})
    model = mutual3d.load(output / "adaptive.pyth")
    assert {str(row.configuration) for row in model.table.rows} == {"0.5-32", "0.5-64", "1-32", "1-64"}
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    assert all(model.activate(row.configuration)(images).shape[1] == 5 for row in model.table.rows)


def test_one_size_alone_is_the_baseline(data, tmp_path):
    alone = {"MUTUAL.SPATIAL_SIZES": [32, 64], "DATA.TRAIN_CROP_SIZE": 64,
    "DATA.TEST_CROP_SIZE": 64, "DATA.TRAIN_JITTER_SCALES": [64, 80], "MUTUAL.SUBNETS": ["smallest"], "MUTUAL.OBJECTIVE": "labels", "MUTUAL.BATCHNORM": "calibrated"}
    output = run(data, tmp_path / "out", **alone, **{"SOLVER.MAX_EPOCH": 1, "TEST.CONFIGURATIONS": ["1-32"]})
    assert list(read_json(output / "test_results.json")["results"]) == ["1-32"]
    static = run(data, tmp_path / "static", **{"MUTUAL.ENABLE": False, "SOLVER.MAX_EPOCH": 1})
    assert [str(row.configuration) for row in mutual3d.load(static / "adaptive.pyth").table.rows] == ["1-64"]
