"""Finding unreadable videos."""

import csv
import os

import pytest
from harm import HARM
from videos import moving_frames, write_audio, write_video

from mutual3d.cli import check_data as tool
from mutual3d.data.datasets import kinetics
from mutual3d.data.datasets.charades import read_charades
from mutual3d.data.datasets.check import CheckOptions, check_videos
from mutual3d.data.prepare.extraction import Layout, extract_frames, list_videos, write_frame_list
from mutual3d.data.video.frame_list_reader import FrameListReader
from mutual3d.data.video.reader import VideoError


@pytest.fixture
def listing(tmp_path):
    write_video(tmp_path / "good one.mp4", moving_frames(10))
    write_audio(tmp_path / "sound.mp4")
    (tmp_path / "list.csv").write_text("good one.mp4 0\nsound.mp4 1\ngone.mp4 1\n")
    return tmp_path / "list.csv"


@pytest.mark.parametrize("num_workers", [0, 1])
def test_rows_in_order(listing, num_workers):
    videos = [(str(listing.parent / name), 0) for name in ("good one.mp4", "sound.mp4", "gone.mp4")]
    good, sound, gone = check_videos(videos, CheckOptions(num_workers=num_workers))
    assert good is None and sound.index == 1 and "no video stream" in sound.cause and "not exist" in gone.cause


def test_full_check_finds_what_the_quick_one_cannot(tmp_path):
    path = write_video(tmp_path / "clip.mkv", moving_frames(60, 96, 128), gop=10)
    data = bytearray(path.read_bytes())
    for place in range(len(data) * 3 // 4, len(data) * 3 // 4 + 40):
        data[place] ^= 0xFF
    path.write_bytes(data)
    (bad,) = check_videos([(str(path), 0)], CheckOptions(full=True))
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
    assert "not an image (line 15 of its frame list)" in list(check_videos(videos, CheckOptions(full=True)))[1].cause


def run_tool(*arguments):
    return tool.main(list(map(str, arguments)))


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


def test_tool_refuses_what_is_no_list(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.csv")
    for path, words in ((tmp_path, "is a folder: name a file"), (tmp_path / "pipe.csv", "is a pipe or a device")):
        assert run_tool("--csv", path) == run_tool("--csv", path, "--format", "kinetics") == 2
        assert capsys.readouterr().err.count(words) == 2


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


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--num-classes", "0"], "'0' is not a whole number, 1 or more"),
        (["--num-classes", "1_0"], "'1_0' is not a whole number"),
        (["--num-workers", "-1"], "'-1' is not a whole number, 0 or more"),
        (["--output", ""], "'' is no name of a file"),
        (["--path-prefix", " "], "' ' is no name of a file"),
        (["--output", "list.csv"], "is 'list.csv', which is read: it would be replaced"),
    ],
)
def test_tool_refuses_arguments(listing, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(listing.parent)
    before = listing.read_bytes()
    with pytest.raises(SystemExit) as ended:
        run_tool("--csv", listing, *arguments)
    assert ended.value.code == 2 and words in capsys.readouterr().err and listing.read_bytes() == before


@pytest.mark.parametrize("arguments", [[], ["--format", "charades"], ["--detected", "boxes.csv"]])
def test_tool_tells_frames_that_are_out_of_order(frame_list, capsys, arguments):
    lines = frame_list.read_text().splitlines()
    frame_list.write_text("\n".join([lines[0], *lines[:0:-1]]))
    (frame_list.parent / "boxes.csv").write_text("a,900,0.1,0.1,0.5,0.5,,1\n")
    arguments = [frame_list.parent / word if word.endswith(".csv") else word for word in arguments]
    assert run_tool("--csv", frame_list, "--path-prefix", frame_list.parent / "frames", *arguments) in (1, 2)
    told = capsys.readouterr()
    assert "list.csv', line" in told.out + told.err and "14 out of order" in told.out + told.err


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


# ---- Files that no decoder survives ----------------------------------------------------------------------------------------


@pytest.fixture
def harmful(tmp_path, monkeypatch):
    """A list of a good video beside each kind of harm; the decoder does it by the name of the file."""
    harm = {f"{i}.mp4": action for i, action in enumerate(HARM.values())}
    open_video = kinetics.open_video

    def open_or_harm(path, backend, tolerate_short=False):
        harm.get(os.path.basename(path), int)()
        return open_video(path, backend, tolerate_short)

    monkeypatch.setattr(kinetics, "open_video", open_or_harm)
    good = [str(write_video(tmp_path / f"good{i}.mp4", moving_frames(4))) for i in range(2)]
    listed = [good[0], *(str(tmp_path / name) for name in harm), good[1], str(tmp_path / "gone.mp4")]
    (tmp_path / "list.csv").write_text("".join(f"{path} 0\n" for path in listed))
    return tmp_path / "list.csv"


@pytest.mark.parametrize("num_workers", [1, 3])
def test_a_video_that_kills_or_stalls_its_decoder_is_bad_and_the_check_goes_on(harmful, num_workers):
    videos = kinetics.read_video_list(harmful)
    first, *bad, last, gone = check_videos(videos, CheckOptions(num_workers=num_workers, timeout=1))
    assert first is last is None and "does not exist" in gone.cause
    assert [(video.index, os.path.basename(video.path)) for video in bad] == [(i + 1, f"{i}.mp4") for i in range(len(HARM))]
    for video, words in zip(bad, HARM):
        assert words in video.cause


def test_the_tool_lists_what_kills_its_decoder(harmful, capsys):
    output = harmful.parent / "bad.csv"
    assert run_tool("--csv", harmful, "--timeout", "1", "--output", output) == 1
    assert "8 videos checked, 6 bad" in capsys.readouterr().out
    with open(output, newline="") as file:
        causes = [row["cause"] for row in csv.DictReader(file)]
    assert all(words in cause for words, cause in zip(HARM, causes))


def test_images_that_kill_their_decoder_are_named(frame_list, tmp_path, monkeypatch, capsys):
    frames = FrameListReader.frames
    harm = {"a_000003.jpg": HARM["SIGSEGV"], "b_000000.jpg": HARM["MemoryError"], "b_000007.jpg": HARM["did not answer within 1 s"]}

    def frames_or_harm(reader, indices):
        for index in indices:
            harm.get(os.path.basename(reader.path_of(index)), int)()
        return frames(reader, indices)

    monkeypatch.setattr(FrameListReader, "frames", frames_or_harm)
    arguments = ["--csv", frame_list, "--path-prefix", tmp_path / "frames", "--timeout", "1"]
    assert run_tool(*arguments, "--format", "ava") == 1
    told = capsys.readouterr().out
    assert "a_000003.jpg': its decoder crashed (the process died of SIGSEGV)" in told and "3 problems" in told
    assert "b_000000.jpg': MemoryError" in told and "b_000007.jpg': it did not answer within 1 s" in told
    assert run_tool(*arguments) == 1 and "2 videos checked, 2 bad" in capsys.readouterr().out


def test_a_short_video_is_listed_with_what_its_reader_says(listing, monkeypatch, capsys):
    def short(path, backend, tolerate_short=False):
        raise VideoError(path, "its container announces 60 frames and 2 decode")

    monkeypatch.setattr(kinetics, "open_video", short)
    assert run_tool("--csv", listing) == 1
    assert "sound.mp4: its container announces 60 frames and 2 decode" in capsys.readouterr().out


# ---- What stands in the output ---------------------------------------------------------------------------------------------


def test_names_of_files_do_nothing_to_terminal_or_spreadsheet(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = ["\x1b]0;pwn\x07\x1b[2J.mp4", "=cmd|x.mp4", "@sum.mp4", "-1.mp4", "+2.mp4"]
    (tmp_path / "list.csv").write_text("".join(f"{name} 0\n" for name in names))
    monkeypatch.setattr(kinetics, "path_in_list", lambda name, *others: name)
    assert run_tool("--csv", "list.csv", "--output", "bad.csv") == 1
    told = capsys.readouterr().out
    assert "\x1b" not in told and "\\x1b]0;pwn" in told
    with open("bad.csv", newline="") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    assert paths == [names[0], *(f"'{name}" for name in names[1:])]


def test_an_interrupted_check_leaves_what_it_found(listing, monkeypatch):
    def stop(place, cause):
        raise KeyboardInterrupt

    monkeypatch.setattr(tool, "tell", stop)
    with pytest.raises(KeyboardInterrupt):
        tool.main(["--csv", str(listing), "--output", str(listing.parent / "bad.csv")])
    assert "sound.mp4" in (listing.parent / "bad.csv").read_text()


@pytest.mark.parametrize(
    "option, value, words",
    [
        ("--num-workers", "-1", "not a whole number, 0 or more"),
        ("--num-workers", "1_0", "not a whole number"),
        ("--num-classes", "0", "not a whole number, 1 or more"),
        ("--fps", "nan", "not a number above 0"),
        ("--fps", "0", "not a number above 0"),
        ("--timeout", "-1", "not a number of at least 0"),
        ("--timeout", "inf", "not a number"),
    ],
)
def test_arguments_that_mean_nothing(listing, option, value, words, capsys):
    with pytest.raises(SystemExit):
        run_tool("--csv", listing, f"{option}={value}")
    assert words in capsys.readouterr().err


def test_where_nothing_can_be_written_is_said_before_the_check(listing, capsys):
    assert run_tool("--csv", listing, "--output", listing.parent) == 2
    assert "is a folder" in capsys.readouterr().err
    assert run_tool("--csv", listing, "--output", listing.parent / "none" / "bad.csv") == 2
    told = capsys.readouterr()
    assert "there is no folder" in told.err and not told.out


def test_a_video_with_two_labels_is_bad(tmp_path, capsys):
    write_video(tmp_path / "a.mp4", moving_frames(4))
    (tmp_path / "list.csv").write_text("a.mp4 0\na.mp4 0\na.mp4 1\n")
    output = tmp_path / "bad.csv"
    assert run_tool("--csv", tmp_path / "list.csv", "--output", output) == 1
    assert "3 videos checked, 1 bad" in capsys.readouterr().out
    (row,) = csv.DictReader(output.read_text().splitlines())
    assert row["index"] == "2" and "other labels too, as video 0" in row["cause"]
    (tmp_path / "list.csv").write_text('a.mp4 0,1\na.mp4 1,2\n')
    assert run_tool("--csv", tmp_path / "list.csv", "--format", "charades") == 1


def test_a_list_that_is_no_file_is_named(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", "/dev/zero", "/dev/null"):
        assert run_tool("--csv", path) == 2
        assert f"video list '{path}'" in capsys.readouterr().err
