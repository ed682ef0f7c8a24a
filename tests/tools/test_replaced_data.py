"""Videos are replaced on disk, under the same names, between two starts of one command: nothing old stands beside the new."""

import pytest
from tiny import overrides, tiny_network, write_set

from mutual3d.cli import run as run_net
from mutual3d.evaluation import resume
from mutual3d.table.query_table import QueryTable
from mutual3d.utils.files import load_tensors, read_json, save_tensors


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """A set, and a function of (output directory) that makes the command line: calibrate, measure the grid, test."""
    directory = tmp_path_factory.mktemp("replaced")
    data = write_set(directory / "set", num_videos=8)
    (directory / "tiny.yaml").write_text("RNG_SEED: 3\n")
    save_tensors(directory / "weights.pyth", {"model_state": tiny_network().state_dict()})
    changes = {
        "TRAIN.ENABLE": False, "TEST.CHECKPOINT_FILE_PATH": directory / "weights.pyth", "GRID.LATENCY_DEVICES": [],
        "GRID.WIDTH_STEP": 0.5, "TEST.NUM_ENSEMBLE_VIEWS": 1, "TEST.NUM_SPATIAL_CROPS": 1, "TEST.BATCH_SIZE": 2,
    }  # fmt: skip

    def command_line(output, **more):
        return ["--cfg", str(directory / "tiny.yaml"), *overrides(data, output, **changes, **more)]

    return data, command_line


def results(output):
    """All that a run says of its data."""
    table = QueryTable.load(output / "query_table.json")
    statistics = load_tensors(output / "statistics.pyth")["statistics"]
    mean = {c: {name: values.tolist() for name, values in own["mean"].items()} for c, own in statistics.items()}
    accuracies = {str(row.configuration): row.accuracy for row in table.rows}
    return accuracies, mean, read_json(output / "test_results.json")["results"], table.provenance["fingerprint"]


def stop_in_the_grid(monkeypatch, batches):
    """Raise where a kill would leave the partial result of the grid after some batches on disk."""
    save = resume.PartialResult.save

    def save_and_stop(self, done, state, force=False):
        save(self, done, state, force)
        if self.path is not None and ".grid" in self.path.name and done == batches:
            raise KeyboardInterrupt

    monkeypatch.setattr(resume.PartialResult, "save", save_and_stop)


def run_and_read_log(arguments, output):
    log = output / "stdout.log"
    before = len(log.read_text()) if log.is_file() else 0
    run_net.main(arguments(output))
    return log.read_text()[before:]


def test_results_of_replaced_videos_are_all_new(arguments, tmp_path):
    data, command_line = arguments
    output = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_in_the_grid(patch, batches=2)
        run_net.main(command_line(output, PARTIAL_SAVE_SECONDS=0))
    assert list(output.glob(".grid*")) and (output / "statistics.pyth").is_file()

    write_set(data, num_videos=8, num_frames=7)
    log = run_and_read_log(command_line, output)
    assert "statistics.pyth' belongs to other weights, data or settings: it is computed again" in log
    assert ".grid.rank0of1' belongs to other data, weights or settings: starting over" in log
    run_net.main(command_line(tmp_path / "fresh"))
    replaced = results(output)
    assert replaced == results(tmp_path / "fresh")

    log = run_and_read_log(command_line, output)
    assert "calibrated statistics from" in log and "the grid was measured before" in log and "again" not in log

    # One video of a finished run: the other class's pictures under its name.
    (data / "0.mp4").write_bytes((data / "1.mp4").read_bytes())
    log = run_and_read_log(command_line, output)
    assert "query_table.json' belongs to other weights, data or settings: it is measured again" in log
    assert "it is computed again" in log and "starting over" not in log
    again = results(output)
    assert again[1] != replaced[1] and again[3] != replaced[3]
    run_net.main(command_line(tmp_path / "fresh again"))
    assert again == results(tmp_path / "fresh again")
