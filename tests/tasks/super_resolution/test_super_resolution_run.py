"""Super-resolution through the same command as everything: trained, killed and resumed, measured, loaded."""

import multiprocessing
import os
import signal

import pytest
import torch
from published import write_div2k
from tiny import same

import mutual3d
from mutual3d.cli import run as run_net
from mutual3d.pipeline import load_config
from mutual3d.table.query_table import QueryTable
from mutual3d.tasks.super_resolution.metric import PeakSignalToNoise
from mutual3d.tasks.super_resolution.pairs import open_div2k
from mutual3d.training import MutualStep
from mutual3d.utils.files import load_tensors, read_json
from mutual3d.utils.logging import read_json_stats

CHANGES = {
    "NUM_GPUS": 0, "DATA_LOADER.NUM_WORKERS": 0, "WDSR.NUM_FEATURES": 8, "WDSR.NUM_BLOCKS": 2, "WDSR.EXPANSION": 2,
    "SUPER_RESOLUTION.PATCHES_PER_IMAGE": 4, "DATA.TRAIN_CROP_SIZE": 16, "DATA.TEST_CROP_SIZE": 16, "MUTUAL.SPATIAL_SIZES": [16],
    "TRAIN.BATCH_SIZE": 4, "TRAIN.CHECKPOINT_PERIOD": 1, "TRAIN.EVAL_PERIOD": 1, "SOLVER.MAX_EPOCH": 2, "SOLVER.LR_POLICY": "cosine",
    "GRID.WIDTH_STEP": 0.25, "GRID.LATENCY_REPEATS": 1, "GRID.RUNTIMES": ["torch"], "LOG_PERIOD": 1, "PARTIAL_SAVE_SECONDS": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_div2k(tmp_path_factory.mktemp("set"))


def words(data, output, config="DIV2K/US_WDSR", **changes):
    values = {**CHANGES, "DATA.PATH_TO_DATA_DIR": data, "OUTPUT_DIR": output, **changes}
    return ["--cfg", config, *(str(word) for pair in values.items() for word in pair)]


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "out"
    run_net.main(words(data, output))
    return output


def test_the_table_has_psnr_in_dB_at_every_width(finished):
    table = QueryTable.load(finished / "query_table.json")
    assert [str(row.configuration) for row in table.rows] == ["0.5-16", "0.75-16", "1-16"]
    assert table.metric == "psnr" and table.provenance["metrics"]["psnr"]["unit"] == "dB"
    assert table.provenance["num_videos"] == 3 and table.provenance["sample"] == "image"
    assert all(5 < row.accuracy["psnr"] < 60 and row.latency_ms for row in table.rows)
    costs = [row.gflops for row in table.rows]
    assert costs == sorted(costs) and costs[0] > 0
    results = read_json(finished / "test_results.json")
    assert float(results["results"]["1-16"]["psnr"]) == pytest.approx(table.rows[-1].accuracy["psnr"], abs=0.01)


def test_the_page_names_what_such_a_network_can_do_alone(finished):
    text = (finished / "report.html").read_text()
    assert "found = model(images_B3HW)" in text and "it gives larger images" in text and "mutual3d select" in text
    assert "mutual3d predict" not in text and "mutual3d export" not in text


def test_there_is_nothing_to_calibrate(finished):
    model = mutual3d.load(finished / "adaptive.pyth")
    assert not any(statistics.mean for statistics in model.network.statistics.values())
    assert model.network.can_evaluate("0.61-16")


@torch.no_grad()
def test_the_bundle_gives_the_images_that_were_measured(finished, data):
    model = mutual3d.load(finished / "adaptive.pyth")
    pairs = open_div2k(data, "val", 2)
    for row in model.table.rows:
        metric = PeakSignalToNoise(2)
        for index in range(len(pairs)):
            low, high = (torch.from_numpy(image.copy()).permute(2, 0, 1)[None] for image in pairs.read(index))
            image = model(low, configuration=row.configuration)
            assert image.shape == high.shape and image.dtype == torch.float32
            metric.update(image, type("Batch", (), {"labels": high}))
        assert metric.values() == pytest.approx(row.accuracy, abs=1e-3)


def test_epochs_are_validated_in_dB(finished):
    stats = [row for row in read_json_stats(finished / "stdout.log") if row.get("_type") == "val_epoch"]
    assert [row["epoch"] for row in stats] == ["1/2", "2/2"] and all(5 < row["psnr"] < 60 for row in stats)


@pytest.mark.parametrize("config", ["DIV2K/WDSR_32", "DIV2K/US_WDSR_LABELS"])
def test_the_other_configs_run(data, tmp_path, config):
    changes = {"SOLVER.MAX_EPOCH": 1, "GRID.LATENCY_DEVICES": [], "TEST.ENABLE": False}
    run_net.main(words(data, tmp_path / "out", config, **changes))
    assert QueryTable.load(tmp_path / "out/query_table.json").rows[-1].accuracy["psnr"] > 5


def die_at(original, number):
    """A function whose call of this number is the last one of its process."""
    count = [0]

    def counted(*arguments, **options):
        count[0] += 1
        if count[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    return counted


def killed_run(arguments, patch):
    """A run in a process of its own, which kills itself where `patch` says."""

    def child():
        torch.set_num_threads(1)
        patch()
        run_net.main(arguments)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL


def test_killed_training_and_a_killed_grid_go_on_and_end_the_same_to_the_bit(finished, data, tmp_path):
    arguments = words(data, tmp_path / "killed", **{"GRID.LATENCY_DEVICES": []})

    def in_the_second_epoch():
        MutualStep.__call__ = die_at(MutualStep.__call__, 5)

    def in_the_grid():
        # The second epoch is validated on three images; of the grid the second image is not seen at its first configuration.
        PeakSignalToNoise.update = die_at(PeakSignalToNoise.update, 3 + 4)

    killed_run(arguments, in_the_second_epoch)
    assert (tmp_path / "killed/checkpoints/checkpoint_epoch_00001.pyth").is_file()
    killed_run(arguments, in_the_grid)
    assert not (tmp_path / "killed/query_table.json").exists()
    assert any((tmp_path / "killed").glob(".grid*"))
    run_net.main(arguments)
    whole, resumed = (load_tensors(output / "checkpoints/checkpoint_epoch_00002.pyth") for output in (finished, tmp_path / "killed"))
    for part in ("model_state", "optimizer_state"):
        assert same(whole[part], resumed[part]), part
    tables = [QueryTable.load(output / "query_table.json") for output in (finished, tmp_path / "killed")]
    assert [row.accuracy for row in tables[0].rows] == [row.accuracy for row in tables[1].rows]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"MUTUAL.SPATIAL_SIZES": [12, 16]}, "MUTUAL.SPATIAL_SIZES"),
        ({"MODEL.LOSS_FUNC": "cross_entropy"}, "MODEL.LOSS_FUNC is 'cross_entropy': with TRAIN.DATASET div2k it must be l1 or l2"),
        ({"MIXUP.ENABLE": True}, "MIXUP.ENABLE is True: with TRAIN.DATASET div2k it must be False"),
        ({"AUG.ENABLE": True}, "AUG.ENABLE is True"),
        ({"DATA.COLOR_JITTER": 0.4}, "DATA.COLOR_JITTER is 0.4: TRAIN.DATASET div2k does not read it"),
        ({"MODEL.HEAD_ACT": "softmax"}, "MODEL.HEAD_ACT is 'softmax': with TRAIN.DATASET div2k it must be 'none'"),
        ({"TEST.SAVE_RESULTS_PATH": "scores.pyth"}, "TEST.SAVE_RESULTS_PATH is 'scores.pyth': with TRAIN.DATASET div2k it must be ''"),
        ({"MODEL.NUM_CLASSES": 10}, "MODEL.NUM_CLASSES is 10"),
    ],
)
def test_settings_that_do_not_go_with_it_are_refused_before_anything_runs(data, tmp_path, changes, message):
    _, config, *values = words(data, tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        load_config(config, values)
