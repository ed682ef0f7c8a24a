"""Decoding a set once: what is in the cache, what comes out of it, and what becomes of it when anything changes."""

import logging
import os
import shutil
import subprocess
import sys
from collections import namedtuple

import numpy as np
import pytest
import torch
from clips import clip_loader, video_dataset
from tiny import ROOT
from videos import moving_frames, numbered_frames, write_phone_video, write_video

from mutual3d import get_cfg
from mutual3d.cli import prepare
from mutual3d.data.build import build_dataset
from mutual3d.data.datasets.dataset import BadVideo
from mutual3d.data.prepare import caching
from mutual3d.data.prepare.caching import CacheLayout, Working, prepare_cache
from mutual3d.data.video.decode import open_video
from mutual3d.data.video.frame_cache import ARGUMENTS, FRAMES, INDEX, FrameCache
from mutual3d.utils.files import DamagedFileError, read_json, write_json
from mutual3d.utils.run_lock import DirectoryInUseError

ONE = Working(num_workers=1)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Three good videos, one of a varying rate that lies on its side, and one that is none."""
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "a.mp4", moving_frames(30, 48, 64), b_frames=2)
    write_video(folder / "b.mkv", moving_frames(20, 64, 48, seed=1), gop=5)
    write_phone_video(folder / "phone.mp4", rotation=90)
    (folder / "text.mp4").write_text("no video")
    return folder


@pytest.fixture
def videos(sources, tmp_path):
    """The same in a folder of the test's own: {name: path}."""
    shutil.copytree(sources, tmp_path / "videos")
    return {path.stem: path for path in sorted((tmp_path / "videos").iterdir())}


def silent(text):
    pass


def make(videos, folder, **options):
    layout = CacheLayout(options.pop("short_side", None))
    return prepare_cache(videos.values(), folder, layout, working=ONE, tell=options.pop("tell", silent), **options)


def test_frames_times_and_rates_are_those_of_the_videos(videos, tmp_path):
    told = []
    done = make(videos, tmp_path / "cache", tell=told.append)
    assert (done.new, done.kept) == (3, 0) and [error.path for error in done.bad] == [str(videos["text"])]
    assert "3 videos to decode (0 are there): 170 frames" in told[0] and "are free" in told[0]
    assert done.num_bytes == 170 * (48 * 64 * 3 + 8)
    cache = FrameCache(tmp_path / "cache")
    for name in ("a", "b", "phone"):
        with open_video(videos[name]) as reader, cache.open(videos[name]) as cached:
            assert (cached.num_frames, cached.fps, cached.duration) == (reader.num_frames, reader.fps, reader.duration)
            np.testing.assert_array_equal(cached.frame_times(), reader.frame_times())
            for wanted in (range(reader.num_frames), [7, 2, 2]):
                np.testing.assert_array_equal(cached.read(wanted), reader.read(wanted))
            with pytest.raises(ValueError, match="outside its frames"):
                cached.read([reader.num_frames])
    assert cache.open(videos["text"]) is None and cache.open("elsewhere.mp4") is None


CLIP = dict(num_frames=4, sampling_rate=3, crop_size=32)
CUTS = [
    dict(training=True, jitter_scales=(32, 44), num_views=2), dict(), dict(num_views=3, num_crops=3),
    dict(training=True, jitter_scales=(50, 60), seed=3),
]  # fmt: skip


@pytest.mark.parametrize("cut", CUTS)
def test_clips_are_the_same_bit_for_bit(videos, tmp_path, cut):
    make(videos, tmp_path / "cache")
    listed = [(str(path), place) for place, path in enumerate(videos.values())]
    plain = video_dataset(listed, **CLIP, **cut)
    cached = video_dataset(listed, **CLIP, **cut, cache=FrameCache(tmp_path / "cache"))
    assert cached.fingerprint() == plain.fingerprint()
    for epoch in (0, 1):
        for ours, theirs in zip([cached[epoch, k] for k in range(4)], [plain[epoch, k] for k in range(4)]):
            if isinstance(theirs, BadVideo):
                assert ours == theirs and theirs.path.endswith("text.mp4")
                continue
            assert torch.equal(ours.clips_VCTHW, theirs.clips_VCTHW) and ours[1:] == theirs[1:]


def test_nothing_is_decoded_in_workers_either(videos, tmp_path, monkeypatch):
    make(videos, tmp_path / "cache")

    def fail(*arguments):
        raise AssertionError("a video was decoded")

    listed = [(str(videos[name]), 0) for name in ("a", "b", "phone")]
    dataset = video_dataset(listed, **CLIP, cache=FrameCache(tmp_path / "cache"))
    monkeypatch.setattr("mutual3d.data.video.pyav_reader.PyAVReader.__init__", fail)
    for num_workers in (0, 2):
        batches = list(clip_loader(dataset, 3, shuffle=False, num_workers=num_workers).batches())
        assert not batches[0].bad and len(batches[0].clips_BVCTHW) == 3


def test_small_copies_change_training_alone_where_tests_want_their_size(videos, tmp_path):
    make(videos, tmp_path / "cache", short_side=32)
    listed = [(str(videos[name]), 0) for name in ("a", "b", "phone")]
    cache = FrameCache(tmp_path / "cache")
    for cut, is_same in ((dict(num_crops=3), True), (dict(training=True, jitter_scales=(36, 44)), False)):
        plain, cached = video_dataset(listed, **CLIP, **cut), video_dataset(listed, **CLIP, **cut, cache=cache)
        assert cached.fingerprint() != plain.fingerprint()
        same = [torch.equal(cached[0, k].clips_VCTHW, plain[0, k].clips_VCTHW) for k in range(3)]
        assert all(same) if is_same else not any(same)
        apart = [(cached[0, k].clips_VCTHW.float() - plain[0, k].clips_VCTHW.float()).abs().mean() for k in range(3)]
        assert max(apart) < 12


def test_frames_that_are_smaller_than_the_copies_stay(videos, tmp_path):
    make({"a": videos["a"]}, tmp_path / "cache", short_side=100)
    assert FrameCache(tmp_path / "cache").open(videos["a"]).read([0]).shape == (1, 48, 64, 3)


def test_another_short_side_is_refused(videos, tmp_path):
    make({"a": videos["a"]}, tmp_path / "cache", short_side=32)
    with pytest.raises(ValueError, match="frame cache made with other arguments.*'short_side': 32.*wanted.*40"):
        make({"a": videos["a"]}, tmp_path / "cache", short_side=40)


def test_a_changed_video_is_decoded_anew_and_told(videos, tmp_path):
    make(videos, tmp_path / "cache")
    write_video(videos["a"], numbered_frames(10))
    cache = FrameCache(tmp_path / "cache")
    assert cache.open(videos["a"]) is None and cache.open(videos["b"]) is not None
    told = cache.check(map(str, videos.values()))
    assert "2 of 4 videos come out" in told and "1 not in it" in told and "1 changed since it was made" in told and str(videos["a"]) in told
    dataset = video_dataset([(str(videos["a"]), 0)], **CLIP, cache=cache)
    assert torch.equal(dataset[0, 0].clips_VCTHW, video_dataset([(str(videos["a"]), 0)], **CLIP)[0, 0].clips_VCTHW)
    # Prepared again, that video alone is decoded.
    done = make(videos, tmp_path / "cache")
    assert (done.new, done.kept) == (1, 2)
    assert FrameCache(tmp_path / "cache").open(videos["a"]).num_frames == 10


def test_a_file_with_another_time_and_the_same_content_is_the_same(videos, tmp_path):
    make(videos, tmp_path / "cache")
    os.utime(videos["a"], (1, 1))
    cache = FrameCache(tmp_path / "cache")
    assert cache.open(videos["a"]) is None
    assert "3 of 4 videos come out" in cache.check(map(str, videos.values()))
    assert cache.open(videos["a"]) is not None
    # As long as before, and another content.
    data = bytearray(videos["b"].read_bytes())
    data[-1] ^= 0xFF
    videos["b"].write_bytes(data)
    assert "1 changed" in cache.check(map(str, videos.values())) and cache.open(videos["b"]) is None
    assert make({"a": videos["a"]}, tmp_path / "cache").kept == 1


def test_none_of_the_videos(videos, tmp_path):
    make({"a": videos["a"]}, tmp_path / "cache")
    with pytest.raises(ValueError, match="none of the 1 videos, such as '.*b.mkv', is in the frame cache"):
        FrameCache(tmp_path / "cache").check([str(videos["b"])])
    with pytest.raises(FileNotFoundError, match="is no frame cache.*mutual3d prepare"):
        FrameCache(tmp_path)
    with pytest.raises(ValueError, match="holds files and no frame_cache.json"):
        make(videos, tmp_path / "videos")


def test_damage_is_found_and_mended(videos, tmp_path):
    make(videos, tmp_path / "cache")
    frames = tmp_path / "cache" / FRAMES
    with open(frames, "r+b") as file:
        file.seek(5000)
        byte = file.read(1)[0]
        file.seek(5000)
        file.write(bytes([byte ^ 1]))
    assert make(videos, tmp_path / "cache").kept == 3
    done = make(videos, tmp_path / "cache", verify=True)
    assert (done.new, done.kept) == (1, 2)
    with open_video(videos["a"]) as reader:
        np.testing.assert_array_equal(FrameCache(tmp_path / "cache").open(videos["a"]).read(range(30)), reader.read(range(30)))
    os.truncate(frames, 1000)
    with pytest.raises(DamagedFileError, match="cut short: run mutual3d prepare --verify"):
        FrameCache(tmp_path / "cache")
    assert make(videos, tmp_path / "cache", verify=True).new == 3
    (tmp_path / "cache" / INDEX).write_text('{"a": 1}')
    with pytest.raises(DamagedFileError, match="no index of a frame cache"):
        FrameCache(tmp_path / "cache")


@pytest.mark.parametrize("verify", [False, True])
def test_frames_that_are_gone_are_decoded_again(videos, tmp_path, verify):
    make(videos, tmp_path / "cache")
    (tmp_path / "cache" / FRAMES).unlink()
    done = make(videos, tmp_path / "cache", verify=verify)
    assert (done.new, done.kept) == (3, 0)
    assert FrameCache(tmp_path / "cache").open(videos["a"]) is not None
    size = (tmp_path / "cache" / FRAMES).stat().st_size
    os.truncate(tmp_path / "cache" / FRAMES, size - 1)
    done = make(videos, tmp_path / "cache", verify=verify)
    assert (done.new, done.kept) == (1, 2)


def test_times_of_files_are_kept_where_nothing_is_decoded(videos, tmp_path):
    make(videos, tmp_path / "cache")
    os.utime(videos["a"], (1, 1))
    index = (tmp_path / "cache" / INDEX).read_text()
    make(videos, tmp_path / "cache", is_dry=True)
    assert (tmp_path / "cache" / INDEX).read_text() == index
    make(videos, tmp_path / "cache")
    assert (tmp_path / "cache" / INDEX).read_text() != index


@pytest.mark.parametrize("content", ["{}", "[]", "null"])
def test_a_folder_that_does_not_say_how_it_was_made(videos, tmp_path, content):
    make(videos, tmp_path / "cache")
    (tmp_path / "cache" / ARGUMENTS).write_text(content)
    with pytest.raises(DamagedFileError, match="frame_cache.json' does not say how the frames were made: delete the folder"):
        FrameCache(tmp_path / "cache")


@pytest.mark.parametrize("offset", [-5, "7", None, 0.5])
def test_an_index_whose_numbers_are_none(videos, tmp_path, offset):
    make(videos, tmp_path / "cache")
    index = read_json(tmp_path / "cache" / INDEX)
    next(iter(index.values()))["offset"] = offset
    write_json(tmp_path / "cache" / INDEX, index)
    with pytest.raises(DamagedFileError, match="is no index of a frame cache"):
        FrameCache(tmp_path / "cache")


def test_a_full_disk_is_told_before_anything_is_written(videos, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(caching.shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    with pytest.raises(OSError, match=r"has 1 kB free and 1.568 MB are needed.*--short-side"):
        make(videos, tmp_path / "cache")
    assert not (tmp_path / "cache" / FRAMES).exists() and not (tmp_path / "cache" / INDEX).exists()
    monkeypatch.undo()
    assert make(videos, tmp_path / "cache", short_side=32).new == 3  # as the message says


def test_a_dry_run_writes_no_frames(videos, tmp_path):
    told = []
    done = make(videos, tmp_path / "cache", is_dry=True, tell=told.append)
    assert done.new == 0 and done.num_bytes and "1.568 MB" in told[0]
    assert not (tmp_path / "cache" / FRAMES).exists()
    # Nor is the folder one of these arguments: what was too large may be stored smaller.
    assert make(videos, tmp_path / "cache", short_side=32).new == 3


def test_a_dry_run_leaves_damage_as_it_is(videos, tmp_path):
    make(videos, tmp_path / "cache")
    with open(tmp_path / "cache" / FRAMES, "r+b") as file:
        file.write(b"damage")
    index = (tmp_path / "cache" / INDEX).read_text()
    assert make(videos, tmp_path / "cache", verify=True, is_dry=True).kept == 2
    assert (tmp_path / "cache" / INDEX).read_text() == index


KILLED = """
import os, sys
from mutual3d.data.prepare import caching
caching._SECONDS_BETWEEN_SAVES = 0
save = caching._Preparation._save
def save_and_die(self, descriptor):
    save(self, descriptor)
    if len(self._index) == 2:
        os._exit(9)
caching._Preparation._save = save_and_die
caching.prepare_cache(sys.argv[2:], sys.argv[1], working=caching.Working(num_workers=1))
"""


def test_a_killed_one_goes_on(videos, tmp_path):
    good = [str(videos[name]) for name in ("a", "b", "phone")]
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "cache"), *good], cwd=ROOT, capture_output=True, text=True)
    assert killed.returncode == 9, killed.stderr
    # What is in the index is whole.
    assert FrameCache(tmp_path / "cache").open(good[1]) is not None and FrameCache(tmp_path / "cache").open(good[2]) is None
    done = prepare_cache(good, tmp_path / "cache", working=ONE, tell=silent)
    assert (done.new, done.kept) == (1, 2)
    cache = FrameCache(tmp_path / "cache")
    for path in good:
        with open_video(path) as reader:
            np.testing.assert_array_equal(cache.open(path).read(range(reader.num_frames)), reader.read(range(reader.num_frames)))


def test_two_at_once_are_refused(videos, tmp_path):
    code = "import sys, time; from mutual3d.utils.run_lock import run_lock\nwith run_lock(sys.argv[1]): print('held', flush=True); time.sleep(60)"
    make({"a": videos["a"]}, tmp_path / "cache")
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "cache")], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(DirectoryInUseError, match="in use"):
            make({"b": videos["b"]}, tmp_path / "cache")
    finally:
        other.kill()
        other.wait()


def test_short_videos_want_the_same_tolerance(videos, tmp_path):
    prepare_cache([videos["a"]], tmp_path / "cache", CacheLayout(opening=caching.VideoOpening(tolerate_short=True)), working=ONE, tell=silent)
    cache = FrameCache(tmp_path / "cache")
    with pytest.raises(ValueError, match="DATA.TOLERATE_SHORT True"):
        video_dataset([(str(videos["a"]), 0)], **CLIP, cache=cache)
    assert len(video_dataset([(str(videos["a"]), 0)], **CLIP, tolerate_short=True, cache=cache)) == 1


# --- the command, and the run that uses what it made ---


def run(*words):
    return prepare.main([str(word) for word in words])


def config(videos, *settings):
    folder = videos["a"].parent
    for split in ("train", "val"):
        (folder / f"{split}.csv").write_text("".join(f"{path.name} {k}\n" for k, path in enumerate(videos.values()) if path.suffix != ".csv"))
    cfg = get_cfg("Demo/MUTUAL_X3D")
    cfg.defrost()
    cfg.merge_from_list(["DATA.PATH_TO_DATA_DIR", str(folder), *settings])
    return cfg


def test_the_command(videos, tmp_path, capsys):
    cache, bad = tmp_path / "cache", tmp_path / "bad.csv"
    words = ("--videos", videos["a"].parent, "--out", cache, "--num-workers", 1, "--bad", bad)
    assert run(*words, "--dry-run") == 1 and "1.568 MB" in capsys.readouterr().out
    assert run(*words) == 1
    out, err = capsys.readouterr()
    assert "3 videos decoded, 0 were there, 1 unreadable; now: DATA.CACHE" in out and "text.mp4" in err
    assert "text.mp4" in bad.read_text()
    assert run(*words) == 1 and "0 videos decoded, 3 were there" in capsys.readouterr().out
    (tmp_path / "list.csv").write_text(f"{videos['a']} 0\n")
    assert run("--videos", tmp_path / "list.csv", "--out", cache) == 0
    assert run("--videos", tmp_path / "none.csv", "--out", cache) == 2 and "error:" in capsys.readouterr().err
    for words in ((), ("--cfg", "x", "--videos", "y"), ("DATA.CACHE", "z", "--videos", "y")):
        with pytest.raises(SystemExit):
            run(*words, "--out", cache)


def test_a_run_reads_what_the_command_made(videos, tmp_path, caplog):
    cfg = config(videos)
    (tmp_path / "config.yaml").write_text(f"DATA:\n  PATH_TO_DATA_DIR: {cfg.DATA.PATH_TO_DATA_DIR}\n")
    words = ("--out", tmp_path / "cache", "--num-workers", 1)
    assert run("--cfg", tmp_path / "config.yaml", *words) == 1
    caplog.set_level(logging.INFO)
    cfg.DATA.CACHE = str(tmp_path / "cache")
    dataset = build_dataset(cfg, "train", "train")
    build_dataset(cfg, "train", "train")
    (told,) = [record.getMessage() for record in caplog.records if "frame cache" in record.getMessage()]
    assert "3 of 4 videos come out of the frame cache" in told and "1 not in it" in told
    assert dataset.cache.open(videos["a"]) is not None
    cfg.DATA.CACHE = ""
    assert build_dataset(cfg, "train", "train").cache is None
