"""Finding unreadable videos."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from videos import moving_frames, write_audio, write_video

from mutual3d.data.check import check_videos

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def listing(tmp_path):
    write_video(tmp_path / "good one.mp4", moving_frames(10))
    write_audio(tmp_path / "sound.mp4")
    (tmp_path / "list.csv").write_text("good one.mp4 0\nsound.mp4 1\ngone.mp4 1\n")
    return tmp_path / "list.csv"


@pytest.mark.parametrize("num_workers", [0, 1])
def test_rows_in_order(listing, num_workers):
    videos = [(str(listing.parent / name), 0) for name in ("good one.mp4", "sound.mp4", "gone.mp4")]
    good, sound, gone = check_videos(videos, num_workers=num_workers)
    assert good is None and sound.index == 1 and "no video stream" in sound.cause and "not exist" in gone.cause


def test_full_check_finds_what_the_quick_one_cannot(tmp_path):
    path = write_video(tmp_path / "clip.mkv", moving_frames(60, 96, 128), gop=10)
    data = bytearray(path.read_bytes())
    for place in range(len(data) * 3 // 4, len(data) * 3 // 4 + 40):
        data[place] ^= 0xFF
    path.write_bytes(data)
    (bad,) = check_videos([(str(path), 0)], full=True)
    assert "damaged" in bad.cause or "does not decode" in bad.cause


def run_tool(*arguments):
    command = [sys.executable, str(ROOT / "tools/check_data.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)})


def test_tool(listing):
    output = listing.parent / "bad.csv"
    result = run_tool("--csv", listing, "--num-classes", 2, "--output", output)
    assert result.returncode == 1 and "3 videos checked, 2 bad" in result.stdout
    assert "gone.mp4: the file does not exist" in result.stdout
    with open(output, newline="") as file:
        assert [row["index"] for row in csv.DictReader(file)] == ["1", "2"]
    listing.write_text("good one.mp4 0\n")
    assert run_tool("--csv", listing, "--full").returncode == 0
    wrong = run_tool("--csv", listing.parent / "none.csv")
    assert wrong.returncode == 2 and "none.csv" in wrong.stderr and "Traceback" not in wrong.stderr
