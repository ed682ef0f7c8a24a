"""A whole run over a set in which one video kills every decoder, and one is never done."""

import os

from harm import crash, hang
from tiny import overrides, write_set

from mutual3d.cli import run as run_net
from mutual3d.data.datasets import kinetics
from mutual3d.table.query_table import QueryTable


def test_a_run_ends_without_the_videos_that_crash_or_hang_and_names_them(tmp_path, monkeypatch):
    data = write_set(tmp_path / "set")
    (tmp_path / "tiny.yaml").write_text("RNG_SEED: 3\n")
    harm = {"3.mp4": crash, "8.mp4": hang}
    open_video = kinetics.open_video

    def open_or_harm(path, *arguments, **options):
        name = os.path.basename(path)
        if name in harm:
            with open(tmp_path / f"{name}.tried", "a") as file:
                file.write("x")
            harm[name]()
        return open_video(path, *arguments, **options)

    monkeypatch.setattr(kinetics, "open_video", open_or_harm)
    changes = {
        "DATA_LOADER.NUM_WORKERS": 1, "DATA_LOADER.TIMEOUT": 1.0, "DATA_LOADER.MAX_UNREADABLE_TRAIN": 0.2,
        "DATA_LOADER.MAX_UNREADABLE_TEST": 0.2, "CALIBRATION.NUM_CLIPS": 0, "GRID.LATENCY_DEVICES": [], "GRID.WIDTH_STEP": 0.5,
    }  # fmt: skip
    output = tmp_path / "out"
    run_net.main(["--cfg", str(tmp_path / "tiny.yaml"), *overrides(data, output, **changes)])
    log = (output / "stdout.log").read_text()
    assert "cannot read" in log and "3.mp4': its decoder crashed (the process died of SIGSEGV)" in log
    assert "8.mp4': it did not answer within 1 s (DATA_LOADER.TIMEOUT)" in log
    assert QueryTable.load(output / "query_table.json").provenance["num_videos"] == 10
    # Two tries, as the death of a process may be another's fault; then no epoch and no stage tries again.
    assert (tmp_path / "3.mp4.tried").read_text() == "xx" and (tmp_path / "8.mp4.tried").read_text() == "x"
