"""Finding unreadable videos."""

import csv

import pytest
from tiny import load_tool
from videos import moving_frames, write_audio, write_video

from mutual3d.data.charades import read_charades
from mutual3d.data.check import check_videos
from mutual3d.data.extraction import Layout, extract_frames, list_videos, write_frame_list


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
    (frames / "b/b_000005.jpg").write_bytes(b"no image")
    videos = read_charades(frame_list, num_classes=3, path_prefix=frames)
    first, second = check_videos(videos)
    assert first.path.endswith("a_000003.jpg") and "line 5 of its frame list" in first.cause and second is None
    assert "not an image (line 15 of its frame list)" in list(check_videos(videos, full=True))[1].cause


def run_tool(*arguments):
    return load_tool("check_data").main(list(map(str, arguments)))


def test_tool(listing, capsys):
    output = listing.parent / "bad.csv"
    assert run_tool("--csv", listing, "--num-classes", 2, "--output", output) == 1
    told = capsys.readouterr().out
    assert "3 videos checked, 2 bad" in told and "gone.mp4: the file does not exist" in told
    with open(output, newline="") as file:
        assert [row["index"] for row in csv.DictReader(file)] == ["1", "2"]
    listing.write_text("good one.mp4 0\n")
    assert run_tool("--csv", listing, "--full") == 0
    assert run_tool("--csv", listing.parent / "none.csv") == 2
    assert "none.csv" in capsys.readouterr().err


def test_tool_tells_the_format_by_the_first_line(frame_list, tmp_path, capsys):
    for form in ([], ["--format", "charades"]):
        assert run_tool("--csv", frame_list, "--path-prefix", tmp_path / "frames", *form) == 0
        assert "2 videos checked, 0 bad" in capsys.readouterr().out
    official, rows = tmp_path / "official.csv", tmp_path / "rows.csv"
    official.write_text('id,script,actions\na,"x, y",c156 0 1\n')
    assert run_tool("--csv", official) == 0
    assert run_tool("--csv", official, "--num-classes", 100) == 2
    assert "label 156" in capsys.readouterr().err
    rows.write_text("a.mp4 1,2\n")
    assert run_tool("--csv", rows) == 2 and run_tool("--csv", rows, "--format", "charades") == 0


def test_tool_checks_ava(frame_list, tmp_path, capsys):
    boxes, output = tmp_path / "boxes.csv", tmp_path / "bad.csv"
    boxes.write_text("a,900,0.1,0.1,0.5,0.5,12,0\na,900,0.1,0.1,1.5,0.5,12,0\n")
    arguments = ["--csv", frame_list, "--path-prefix", tmp_path / "frames", "--ground-truth", boxes, "--output", output]
    assert run_tool(*arguments) == 1
    assert "1 problems" in capsys.readouterr().out
    (problem,) = csv.DictReader(output.read_text().splitlines())
    assert "boxes.csv', line 2" in problem["place"] and "leaves [0, 1]" in problem["cause"]
    boxes.write_text("a,900,0.1,0.1,0.5,0.5,12,0\n")
    assert run_tool(*arguments, "--format", "ava") == 0
