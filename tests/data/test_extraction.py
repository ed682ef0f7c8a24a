"""Videos to image files."""

import importlib.util
import shutil

import numpy as np
import pytest
from PIL import Image
from tiny import ROOT
from videos import decode_all, moving_frames, write_video

from mutual3d.data import extraction
from mutual3d.data.extraction import Layout, extract_frames, list_videos
from mutual3d.data.frame_list_reader import FrameListReader, read_frame_list
from mutual3d.data.reader import VideoError


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
    assert Layout(fps).source_frames(times) == sources


def test_variable_frame_rate(tmp_path):
    frames = moving_frames(6)
    write_video(tmp_path / "v.mp4", frames, times=[0, 10, 20, 60, 70, 80])
    counts, _ = extract_frames([tmp_path / "v.mp4"], tmp_path / "frames", Layout(30), num_workers=1)
    shown = [nearest(frames.astype(int), path) for path in images(tmp_path / "frames").values()]
    assert counts == {"v": 9} and shown == [0, 1, 2, 2, 3, 3, 3, 4, 5]


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
    (output / ".finished").mkdir()
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
    with pytest.raises(FileNotFoundError, match="there are no videos"):
        list_videos(tmp_path / "frames")


@pytest.fixture(scope="module")
def tool():
    specification = importlib.util.spec_from_file_location("extract_frames", ROOT / "datasets/extract_frames.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


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
