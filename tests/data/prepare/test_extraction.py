"""Videos to image files."""

import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scripts import load_script
from videos import (
    decode_all,
    moving_frames,
    number_of,
    numbered_frames,
    phone_index,
    write_joined_video,
    write_late_video,
    write_phone_video,
    write_video,
)

from mutual3d.data.prepare import extraction
from mutual3d.data.prepare.extraction import Layout, extract_frames, list_videos
from mutual3d.data.video.frame_list_reader import FrameListReader, read_frame_list
from mutual3d.data.video.reader import VideoError, VideoReader


@pytest.fixture
def videos(tmp_path):
    """Two videos, of 30 and 24 frames at 30 a second."""
    (tmp_path / "videos").mkdir()
    for name, count in (("a", 30), ("b", 24)):
        write_video(tmp_path / f"videos/{name}.mp4", moving_frames(count, seed=count))
    return tmp_path / "videos"


def images(folder):
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.jpg"))}


def nearest(frames_THWC, path):
    """Position of the frame that an image shows."""
    image = np.asarray(Image.open(path)).astype(int)
    return int(np.abs(frames_THWC - image).mean(axis=(1, 2, 3)).argmin())


def test_every_frame_of_a_video_at_its_own_rate(videos, tmp_path):
    counts, bad = extract_frames(list_videos(videos), tmp_path / "frames", Layout(30), num_workers=2)
    assert counts == {"a": 30, "b": 24} and not bad
    found = images(tmp_path / "frames")
    assert len(found) == 54 and "a/a_000000.jpg" in found and "a/a_000029.jpg" in found
    source = decode_all(videos / "a.mp4").astype(int)
    assert [nearest(source, found[f"a/a_{k:06d}.jpg"]) for k in range(30)] == list(range(30))


def test_another_rate_and_a_part_of_the_video(videos, tmp_path):
    layout = Layout(10, start=0.2, end=0.7, first_number=1, pattern="{video}-{frame}.jpg")
    counts, _ = extract_frames([videos / "a.mp4"], tmp_path / "frames", layout, num_workers=1)
    source = decode_all(videos / "a.mp4").astype(int)
    found = images(tmp_path / "frames")
    assert counts == {"a": 5} and list(found) == [f"a-{k}.jpg" for k in range(1, 6)]
    assert [nearest(source, path) for path in found.values()] == [6, 9, 12, 15, 18]


class Times(VideoReader):
    """A video of which nothing but its times is known."""

    def __init__(self, times):
        self.num_frames, self.fps, self.times = len(times), 24.0, np.asarray(times)

    def frame_times(self):
        return self.times


@pytest.mark.parametrize(
    "times, fps, sources",
    [
        (np.arange(4) / 30, 30, [0, 1, 2, 3]),
        (np.arange(4) / 29.97, 30, [0, 1, 2, 3]),
        (np.arange(3) / 15, 30, [0, 1, 1, 2, 2]),
        (np.arange(6) / 30, 15, [0, 2, 4]),
        (np.array([0, 0.1, 0.5, 0.6]), 10, [0, 1, 1, 2, 2, 2, 3]),
        (np.array([0.0]), 24, [0]),
    ],
)
def test_a_moment_shows_the_frame_nearest_to_it(times, fps, sources):
    assert Layout(fps).source_frames(Times(times)) == sources


def test_variable_frame_rate(tmp_path):
    frames = moving_frames(6)
    write_video(tmp_path / "v.mp4", frames, times=[0, 10, 20, 60, 70, 80])
    counts, _ = extract_frames([tmp_path / "v.mp4"], tmp_path / "frames", Layout(30), num_workers=1)
    shown = [nearest(frames.astype(int), path) for path in images(tmp_path / "frames").values()]
    assert counts == {"v": 9} and shown == [0, 1, 2, 2, 3, 3, 3, 4, 5]


def numbers(folder):
    """What the extracted frames show, in their order."""
    return [number_of(np.asarray(Image.open(path))) for path in images(folder).values()]


def test_a_frame_shows_its_second_at_any_rate(tmp_path):
    """Of a phone's video, which slows down half-way; from the start, and from a second on."""
    path = write_phone_video(tmp_path / "phone.mp4")
    extract_frames([path], tmp_path / "all", Layout(5), num_workers=1)
    assert numbers(tmp_path / "all") == [phone_index(k / 5) for k in range(30)]
    extract_frames([path], tmp_path / "part", Layout(5, start=2.6, end=3.6), num_workers=1)
    assert numbers(tmp_path / "part") == [phone_index(2.6 + k / 5) for k in range(5)]


def test_seconds_count_from_the_files_zero_where_the_picture_starts_later(tmp_path):
    path = write_late_video(tmp_path / "late.mp4")
    extract_frames([path], tmp_path / "part", Layout(10, start=1.0, end=2.0), num_workers=1)
    assert numbers(tmp_path / "part") == list(range(3, 13))
    extract_frames([path], tmp_path / "all", Layout(10), num_workers=1)
    assert numbers(tmp_path / "all") == [0] * 7 + list(range(30))


def test_recordings_that_were_joined_lose_no_frame(tmp_path):
    counts, _ = extract_frames([write_joined_video(tmp_path / "joined.ts")], tmp_path / "all", Layout(10), num_workers=1)
    assert counts == {"joined": 22} and numbers(tmp_path / "all") == list(range(22))


def spoil(monkeypatch, **harm):
    """Reading the video of a name does harm to the process that reads it."""
    read = extraction._write_frames

    def write_frames(output, layout, video):
        harm.get(video.stem, lambda: None)()
        return read(output, layout, video)

    monkeypatch.setattr(extraction, "_write_frames", write_frames)


def test_a_video_that_kills_hangs_or_breaks_its_process_is_named_and_the_rest_goes_on(videos, tmp_path, monkeypatch):
    for name in "cde":
        shutil.copy(videos / "b.mp4", videos / f"{name}.mp4")

    def out_of_memory():
        raise MemoryError("no memory for a frame")

    spoil(
        monkeypatch, a=lambda: os.kill(os.getpid(), signal.SIGKILL), c=lambda: time.sleep(60), d=out_of_memory
    )  # fmt: skip
    counts, errors = extract_frames(list_videos(videos), tmp_path / "frames", Layout(5), num_workers=2, patience=2.0)
    assert counts == {"b": 4, "e": 4}
    causes = {Path(error.path).name: error.cause for error in errors}
    assert list(causes) == ["a.mp4", "c.mp4", "d.mp4"]
    assert "its decoder crashed (the process died of SIGKILL; where memory runs out" in causes["a.mp4"]
    assert "lower --num-workers" in causes["a.mp4"] and "MemoryError: no memory for a frame" in causes["d.mp4"]
    assert causes["c.mp4"] == "it did not answer within 2 s (--timeout)"


def test_a_video_that_takes_long_and_gets_on_is_not_given_up(videos, tmp_path, monkeypatch):
    write = extraction.write_image
    monkeypatch.setattr(extraction, "write_image", lambda *arguments: time.sleep(0.3) or write(*arguments))
    counts, errors = extract_frames([videos / "a.mp4"], tmp_path / "frames", Layout(10), num_workers=1, patience=2.0)
    assert counts == {"a": 10} and not errors


def test_frames_that_cannot_be_written_end_the_extraction(videos, tmp_path, monkeypatch):
    def full(path, *arguments):
        raise OSError(f"cannot write '{path}' (No space left on device): free space, or name another folder")

    monkeypatch.setattr(extraction, "write_image", full)
    with pytest.raises(OSError, match="cannot write .*a_000000.jpg.*free space"):
        extract_frames(list_videos(videos), tmp_path / "frames", Layout(5), num_workers=1)
    monkeypatch.undo()
    (tmp_path / "x.jpg").mkdir()
    with pytest.raises(OSError, match="cannot write '.*x.jpg' .*: free space, or name another folder"):
        extraction.write_image(tmp_path / "x.jpg", np.zeros((8, 8, 3), np.uint8))
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_a_killed_extraction_goes_on(videos, tmp_path, monkeypatch):
    output, layout = tmp_path / "frames", Layout(30)
    written = []
    write = extraction.write_image

    def die_on_the_tenth(path, image, quality):
        if len(written) == 10:
            raise KeyboardInterrupt
        written.append(path)
        write(path, image, quality)

    monkeypatch.setattr(extraction, "write_image", die_on_the_tenth)
    output.mkdir()
    with pytest.raises(KeyboardInterrupt):
        extraction._extract_one(output, layout, videos / "a.mp4")
    assert len(images(output)) == 10 and not (output / ".finished/a").exists()
    # What an image cut off by a power failure may look like: it is written again.
    next(iter(images(output).values())).write_bytes(b"")
    monkeypatch.setattr(extraction, "write_image", lambda *arguments: written.append(arguments[0]) or write(*arguments))
    assert extraction._extract_one(output, layout, videos / "a.mp4") == 30
    assert len(written) == 10 + 21 and len(images(output)) == 30
    shutil.rmtree(videos)
    assert extraction._extract_one(output, layout, videos / "a.mp4") == 30


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_video_that_was_replaced_is_extracted_anew(videos, tmp_path, monkeypatch, is_finished):
    output, layout, path = tmp_path / "frames", Layout(30), videos / "a.mp4"
    written = []
    write = extraction.write_image

    def stop_on_the_twentieth(target, image, quality):
        if len(written) == 20:
            raise KeyboardInterrupt
        written.append(target)
        write(target, image, quality)

    if is_finished:
        assert extraction._extract_one(output, layout, path) == 30
    else:
        monkeypatch.setattr(extraction, "write_image", stop_on_the_twentieth)
        with pytest.raises(KeyboardInterrupt):
            extraction._extract_one(output, layout, path)
        monkeypatch.undo()
    os.utime(path, ns=(0, 0))
    write_video(path, numbered_frames(12))
    assert extraction._extract_one(output, layout, path) == 12
    assert numbers(output) == list(range(12))


def test_unreadable_videos_are_told_and_the_others_extracted(videos, tmp_path):
    (videos / "c.mp4").write_text("no video")
    counts, (error,) = extract_frames(list_videos(videos), tmp_path / "frames", Layout(30), num_workers=1)
    assert list(counts) == ["a", "b"] and error.path.endswith("c.mp4") and isinstance(error, VideoError)
    counts, errors = extract_frames(list_videos(videos), tmp_path / "late", Layout(30, start=0.9), num_workers=1)
    assert counts == {"a": 3} and "ends before second 0.9" in errors[0].cause


@pytest.mark.parametrize(
    "layout, words",
    [
        (Layout(0), "fps"),
        (Layout(30, start=3, end=2), "start"),
        (Layout(30, quality=0), "quality"),
        (Layout(30, pattern="{video}.jpg"), "both"),
        (Layout(30, pattern="{name}/{frame}.jpg"), "does not work"),
        (Layout(30, pattern="{video}/{frame"), "does not work"),
        (Layout(30, pattern="{video}{}{frame}"), "does not work"),
        (Layout(30, pattern="{video}{frame:01000000000d}"), "does not work: use {video}, and {frame} or"),
        (Layout(30, pattern="{video:>999999999}{frame}"), "does not work"),
        (Layout(30, pattern="{video!r}{frame}"), "does not work"),
        (Layout(30, pattern="{video.__class__}{frame}"), "does not work"),
        (Layout(30, pattern="../{video}_{frame}.jpg"), "must name files in the output folder"),
        (Layout(30, pattern="a/../../{video}_{frame}.jpg"), "must name files in the output folder"),
        (Layout(30, pattern="/tmp/{video}_{frame}.jpg"), "must name files in the output folder"),
        (Layout(30, pattern="{video}/{frame}/"), "must name files in the output folder"),
        (Layout(30, pattern="{video}\0{frame}"), "must name files in the output folder"),
        (Layout(30, pattern=".finished/{video}/{frame}"), "is kept for what is finished"),
        (Layout(1e9), "at most 1000"),
        (Layout(float("nan")), "fps nan"),
        (Layout(float("inf")), "fps inf"),
        (Layout(30, start=float("nan")), "start nan"),
        (Layout(30, start=float("inf")), "start inf"),
        (Layout(30, end=float("inf")), "end inf"),
        (Layout(30, end=float("nan")), "end nan"),
    ],
)
def test_layouts_that_cannot_work(videos, tmp_path, layout, words):
    with pytest.raises(ValueError, match=words):
        extract_frames(list_videos(videos), tmp_path / "frames", layout)
    assert not (tmp_path / "frames").exists()


def test_folders_of_other_frames_and_videos_of_one_name_are_refused(videos, tmp_path):
    extract_frames([videos / "b.mp4"], tmp_path / "frames", Layout(3), num_workers=1)
    with pytest.raises(ValueError, match="other arguments"):
        extract_frames([videos / "b.mp4"], tmp_path / "frames", Layout(4), num_workers=1)
    with pytest.raises(ValueError, match="choose another folder"):
        extract_frames([videos / "b.mp4"], videos, Layout(4), num_workers=1)
    with pytest.raises(ValueError, match="two videos have the name 'b'"):
        extract_frames([videos / "b.mp4", tmp_path / "b.avi"], tmp_path / "other", Layout(4), num_workers=1)
    with pytest.raises(ValueError, match="has the name '..' without its ending"):
        extract_frames([tmp_path / "...mp4"], tmp_path / "other", Layout(4), num_workers=1)
    with pytest.raises(FileNotFoundError, match="there are no videos"):
        list_videos(tmp_path / "frames")


@pytest.fixture(scope="module")
def tool():
    return load_script("datasets/extract_frames.py")


def test_tool_writes_a_list_of_the_chosen_videos(tool, videos, tmp_path, capsys):
    (tmp_path / "boxes.csv").write_text("b,0902,0.1\nz,0903,0.1\nb,0904,0.2\n")
    output, listing = tmp_path / "frames", tmp_path / "lists/val.csv"
    arguments = ["--videos", videos, "--output", output, "--fps", 10, "--first-number", 1, "--num-workers", 1]
    arguments += ["--only", tmp_path / "boxes.csv", "--frame-list", listing]
    assert tool.main(list(map(str, arguments))) == 0
    told = capsys.readouterr()
    assert "8 frames of 1 videos, 0 videos unreadable" in told.out and "1 names of" in told.err and "'z'" in told.err
    assert listing.read_text().splitlines()[1] == 'b 0 0 b/b_000001.jpg ""'
    (frames,) = read_frame_list(listing)[0].values()
    assert FrameListReader(frames.paths, 10, output).read(range(8)).shape == (8, 48, 64, 3)


def test_tool_tells_what_is_wrong(tool, videos, tmp_path, capsys):
    (videos / "c.mp4").write_text("no video")
    (tmp_path / "names.txt").write_text("nobody\n")
    arguments = ["--videos", str(videos), "--output", str(tmp_path / "frames"), "--fps", "5", "--num-workers", "1"]
    assert tool.main(arguments) == 1
    assert "c.mp4': it is not a video" in capsys.readouterr().err
    assert tool.main([*arguments, "--only", str(tmp_path / "names.txt")]) == 2
    assert "no name in the first column" in capsys.readouterr().err
    assert tool.main([*arguments, "--quality", "0"]) == 2
    capsys.readouterr()
    (tmp_path / "file").write_text("in the way")
    changes = (("--output", str(tmp_path / "file" / "x")), ("--frame-list", str(tmp_path)), ("--fps", "inf"))
    for option, value in changes:
        assert tool.main([*arguments, option, value]) == 2
        told = capsys.readouterr().err
        assert told.startswith("error: ") and "OUTPUT_DIR" not in told and "Errno" not in told, told


def test_names_of_videos_cannot_command_the_terminal(tool, videos, tmp_path, capsys):
    (videos / "\x1b[2J.mp4").write_text("no video")
    assert tool.main(["--videos", str(videos), "--output", str(tmp_path / "frames"), "--fps", "5", "--num-workers", "1"]) == 1
    told = capsys.readouterr()
    assert "\x1b" not in told.err + told.out and "\\x1b[2J.mp4': it is not a video" in told.err


def test_the_names_of_only_are_read_as_lists_are(tool, tmp_path, capsys):
    videos = [tmp_path / f"{name}.mp4" for name in ("a\u2028b", "c d", "e")]
    listing = tmp_path / "names.csv"
    listing.write_bytes('a\u2028b,902\r\n"c d.mp4",903\r\n'.encode("utf-16"))
    assert tool.select_videos(videos, listing) == videos[:2]
    for data, words in (("vidé,1\n".encode("latin-1"), "not UTF-8"), (b'"e,1\nc d,2\n', "never closed"), (b"e,1\rc d,2\r", "carriage")):
        listing.write_bytes(data)
        with pytest.raises(ValueError, match=f"names.csv', line 1: .*{words}"):
            tool.select_videos(videos, listing)
    with pytest.raises(IsADirectoryError, match="is a folder"):
        tool.select_videos(videos, tmp_path)
