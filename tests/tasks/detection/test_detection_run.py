"""A detector through the command of every other network: trained, killed, resumed, calibrated, measured, tested, and loaded again."""

import importlib
import json
import shutil

import pytest
import torch
from tiny import ROOT, same

import mutual3d
from mutual3d.cli import check_data, complexity
from mutual3d.cli import run as run_net
from mutual3d.config import find_config
from mutual3d.data.prepare.demo_coco import make_demo_coco
from mutual3d.models import create_model
from mutual3d.pipeline import load_config
from mutual3d.training import MutualStep
from mutual3d.utils.files import load_tensors, read_json, save_tensors

measure = importlib.import_module("mutual3d.evaluation.measure")  # the package gives its function this name

CONFIG = str(ROOT / "configs" / "Demo" / "COCO.yaml")
TINY = {
    "DATA.TRAIN_JITTER_SCALES": [64, 64], "DATA.TRAIN_CROP_SIZE": 64, "DATA.TEST_CROP_SIZE": 64, "MUTUAL.SPATIAL_SIZES": [32, 64], "COCO.MAX_LONG_SIDE": 104,
    "RESNET.WIDTH_PER_GROUP": 8, "MASK_RCNN.PYRAMID_CHANNELS": 16, "MASK_RCNN.BOX_FEATURES": 32, "MASK_RCNN.MASK_CHANNELS": 8,
    "MASK_RCNN.ANCHOR_SIZES": [8, 16, 32, 64, 128], "MUTUAL.WIDTH_RANGE": [0.5, 1.0], "MUTUAL.SUBNETS_START_EPOCH": 0.0, "MUTUAL.WIDTH_DIVISOR": 4,
    "TRAIN.BATCH_SIZE": 4, "TRAIN.CHECKPOINT_PERIOD": 1, "TRAIN.EVAL_PERIOD": 2, "SOLVER.MAX_EPOCH": 2, "SOLVER.BASE_LR": 0.005,
    "SOLVER.WARMUP_EPOCHS": 0.0, "CALIBRATION.NUM_CLIPS": 8, "CALIBRATION.BATCH_SIZE": 4, "GRID.WIDTH_STEP": 0.5, "GRID.LATENCY_REPEATS": 1,
    "TEST.BATCH_SIZE": 4, "PARTIAL_SAVE_SECONDS": 0.0, "TRAIN.ACCUMULATION_STEPS": 2, "RNG_SEED": 3,
}  # fmt: skip


class Killed(BaseException):
    """Nothing catches it, and nothing is saved on its account."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_demo_coco(tmp_path_factory.mktemp("coco") / "set", num_train=12, num_val=6, num_workers=1)


def run(data, output, **changes):
    values = {**TINY, "DATA.PATH_TO_DATA_DIR": data, "OUTPUT_DIR": output, **changes}
    run_net.main(["--cfg", CONFIG, *(str(word) for pair in values.items() for word in pair)])
    return output


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    return run(data, tmp_path_factory.mktemp("whole") / "out")


def killed_at(patch, owner, name, call):
    """Let call number `call` of a function kill the run."""
    original, calls = getattr(owner, name), []

    def counted(*arguments, **options):
        calls.append(1)
        if len(calls) == call:
            raise Killed
        return original(*arguments, **options)

    patch.setattr(owner, name, counted)


def test_a_run_that_was_killed_ends_as_one_that_was_not(whole, data, tmp_path):
    for owner, name, call in ((MutualStep, "__call__", 5), (measure, "score_batch", 4)):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            killed_at(patch, owner, name, call)
            run(data, tmp_path / "out")
    output = run(data, tmp_path / "out")
    name = "checkpoints/checkpoint_epoch_00002.pyth"
    assert same(*(load_tensors(folder / name)["model_state"] for folder in (whole, output)))
    tables = [mutual3d.load(folder / "adaptive.pyth").table for folder in (whole, output)]
    assert [row.accuracy for row in tables[0].rows] == [row.accuracy for row in tables[1].rows]


def test_the_table_has_box_and_mask_ap_of_every_configuration(whole):
    table = mutual3d.load(whole / "adaptive.pyth").table
    assert [str(row.configuration) for row in table.rows] == ["0.5-32", "0.5-64", "1-32", "1-64"] and table.metric == "box_ap"
    for row in table.rows:
        assert {"box_ap", "mask_ap", "box_ap50", "mask_ap50", "box_ap75", "mask_ap75"} <= row.accuracy.keys()
        assert all(0 <= value <= 100 for value in row.accuracy.values()) and row.gflops > 0 and row.latency_ms
    assert table.provenance["sample"] == "image" and table.provenance["num_videos"] == 6
    results = read_json(whole / "test_results.json")["results"]
    assert results.keys() == {"1-64"} and {"box_ap", "mask_ap"} <= results["1-64"].keys()
    text = (whole / "report.html").read_text()
    assert "box AP" in text and "mask AP" in text


def test_the_log_has_every_loss(whole):
    log = (whole / "stdout.log").read_text()
    for name in ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask"):
        assert name in log


def test_the_bundle_gives_detections_at_every_configuration(whole):
    model = mutual3d.load(whole / "adaptive.pyth")
    assert model.class_names == ["oval", "triangle", "square", "star"]
    images = torch.randint(0, 256, (2, 3, 64, 85), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for row in model.table.rows:
        found = model(images, configuration=row.configuration)
        assert len(found) == 2
        for each in found:
            count = len(each["scores"])
            assert each["boxes"].shape == (count, 4) and each["labels"].shape == (count,) and each["masks"].shape == (count, 1, 28, 28)
            assert not count or (0 <= each["boxes"].min() and each["boxes"].max() <= 1 and each["labels"].max() < 4)


def test_it_starts_from_a_classifier_and_says_what_is_new(data, tmp_path):
    space = {"width_range": [0.5, 1.0], "spatial_sizes": [64], "temporal_sizes": [1], "divisor": 4}
    torch.manual_seed(0)
    classifier = create_model("resnet2d", space=space, num_classes=5, depth=18, width_per_group=8)
    save_tensors(tmp_path / "classifier.pyth", {"epoch": 1, "model_state": classifier.state_dict(), "model_arguments": classifier.arguments})
    alone = {"GRID.ENABLE": False, "CALIBRATION.ENABLE": False, "TEST.ENABLE": False, "SOLVER.MAX_EPOCH": 1, "SOLVER.BASE_LR": 0.0}
    output = run(data, tmp_path / "out", **alone, **{"TRAIN.CHECKPOINT_FILE_PATH": tmp_path / "classifier.pyth", "SOLVER.WARMUP_START_LR": 0.0})
    state = load_tensors(output / "checkpoints" / "checkpoint_epoch_00001.pyth")["model_state"]
    for key, tensor in classifier.state_dict().items():
        if not key.startswith("fc.") and "running" not in key and "num_batches" not in key:
            assert torch.equal(state[f"backbone.body.{key}"], tensor), key
    log = (output / "stdout.log").read_text()
    assert "classifier -> mask_rcnn" in log and "2 skipped (as fc.weight)" in log and "missing (as backbone.fpn" in log


def test_a_static_detector_trains_and_is_measured(data, tmp_path):
    output = run(data, tmp_path / "out", **{"MUTUAL.ENABLE": False, "SOLVER.MAX_EPOCH": 1, "TEST.ENABLE": False})
    assert [str(row.configuration) for row in mutual3d.load(output / "adaptive.pyth").table.rows] == ["1-64"]


def test_check_data_names_images_that_are_not_as_listed(data, tmp_path, capsys):
    words = ["--csv", str(data / "annotations" / "instances_val.json"), "--path-prefix", str(data / "val"), "--num-classes", "4"]
    assert check_data.main(words) == 0 and "6 samples checked, 0 bad" in capsys.readouterr().out
    folder = tmp_path / "val"
    folder.mkdir()
    for path in (data / "val").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "00002.jpg").write_bytes(b"no image")
    words[3] = str(folder)
    assert check_data.main([*words, "--format", "coco"]) == 1
    told = capsys.readouterr().out
    assert "00002.jpg" in told and "6 samples checked, 1 bad" in told


def test_costs_are_told_before_anything_is_trained(capsys):
    complexity.main(["--cfg", "Demo/COCO", "GRID.WIDTH_STEP", "0.75"])
    told = capsys.readouterr().out
    assert "distinct configurations, widths 0.75 apart: 9" in told and "backbone " in told and "heads " in told and "MiB in fp32" in told


@pytest.mark.parametrize(
    "name, backbone, subnets",
    [
        (f"{method}{network}", backbone, subnets)
        for network, backbone in (("RESNET50", "resnet"), ("MOBILENET_V1", "mobilenet_v1"), ("MOBILENET_V2", "mobilenet_v2"), ("VGG16", "vgg16"))
        for method, subnets in (
            ("", None), ("MUTUAL_", ["smallest_width", "random", "random"]), ("US_", ["smallest_width_full_size", "random_width", "random_width"]),
        )
    ],
)  # fmt: skip
def test_configs_are_the_papers(name, backbone, subnets):
    cfg = load_config(find_config(f"COCO/{name}"))
    assert (cfg.MODEL.MODEL_NAME, cfg.MODEL.ARCH, cfg.MODEL.NUM_CLASSES) == ("MaskRCNN", backbone, 80)
    assert (cfg.DATA.TRAIN_CROP_SIZE, cfg.COCO.MAX_LONG_SIDE, cfg.SOLVER.MAX_EPOCH, cfg.TRAIN.BATCH_SIZE) == (600, 1000, 24, 16)
    assert cfg.MUTUAL.ENABLE == (subnets is not None) and cfg.MUTUAL.OBJECTIVE == "labels"
    if subnets is not None:
        assert list(cfg.MUTUAL.SUBNETS) == subnets and list(cfg.MUTUAL.WIDTH_RANGE) == [0.25, 1.0]
        assert list(cfg.MUTUAL.SPATIAL_SIZES) == [240, 360, 480, 600]


@pytest.mark.parametrize(
    "changes, message",
    [
        (["MUTUAL.OBJECTIVE", "inplace_distillation"], "every sub-network learns from the labels; set it 'labels'"),
        (["CALIBRATION.TRANSFORM", "test"], "with TRAIN.DATASET coco it must be 'train'"),
        (["COCO.MAX_LONG_SIDE", "500"], "COCO.MAX_LONG_SIDE is 500: the short sides"),
        (["MODEL.HEAD_ACT", "softmax"], "MODEL.HEAD_ACT is 'softmax': with TRAIN.DATASET coco it must be 'none'"),
        (["MODEL.LOSS_FUNC", "cross_entropy"], "with TRAIN.DATASET coco it must be own_losses"),
        (["AUG.ENABLE", "True"], "AUG.ENABLE is True: with TRAIN.DATASET coco it must be False"),
        (["MIXUP.ENABLE", "True"], "MIXUP.ENABLE is True: with TRAIN.DATASET coco it must be False"),
        (["DATA.COLOR_JITTER", "0.4"], "DATA.COLOR_JITTER is 0.4: TRAIN.DATASET coco does not read it"),
        (["DATA.TRAIN_JITTER_SCALES", "[480,800]"], r"the short side is always DATA.TRAIN_CROP_SIZE; set it \[600, 600\]"),
        (["TEST.SAVE_RESULTS_PATH", "scores.pyth"], "TEST.SAVE_RESULTS_PATH is 'scores.pyth': with TRAIN.DATASET coco it must be ''"),
        (["MODEL.ARCH", "slow"], "MODEL.ARCH is 'slow': mutual3d's MaskRCNN is built on resnet, mobilenet_v1"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        load_config("COCO/MUTUAL_VGG16", changes)


def test_a_validation_set_of_other_classes_is_refused_before_training(data, tmp_path):
    """Classes are numbered by the ids of their categories: other ids would have one measured as another."""
    shutil.copytree(data, tmp_path / "set")
    path = tmp_path / "set" / "annotations" / "instances_val.json"
    content = read_json(path)
    ids = {category["id"]: -category["id"] for category in content["categories"]}
    for category in content["categories"]:
        category["id"] = ids[category["id"]]
    for annotation in content["annotations"]:
        annotation["category_id"] = ids[annotation["category_id"]]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="have other classes: in the order of their ids number 0 is 'oval' and 'star'"):
        run(tmp_path / "set", tmp_path / "out")
    assert not (tmp_path / "out" / "checkpoints").exists()


@pytest.mark.parametrize("weights", ["adaptive.pyth", "checkpoints/checkpoint_epoch_00002.pyth"])
def test_a_set_of_other_classes_than_the_networks_is_not_measured(whole, data, tmp_path, weights):
    """Nothing is trained, so that nothing else knows what the classes of the weights were."""
    shutil.copytree(data, tmp_path / "set")
    path = tmp_path / "set" / "annotations" / "instances_val.json"
    content = read_json(path)
    for category in content["categories"]:
        category["name"] = {"oval": "square", "square": "oval"}.get(category["name"], category["name"])
    path.write_text(json.dumps(content))
    only = {"TRAIN.ENABLE": False, "GRID.ENABLE": False, "CALIBRATION.ENABLE": False, "TEST.CHECKPOINT_FILE_PATH": whole / weights}
    with pytest.raises(ValueError, match=f"{weights}' was trained on other classes .* number 0 is 'oval' there and 'square' here; .* DATA.CLASS_NAMES_PATH"):
        run(tmp_path / "set", tmp_path / "out", **only)
    (tmp_path / "names.txt").write_text("oval\ntriangle\nsquare\nstar\n")
    run(tmp_path / "set", tmp_path / "named", **only, **{"DATA.CLASS_NAMES_PATH": tmp_path / "names.txt"})
    assert (tmp_path / "named" / "test_results.json").is_file()
