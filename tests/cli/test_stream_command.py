"""`mutual3d stream`: what it prints and writes, how it ends, and what it refuses."""

import csv
import os
import re
import signal
import sys

import pytest
from streams import make_stream_model
from videos import decode_all, moving_frames, red_and_blue_frames, write_video

import mutual3d
from mutual3d.cli import stream as command
from mutual3d.data.video.forward import TimedFrame
from mutual3d.data.video.reader import VideoError
from mutual3d.deploy.scan_table import read_segments
from mutual3d.deploy.stream import DeadlineStream
from mutual3d.deploy.stream_files import AnnotatedVideo, SegmentCsv, StreamCsv
from mutual3d.deploy.timeline import Segment

# Of the model of these tests: red shows `right` with a higher probability, and blue with a lower one.
THRESHOLD = 0.5135


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stream_command")
    make_stream_model().save(folder / "adaptive.pyth")
    write_video(folder / "a.mp4", moving_frames(60))
    write_video(folder / "colours.mp4", red_and_blue_frames((0.8, 0.6, 0.7, 0.5)))
    return folder


def words(folder, *more, source="a.mp4"):
    return [str(folder / "adaptive.pyth"), "--source", str(folder / source), "--deadline-ms", "1000", *map(str, more)]


def test_a_file_is_answered_and_all_of_it_is_written(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    output, video = tmp_path / "out.csv", tmp_path / "out.mp4"
    assert command.main(words(folder, "--fps", 10, "--output", output, "--video", video)) == 0
    told = capsys.readouterr()
    assert "10 answers a second, each within 1000 ms, by " in told.out and f"written: {output}" in told.out
    rows = list(csv.DictReader(output.open()))
    assert f"{len(rows)} answers in " in told.out and ": 100.00 % within 1000 ms" in told.out and "1-24-4 100 %" in told.out
    assert "\r\x1b[K0.2 s  1-24-4  " in told.err and "ms, 100.0 % in time  " in told.err
    with mutual3d.load(folder / "adaptive.pyth").stream(folder / "a.mp4", deadline_ms=1000, fps=10) as stream:
        expected = list(stream)
    assert [(row["end"], row["label_1"], row["score_1"], row["dropped"], row["met"]) for row in rows] == [
        (f"{answer.end:.3f}", answer.top(1)[0][0], f"{answer.top(1)[0][1]:.6f}", "0", "1") for answer in expected
    ]
    assert all(float(row["total_ms"]) == pytest.approx(float(row["wait_ms"]) + float(row["network_ms"]), abs=2e-3) for row in rows)
    drawn = decode_all(video)
    # Small frames are enlarged; an answer is drawn from its own frame on, the eighth, with a green border.
    assert drawn.shape == (60, 240, 320, 3)
    is_green = [frame[0, :, 1].mean() > frame[0, :, 0].mean() + 50 for frame in drawn]
    assert is_green == [False] * 7 + [True] * 53


def test_a_timeline_is_told_and_written_segment_by_segment(folder, tmp_path, capsys, monkeypatch):
    """The segments of Python's streams; each is in the file before the next answer comes."""
    output, sizes = tmp_path / "events.csv", []
    answer = DeadlineStream.__next__

    def watched(stream):
        sizes.append(output.stat().st_size if output.is_file() else 0)
        return answer(stream)

    with mutual3d.load(folder / "adaptive.pyth").stream(folder / "colours.mp4", deadline_ms=1000, fps=10) as stream:
        expected = list(stream.timeline(THRESHOLD, background=["down"]))
    monkeypatch.setattr(DeadlineStream, "__next__", watched)
    more = ["--fps", 10, "--events", "--threshold", THRESHOLD, "--background", "down", "--output", output]
    assert command.main(words(folder, *more, source="colours.mp4")) == 0
    told = capsys.readouterr().out
    lines = [segment.describe() for segment in expected]
    assert len(expected) > 1 and [line for line in told.splitlines() if line in lines] == lines and f"written: {output}" in told
    assert re.fullmatch(r"\d\.\d\d to \d\.\d\d s: right \d+\.\d %", lines[0])
    assert read_segments(output) == [
        (str(folder / "colours.mp4"), Segment(*(pytest.approx(second, abs=1e-3) for second in segment[:2]), segment.label, pytest.approx(segment.confidence, abs=1e-6)))
        for segment in expected
    ]  # fmt: skip
    header = len("path,start,end,label,confidence\n")
    assert sizes[0] == header and len(set(sizes)) >= len(expected)


def test_a_timeline_that_is_stopped_keeps_what_was_seen_until_then(folder, tmp_path, capsys, monkeypatch):
    answer = DeadlineStream.__next__

    def give(stream):
        if stream.num_answered == 3:
            raise KeyboardInterrupt
        return answer(stream)

    monkeypatch.setattr(DeadlineStream, "__next__", give)
    assert command.main(words(folder, "--events", "--threshold", "0", "--output", tmp_path / "events.csv")) == 0
    found = read_segments(tmp_path / "events.csv")
    assert found and found[-1][1].end == pytest.approx(7 / 30 + 2 / 5, abs=2e-3) and found[-1][1].describe() in capsys.readouterr().out
    with pytest.raises(ValueError, match="the background has 'nothing', which is no class of this network: choose among right, down"):
        command.main(words(folder, "--events", "--background", "nothing", "--output", tmp_path / "none.csv"))
    assert not (tmp_path / "none.csv").exists()


def test_sigterm_ends_a_stream_as_ctrl_c_does(folder, tmp_path, capsys, monkeypatch):
    answer, before = DeadlineStream.__next__, signal.getsignal(signal.SIGTERM)

    def give(stream):
        if stream.num_answered == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return answer(stream)

    monkeypatch.setattr(DeadlineStream, "__next__", give)
    # This process is ended by no signal, even where the stream takes none.
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        assert command.main(words(folder, "--events", "--threshold", "0", "--output", tmp_path / "a.csv", "--video", tmp_path / "a.mp4")) == 0
        signal.raise_signal(signal.SIGTERM)  # it is as before
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "3 answers in " in capsys.readouterr().out and len(decode_all(tmp_path / "a.mp4"))
    assert read_segments(tmp_path / "a.csv")[-1][1].end == pytest.approx(7 / 30 + 2 / 5, abs=2e-3)


def test_two_streams_do_not_write_into_one_file(tmp_path):
    path = tmp_path / "seen.csv"
    with SegmentCsv(path, "a\rb.mp4") as table:
        table.add(Segment(0.0, 1.0, "right", 0.5))
        with pytest.raises(OSError, match="seen.csv': another stream writes there; name another file"):
            StreamCsv(path)
        table.add(Segment(2.0, 3.0, "down", 0.5))
    with open(path, newline="") as file:  # both rows, of a video whose name would end a row for those who read it
        assert [row[::3] for row in csv.reader(file)] == [["path", "label"], ["a\rb.mp4", "right"], ["a\rb.mp4", "down"]]
    with StreamCsv(path):
        pass
    assert len(path.read_text().splitlines()) == 1


def test_a_configuration_or_a_budget_is_held(folder, tmp_path, capsys):
    for number, choice in enumerate((["--config", "0.5-16-2"], ["--gflops", "0.001"])):
        output = tmp_path / f"{number}.csv"
        assert command.main(words(folder, "--seconds", 1, "--output", output, *choice)) == 0
        assert {row["configuration"] for row in csv.DictReader(output.open())} == {"0.5-16-2"}
    assert "by 0.5-16-2 in " in capsys.readouterr().out


def test_a_stop_and_a_break_leave_the_rows_and_say_so(folder, tmp_path, capsys, monkeypatch):
    answer = DeadlineStream.__next__

    def ending(error):
        def give(stream):
            if stream.num_answered == 3:
                raise error
            return answer(stream)

        return give

    for error, status in ((KeyboardInterrupt(), 0), (VideoError("the camera", "it was unplugged"), 1)):
        monkeypatch.setattr(DeadlineStream, "__next__", ending(error))
        assert command.main(words(folder, "--output", tmp_path / "out.csv", "--video", tmp_path / "out.mp4")) == status
        told = capsys.readouterr()
        assert "3 answers in " in told.out and ("the camera" in told.err) == bool(status)
        assert len((tmp_path / "out.csv").read_text().splitlines()) == 4 and len(decode_all(tmp_path / "out.mp4"))


@pytest.mark.parametrize(
    "more, message",
    [
        (["--config", "0.5-16-2", "--gflops", 1], "give --config or a budget, not both"),
        (["--device-key", "cpu"], "--device-key says whose latency"),
        (["--output", "out.json"], "needs a name that ends in .csv"),
        (["--video", "out.avi"], "needs a name that ends in .mp4"),
        (["--when-late", "never"], "invalid choice"),
        (["--fps", "0"], "'0' is not a number above 0"),
        (["--background", "down"], "--background is of --events: give that too"),
        (["--threshold", "0.5", "--background", "down"], "--threshold and --background are of --events"),
        (["--window", "2 hours"], "no length of time"),
    ],
)
def test_options_that_cannot_be_are_refused(folder, capsys, more, message):
    with pytest.raises(SystemExit) as end:
        command.main(words(folder, *more))
    assert end.value.code == 2 and message in capsys.readouterr().err


def test_a_file_that_is_read_is_not_written_over(folder, capsys):
    with pytest.raises(SystemExit):
        command.main(words(folder, "--video", folder / "a.mp4"))
    assert "which is read: it would be replaced" in capsys.readouterr().err


def test_sources_that_are_not_there_are_sentences(folder):
    for source, message in (("none.mp4", "does not exist"), ("/dev/video973", "there is no /dev/video973")):
        with pytest.raises(VideoError, match=message):
            command.main(words(folder, source=source))
    with pytest.raises(VideoError, match="'http://127.0.0.1:9/a': the address cannot be opened"):
        command.main([str(folder / "adaptive.pyth"), "--source", "http://127.0.0.1:9/a"])


def test_rows_of_an_earlier_stream_are_there_when_a_later_one_cannot_begin(folder, tmp_path):
    make_stream_model(table=False).save(tmp_path / "bare.pyth")
    (tmp_path / "out.csv").write_text("earlier")
    with pytest.raises(ValueError, match="no query table"):
        command.main([str(tmp_path / "bare.pyth"), "--source", str(folder / "a.mp4"), "--output", str(tmp_path / "out.csv")])
    assert (tmp_path / "out.csv").read_text() == "earlier"


def test_a_disk_that_takes_no_row_is_named():
    with pytest.raises(OSError, match=r"cannot write '/dev/full' \(No space left on device\): free space there"):
        StreamCsv("/dev/full")


def test_a_video_that_cannot_be_written_is_told_after_the_stream(tmp_path):
    with pytest.raises(OSError, match="there is a directory of this name"):
        with AnnotatedVideo(tmp_path, waits=True) as video:
            for number in range(30):
                video.add(TimedFrame(number / 30, moving_frames(1)[0], 0.0))
