"""Finding unreadable videos."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from videos import moving_frames, write_audio, write_video

from mutual3d.data.charades import read_charades
from mutual3d.data.check import check_videos
from mutual3d.data.extraction import Layout, extract_frames, list_videos, write_frame_list

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


@pytest.fixture
def frame_list(tmp_path):
    """Two videos of eight frames."""
    for name in "ab":
        write_video(tmp_path / f"{name}.mp4", moving_frames(8))
    counts, _ = extract_frames(list_videos(tmp_path), tmp_path / "frames", Layout(30), num_workers=1)
    write_frame_list(tmp_path / "list.csv", counts, Layout(30))
    return tmp_path / "list.csv"


def test_all_extracted_frames_must_be_there_and_full_decodes_them(frame_list):
    frames = frame_list.parent / "frames"
    (frames / "a/a_000003.jpg").unlink()
    (frames / "b/b_000003.jpg").write_bytes(b"no image")
    videos = read_charades(frame_list, num_classes=3, path_prefix=frames)
    first, second = check_videos(videos)
    assert first.path.endswith("a_000003.jpg") and "line 5 of its frame list" in first.cause and second is None
    assert "not an image (line 13 of its frame list)" in list(check_videos(videos, full=True))[1].cause


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


def test_tool_tells_the_format_by_the_first_line(frame_list, listing, tmp_path):
    prefix = ("--path-prefix", tmp_path / "frames")
    for form in ((), ("--format", "charades")):
        result = run_tool("--csv", frame_list, *prefix, *form)
        assert result.returncode == 0 and "2 videos checked, 0 bad" in result.stdout
    (tmp_path / "official.csv").write_text('id,script,actions\na,"x, y",c156 0 1\n')
    assert run_tool("--csv", tmp_path / "official.csv").returncode == 0
    wrong = run_tool("--csv", tmp_path / "official.csv", "--num-classes", 100)
    assert wrong.returncode == 2 and "label 156" in wrong.stderr
    listing.write_text("a.mp4 1,2\n")
    assert run_tool("--csv", listing).returncode == 2 and run_tool("--csv", listing, "--format", "charades").returncode == 0


def test_tool_checks_ava(frame_list, tmp_path):
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("a,900,0.1,0.1,0.5,0.5,12,0\na,900,0.1,0.1,1.5,0.5,12,0\n")
    output = tmp_path / "bad.csv"
    arguments = ("--csv", frame_list, "--path-prefix", tmp_path / "frames", "--ground-truth", boxes, "--output", output)
    result = run_tool(*arguments)
    assert result.returncode == 1 and "1 problems" in result.stdout
    (problem,) = csv.DictReader(output.read_text().splitlines())
    assert "boxes.csv', line 2" in problem["place"] and "leaves [0, 1]" in problem["cause"]
    boxes.write_text("a,900,0.1,0.1,0.5,0.5,12,0\n")
    assert run_tool(*arguments, "--format", "ava").returncode == 0
