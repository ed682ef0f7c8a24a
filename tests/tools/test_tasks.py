"""Several labels a clip, boxes and images through the same command as Kinetics: train, calibrate, measure, test, predict."""

import csv
import shutil

import pytest
import torch
from tiny import overrides, same, tiny_network, write_set

import mutual3d
from mutual3d.cli import predict
from mutual3d.cli import run as run_net
from mutual3d.data.prepare.demo_ava import make_demo_ava
from mutual3d.data.prepare.demo_charades import make_demo_charades
from mutual3d.pipeline.page import write_page_without_data
from mutual3d.utils.files import read_json, save_tensors
from mutual3d.utils.logging import read_json_stats

SEVERAL = {"MODEL.LOSS_FUNC": "bce_logit", "MODEL.HEAD_ACT": "sigmoid", "MODEL.NUM_CLASSES": 8, "TRAIN.CHECKPOINT_RESET_HEAD": True}


def run(tmp_path, data, **changes):
    config = tmp_path / "tiny.yaml"
    config.write_text("RNG_SEED: 3\n")
    output = tmp_path / "out"
    run_net.main(["--cfg", str(config), *overrides(data, output, **changes)])
    return output


def half_of(whole, directory):
    """The output in `directory` of the same run when its first epoch of two was over."""
    output = shutil.copytree(whole, directory / "out")
    (output / "checkpoints" / "checkpoint_epoch_00002.pyth").unlink()
    return output


def finished_checkpoint(path, num_classes=2):
    """A Kinetics-style run's last checkpoint: 300 epochs are behind it."""
    torch.manual_seed(0)
    save_tensors(path, {"epoch": 300, "model_state": tiny_network(num_classes).state_dict()})
    return path


@pytest.fixture(scope="module")
def charades(tmp_path_factory):
    directory = tmp_path_factory.mktemp("charades")
    data = make_demo_charades(directory / "set", num_train=8, num_val=8, num_test=8, num_workers=1)
    changes = {
        **SEVERAL, "TRAIN.DATASET": "charades", "TEST.DATASET": "charades", "DATA.MULTI_LABEL": True,
        "DATA.ENSEMBLE_METHOD": "max", "TRAIN.CHECKPOINT_FILE_PATH": finished_checkpoint(directory / "k.pyth"),
        "TEST.NUM_SPATIAL_CROPS": 1,
    }  # fmt: skip
    return run(directory, data, **changes), data


def test_several_labels_train_to_a_table_of_mean_average_precision(charades, capsys):
    output, data = charades
    table = mutual3d.load(output / "adaptive.pyth").table
    assert table.metric == "map" and len(table) > 4 and all(0 < table.accuracy(row) <= 100 for row in table.rows)
    results = read_json(output / "test_results.json")["results"]
    per_class = read_json(output / "per_class_ap.json")
    assert list(results) == list(per_class) == ["1-24-4"]
    assert float(results["1-24-4"]["map"]) == pytest.approx(sum(per_class["1-24-4"].values()) / len(per_class["1-24-4"]), abs=0.01)


def test_the_page_of_several_labels_shows_videos_with_their_highest_scores(charades):
    text = (charades[0] / "report.html").read_text()
    assert 1 <= text.count("data:image/jpeg") <= 8 and "Behind each colon are the highest scores" in text
    best = mutual3d.load(charades[0] / "adaptive.pyth").table.pareto_front()[-1].configuration
    assert f"What {best} made of single videos" in text
    assert write_page_without_data(charades[0]).read_text() == text


def test_fine_tuning_a_finished_checkpoint_trains_all_its_epochs(charades):
    log = (charades[0] / "stdout.log").read_text()
    assert '"epoch": "1/2"' in log and '"epoch": "2/2"' in log and "start anew" in log


def test_sigmoid_scores_of_a_prediction_do_not_sum_to_one(charades, tmp_path, capsys):
    video = write_set(tmp_path, num_videos=1) / "0.mp4"
    predict.main(["--model", str(charades[0] / "adaptive.pyth"), "--video", str(video), "--views", "2"])
    printed = capsys.readouterr().out
    model = mutual3d.load(charades[0] / "adaptive.pyth")
    assert model.preprocessing.activation == "sigmoid" and model.preprocessing.ensemble == "max"
    assert printed.count("%") == 5 and "sweep" in printed or "flow" in printed or "shuttle" in printed


@pytest.fixture(scope="module")
def ava(tmp_path_factory):
    directory = tmp_path_factory.mktemp("ava")
    data = make_demo_ava(directory / "set", num_train=2, num_val=2, num_workers=1)
    changes = {
        **SEVERAL, "TRAIN.DATASET": "ava", "TEST.DATASET": "ava", "DETECTION.ENABLE": True, "AVA.FIRST_SECOND": 0,
        "AVA.FRAME_DIR": data / "frames", "AVA.FRAME_LIST_DIR": data / "frame_lists",
        "AVA.ANNOTATION_DIR": data / "annotations", "AVA.TRAIN_PREDICT_BOX_LISTS": ["ava_train_predicted_boxes.csv"],
        "RESNET.SPATIAL_STRIDES": [[1], [2], [1], [1]], "RESNET.SPATIAL_DILATIONS": [[1], [1], [2], [4]],
        "CALIBRATION.TRANSFORM": "train", "TEST.SPLIT": "val", "TRAIN.CHECKPOINT_FILE_PATH": finished_checkpoint(directory / "k.pyth"),
        "TRAIN.ACCUMULATION_STEPS": 2, "TRAIN.MIXED_PRECISION": True,
    }  # fmt: skip
    return run(directory, data, **changes), data


def test_boxes_train_to_a_table_and_a_file_of_results(ava):
    output, data = ava
    table = mutual3d.load(output / "adaptive.pyth").table
    assert table.metric == "map" and all(row.latency_ms and row.gflops > 0 for row in table.rows)
    with open(output / "detections_1-24-4.csv", newline="") as file:
        rows = list(csv.reader(file))
    boxes = {tuple(row[:6]) for row in rows}
    assert all(len(row) == 8 and 0 <= float(row[7]) <= 1 for row in rows)
    assert len(rows) % len(boxes) == 0 and {row[0] for row in rows} == {"val_00", "val_01"}


def test_the_page_of_boxes_counts_keyframes_and_a_box_command(ava):
    output, _ = ava
    table, text = mutual3d.load(output / "adaptive.pyth").table, (output / "report.html").read_text()
    count = table.provenance["num_videos"]
    assert f"Measured on {count} keyframes" in text and f"{count} videos" not in text and "view a keyframe" in text
    assert 1 <= text.count("data:image/jpeg") <= 8 and "the highest score of every box" in text
    assert read_json(output / "test_results.json")["sample"] == "keyframe" and "--boxes boxes.csv" in text


def test_boxes_of_a_csv_are_classified_and_drawn(ava, tmp_path, capsys):
    output, data = ava
    video = sorted((data / "videos").glob("val*.mp4"))[0]
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("second,x1,y1,x2,y2\n1,0.1,0.1,0.4,0.5\n1,0.5,0.4,0.9,0.9\n2.5,0.2,0.2,0.6,0.8\n")
    words = ["--model", output / "adaptive.pyth", "--video", video, "--boxes", boxes, "--output", tmp_path / "drawn.mp4"]
    predict.main([str(word) for word in words])
    printed = capsys.readouterr().out
    assert printed.count("box 0.") == 3 and "3 boxes" in printed
    assert (tmp_path / "drawn.mp4").stat().st_size > 1000
    with pytest.raises(ValueError, match="this model classifies boxes: give --boxes CSV or --detector WEIGHTS"):
        predict.main([str(word) for word in words[:4]])
    boxes.write_text("99,0.1,0.1,0.4,0.5\n")
    with pytest.raises(ValueError, match="it has no second 99"):
        predict.main([str(word) for word in words])


IMAGES = {
    "TRAIN.DATASET": "digits", "TEST.DATASET": "digits", "MODEL.MODEL_NAME": "WideResNet", "MODEL.NUM_CLASSES": 10,
    "WIDERESNET.DEPTH": 10, "WIDERESNET.WIDEN_FACTOR": 1, "DATA.NUM_FRAMES": 1, "DATA.TRAIN_JITTER_SCALES": [16, 16],
    "DATA.TRAIN_CROP_SIZE": 16, "DATA.TEST_CROP_SIZE": 16, "MUTUAL.SPATIAL_SIZES": [12, 16], "MUTUAL.TEMPORAL_SIZES": [1],
    "TRAIN.BATCH_SIZE": 256, "TEST.BATCH_SIZE": 400, "TEST.NUM_ENSEMBLE_VIEWS": 1, "TEST.NUM_SPATIAL_CROPS": 1,
    "SOLVER.MAX_EPOCH": 1, "CALIBRATION.NUM_CLIPS": 64, "CALIBRATION.BATCH_SIZE": 32, "GRID.LATENCY_DEVICES": [],
}  # fmt: skip
METHODS = {
    "mutual": {"MUTUAL.SUBNETS": ["smallest_width", "random", "random"], "GRID.LATENCY_DEVICES": ["cpu"]},
    "us_net": {"MUTUAL.SUBNETS": ["smallest_width_full_size", "random_width", "random_widths"], "CALIBRATION.AVERAGE": "moving"},
    "s_net": {"MUTUAL.SUBNETS": ["each_width"], "MUTUAL.WIDTHS": [0.5, 1.0], "MUTUAL.BATCHNORM": "private_width",
              "MUTUAL.OBJECTIVE": "labels", "MUTUAL.LARGEST": False, "MUTUAL.SPATIAL_SIZES": [16]},
    "rs_net": {"GRID.LATENCY_DEVICES": ["cpu"], "MUTUAL.SUBNETS": ["each_size"], "MUTUAL.BATCHNORM": "private_size", "MUTUAL.WIDTH_RANGE": [1.0, 1.0],
               "MUTUAL.OBJECTIVE": "ensemble_distillation", "MUTUAL.LARGEST": False, "GRID.INTERPOLATED_SIZES": [14, 20, 8]},
    "parallel_shared": {"MUTUAL.SUBNETS": ["each_size"], "MUTUAL.BATCHNORM": "shared", "MUTUAL.WIDTH_RANGE": [1.0, 1.0],
                        "MUTUAL.OBJECTIVE": "labels", "MUTUAL.LARGEST": False, "MUTUAL.OWN_CROPS": True, "DATA.CROP_PADDING": 2},
    "multi_scale": {"MUTUAL.SUBNETS": ["random_size"], "MUTUAL.LARGEST": False, "MUTUAL.OBJECTIVE": "labels",
                    "MUTUAL.WIDTH_RANGE": [1.0, 1.0]},
    "us_net_multi_scale": {"MUTUAL.SUBNETS": ["shared_size", "smallest_width_shared_size"], "MUTUAL.LARGEST": False},
    "private_sizes_and_widths": {"MUTUAL.SUBNETS": ["smallest_width", "random", "random"], "MUTUAL.BATCHNORM": "private_size"},
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_images_to_a_table(method, tmp_path):
    output = run(tmp_path, "", **{**IMAGES, **METHODS[method]})
    model = mutual3d.load(output / "adaptive.pyth")
    rows = {str(row.configuration): row for row in model.table.rows}
    expected = {"s_net": {"0.5-16", "1-16"}, "rs_net": {"1-8", "1-12", "1-14", "1-16", "1-20"}, "multi_scale": {"1-12", "1-16"},
                "parallel_shared": {"1-12", "1-16"}}  # fmt: skip
    assert rows.keys() == expected.get(method, rows.keys()) and "1-16" in rows
    assert all(bool(row.latency_ms) == (method in ("mutual", "rs_net")) for row in rows.values())
    # What training keeps statistics of is measured with those, and all else calibrated.
    keeps_all = method in ("s_net", "rs_net", "parallel_shared")
    assert {str(c) for c in model.network.statistics} == (set() if keeps_all else rows.keys())
    images = torch.randint(0, 256, (2, 3, *[model.preprocessing.crop] * 2), dtype=torch.uint8)
    assert model.preprocessing.crop == (20 if method == "rs_net" else 16)
    for text in rows:
        assert torch.allclose(model.activate(text)(images).sum(1), torch.ones(2), atol=1e-5)
    assert model.class_names[3] == "3" or len(model.class_names) == 10


@pytest.mark.parametrize("method", ["s_net", "rs_net"])
def test_methods_are_the_same_for_video(method, tmp_path):
    changes = {key: value for key, value in METHODS[method].items() if "SIZES" not in key}
    output = run(tmp_path, write_set(tmp_path / "set"), **{**changes, "TEST.ENABLE": False, "SOLVER.MAX_EPOCH": 1})
    table = mutual3d.load(output / "adaptive.pyth").table
    texts = {str(row.configuration) for row in table.rows}
    calibrated = {str(c) for c in mutual3d.load(output / "adaptive.pyth").network.statistics}
    # Private widths have statistics of their own at the largest size alone: the other sizes are calibrated.
    assert calibrated == (texts - {"0.5-24-4", "1-24-4"} if method == "s_net" else set())
    if method == "rs_net":
        assert texts == {"1-16-2", "1-16-4", "1-24-2", "1-24-4"}
        state = torch.load(next((output / "checkpoints").iterdir()), weights_only=True)
        alpha = state["objective_state"]["alpha"]
        assert len(alpha) == 4 and alpha.abs().sum() > 0
        (told,) = [entry["ensemble"] for entry in read_json_stats(output / "stdout.log") if entry.get("_type") == "train_epoch"]
        assert [told[c] for c in ("1-24-4", "1-24-2", "1-16-4", "1-16-2")] == pytest.approx(alpha.softmax(0).tolist(), abs=1e-5)
        assert told.keys() == texts
        page = (output / "report.html").read_text()
        assert "The ensemble that teaches" in page and "Norms of their own" in page and f"{100 * told['1-24-4']:.1f} %" in page


FFN = {"MUTUAL.SUBNETS": ["each_temporal"], "MUTUAL.LARGEST": False, "MUTUAL.BATCHNORM": "private_frames", "MUTUAL.TEMPORAL_ADAPTERS": True,
       "MUTUAL.TEMPORAL_SIZES": [1, 2, 4], "MUTUAL.WIDTH_RANGE": [1.0, 1.0], "MUTUAL.SPATIAL_SIZES": [24], "GRID.UNSEEN_FRAMES": [3]}  # fmt: skip
FFN_WIDTHS = {**FFN, "MUTUAL.SUBNETS": ["each_temporal", "smallest", "random"], "MUTUAL.WIDTH_RANGE": [0.5, 1.0], "GRID.WIDTH_STEP": 0.5}


@pytest.mark.parametrize("method", ["alone", "with_widths"])
def test_ffn_trains_videos_to_a_table_with_a_number_of_frames_that_was_not_trained(method, tmp_path):
    data, changes = write_set(tmp_path / "set"), FFN if method == "alone" else FFN_WIDTHS
    output = run(tmp_path, data, **{**changes, "TEST.CONFIGURATIONS": ["1-24-3"]})
    model = mutual3d.load(output / "adaptive.pyth")
    texts = {str(row.configuration) for row in model.table.rows}
    whole = {"1-24", "1-24-2", "1-24-3", "1-24-4"}
    assert texts == (whole if method == "alone" else whole | {text.replace("1-24", "0.5-24") for text in whole})
    # Numbers of frames at the max width have running statistics of their own, narrow ones are calibrated.
    assert {str(c) for c in model.network.statistics} == texts - whole
    assert list(read_json(output / "test_results.json")["results"]) == ["1-24-3"]
    filters = {key: value for key, value in model.network.state_dict().items() if ".adapter.filters." in key}
    assert len({float(value.abs().sum()) for value in filters.values()}) == len(filters) > 6
    for text in texts:
        told = model.activate(text).predict(data / "0.mp4").top(2)
        assert sum(probability for _, probability in told) == pytest.approx(1, abs=1e-5)
    assert "Norms of their own" in (output / "report.html").read_text()


def test_ffn_resumes_to_the_bit(tmp_path):
    data = write_set(tmp_path / "set")
    changes = {**FFN_WIDTHS, "TEST.ENABLE": False, "GRID.ENABLE": False, "CALIBRATION.ENABLE": False}
    (tmp_path / "whole").mkdir()
    whole = run(tmp_path / "whole", data, **changes)
    parts = half_of(whole, tmp_path / "parts")
    run(tmp_path / "parts", data, **changes)
    first, second = (torch.load(directory / "checkpoints/checkpoint_epoch_00002.pyth", weights_only=True) for directory in (whole, parts))
    assert same(first["model_state"], second["model_state"]) and same(first["optimizer_state"], second["optimizer_state"])
    before = torch.load(whole / "checkpoints/checkpoint_epoch_00001.pyth", weights_only=True)["model_state"]
    moved = [key for key, value in first["model_state"].items() if ".adapter." in key and not torch.equal(before[key], value)]
    assert len(moved) == sum(".adapter." in key for key in before)


def test_sizes_beyond_the_trained_ones_see_larger_views_and_the_trained_ones_what_they_had(tmp_path):
    """RS-Net's Table 8. The digits are not cut, so that the accuracies of the trained sizes can be compared."""
    (tmp_path / "beyond").mkdir()
    (tmp_path / "plain").mkdir()
    changes = {**IMAGES, **METHODS["rs_net"], "TEST.ENABLE": True}
    beyond = run(tmp_path / "beyond", "", **{**changes, "GRID.INTERPOLATED_SIZES": [24, 32]})
    plain = run(tmp_path / "plain", "", **{**changes, "GRID.INTERPOLATED_SIZES": []})
    first, second = (mutual3d.load(output / "adaptive.pyth") for output in (beyond, plain))
    rows, alone = ({str(row.configuration): row for row in model.table.rows} for model in (first, second))
    assert rows.keys() == {"1-12", "1-16", "1-24", "1-32"} and first.preprocessing.crop == 32 and second.preprocessing.crop == 16
    for text in alone:
        assert rows[text].gflops == alone[text].gflops
        assert rows[text].accuracy["top1_acc"] == pytest.approx(alone[text].accuracy["top1_acc"], abs=6)
    assert rows["1-32"].gflops == pytest.approx(4 * rows["1-16"].gflops, rel=0.02)
    assert list(read_json(beyond / "test_results.json")["results"]) == ["1-16"]
    validated = [[e["top1_err"] for e in read_json_stats(output / "stdout.log") if e.get("_type") == "val_epoch"] for output in (beyond, plain)]
    assert validated[0] == validated[1]


def test_statistics_of_its_own_may_be_calibrated_all_the_same(tmp_path):
    output = run(tmp_path, "", **{**IMAGES, **METHODS["s_net"], "TEST.ENABLE": False, "CALIBRATION.OWN_STATISTICS": True})
    assert {str(c) for c in mutual3d.load(output / "adaptive.pyth").network.statistics} == {"0.5-16", "1-16"}
    assert "keep them (CALIBRATION.OWN_STATISTICS False)" not in (output / "stdout.log").read_text()
    run(tmp_path, "", **{**IMAGES, **METHODS["s_net"], "TEST.ENABLE": False})
    assert not mutual3d.load(output / "adaptive.pyth").network.statistics
    assert "2 of 2 configurations have running statistics of their own" in (output / "stdout.log").read_text()


def test_resuming_goes_on_with_what_the_objective_has_learned(tmp_path):
    changes = {**IMAGES, **METHODS["rs_net"], "TRAIN.CHECKPOINT_PERIOD": 1, "SOLVER.MAX_EPOCH": 2, "TEST.ENABLE": False,
               "GRID.ENABLE": False, "DATA.CROP_PADDING": 2}  # fmt: skip
    (tmp_path / "whole").mkdir()
    whole = run(tmp_path / "whole", "", **changes)
    output = half_of(whole, tmp_path / "parts")
    run(tmp_path / "parts", "", **changes)
    name = "checkpoints/checkpoint_epoch_00002.pyth"
    first, second = (torch.load(directory / name, weights_only=True) for directory in (whole, output))
    assert torch.equal(first["objective_state"]["alpha"], second["objective_state"]["alpha"])
    assert all(torch.equal(value, second["model_state"][key]) for key, value in first["model_state"].items())


def test_another_recipe_in_the_same_directory_is_refused(charades, tmp_path):
    """Fine-tuning the largest alone, then adaptively, into one directory must not pass the first network off as the second."""
    changes = {**IMAGES, **METHODS["multi_scale"], "GRID.ENABLE": False, "CALIBRATION.ENABLE": False, "TEST.ENABLE": False}
    run(tmp_path, "", **changes)
    with pytest.raises(ValueError, match="belongs to another run .*MUTUAL.SUBNETS.*choose another OUTPUT_DIR"):
        run(tmp_path, "", **{**changes, **METHODS["mutual"]})
    run(tmp_path, "", **{**changes, "SOLVER.MAX_EPOCH": 2})


def test_a_network_that_is_not_adaptive_is_saved_to_predict_with(tmp_path, capsys):
    output = run(tmp_path, write_set(tmp_path / "set"), **{"MUTUAL.ENABLE": False, "TEST.ENABLE": False, "SOLVER.MAX_EPOCH": 1})
    predict.main(["--model", str(output / "adaptive.pyth"), "--video", str(tmp_path / "set" / "0.mp4")])
    assert "configuration 1-24-4" in capsys.readouterr().out
    with pytest.raises(ValueError, match="--boxes and --detector are for models that classify boxes"):
        predict.main(["--model", str(output / "adaptive.pyth"), "--video", "0.mp4", "--boxes", "b.csv"])
