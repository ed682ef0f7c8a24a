"""A scan on Ray: the rows of a local one, also where an actor is killed on the way. Skipped where Ray is not installed."""

import os
import signal
from pathlib import Path

import pytest
from streams import make_stream_model
from tiny import write_set

from mutual3d.deploy import scan
from mutual3d.deploy.scan import Scanner, parts_of
from mutual3d.deploy.scan_ray import scan_on_ray

ray = pytest.importorskip("ray", reason="an optional package")
pytest.importorskip("ray.data", reason="an optional package")


def actors_below(pid):
    """The processes of Ray's map workers that this process started."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, parent = (folder / "cmdline").read_text(), int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if parent == pid:
            found |= {int(folder.name)} if name.startswith("ray::") and "Map" in name else actors_below(int(folder.name))
    return found


def test_two_actors_give_the_rows_of_one_machine_and_a_killed_one_costs_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(scan, "_USUAL_VIDEOS", 5)
    write_set(tmp_path, num_videos=6, splits=())
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    paths = [str(tmp_path / f"{k % 6}.mp4") for k in range(99)] + [str(tmp_path / "bad.mp4")]
    parts = parts_of(paths)
    model = make_stream_model()
    here = Scanner(model, workers=0)
    expected = list(here.scan_in_order(parts))
    found, killed = {}, set()
    for number, table in scan_on_ray(Scanner(model), parts, "local", num_actors=2):
        found[number] = table
        if not killed:
            killed = actors_below(os.getpid())
            os.kill(min(killed), signal.SIGKILL)
    assert killed and sorted(found) == list(range(20))
    assert [found[number].rows for number in range(20)] == [table.rows for table in expected]
    assert [bad.path for bad in found[19].bad] == [str(tmp_path / "bad.mp4")]
    assert not ray.is_initialized()
