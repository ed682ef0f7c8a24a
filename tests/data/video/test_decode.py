"""Frames by index, against a decode of the whole file."""

import importlib
import logging
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from backends import backends, every_backend
from videos import (
    cut_video,
    decode_all,
    moving_frames,
    numbered_frames,
    write_audio,
    write_joined_video,
    write_late_video,
    write_phone_video,
    write_size_change,
    write_video,
)  # fmt: skip

from mutual3d.data.video import decode
from mutual3d.data.video.decode import BACKENDS, BY_SPEED, VideoError, VideoOpening, check_backend, open_video

CLIPS = Path(__file__).resolve().parents[3] / "../shared/data/clips"


def assert_exact(path, expected=None, expect_indexed=None, **options):
    """Every frame, and random sets of them, equal what a full decode gives."""
    expected = decode_all(path) if expected is None else expected
    generator = np.random.default_rng(0)
    with open_video(path, **options) as reader:
        assert reader.num_frames == len(expected)
        if expect_indexed is not None:
            assert reader._is_indexed == expect_indexed
        requests = [range(len(expected)), [0], [len(expected) - 1]]
        requests += [generator.integers(0, len(expected), 5).tolist() for _ in range(6)]
        for request in requests:
            np.testing.assert_array_equal(reader.read(request), expected[list(request)])


@pytest.mark.parametrize("gop", [1, 5, 250])
@pytest.mark.parametrize("b_frames", [0, 3])
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_gop_lengths_and_b_frames(tmp_path, gop, b_frames, ending):
    path = write_video(tmp_path / f"clip.{ending}", moving_frames(40), gop=gop, b_frames=b_frames, audio=True)
    assert_exact(path, expect_indexed=True)


def test_b_frames_are_really_there(tmp_path):
    path = write_video(tmp_path / "clip.mp4", moving_frames(40), b_frames=3)
    with av.open(str(path)) as container:
        times = [packet.pts for packet in container.demux(video=0) if packet.size]
    assert times != sorted(times)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_variable_frame_rate(tmp_path, ending):
    times = np.cumsum(np.random.default_rng(1).integers(3, 40, 40)).tolist()
    path = write_video(tmp_path / f"vfr.{ending}", moving_frames(40), b_frames=2, times=times)
    assert_exact(path, expect_indexed=True)
    with open_video(path) as reader:
        assert reader.fps == pytest.approx(39 / ((times[-1] - times[0]) / 300), rel=0.06)


def test_open_gop(tmp_path):
    options = {"x264-params": "open-gop=1:bframes=3:scenecut=0:b-adapt=0"}
    path = write_video(tmp_path / "open.mp4", moving_frames(40), gop=10, b_frames=3, options=options)
    with open_video(path) as reader:
        keyframes = np.flatnonzero(reader._table.is_keyframe)
        times = reader._table.pts
        assert times[keyframes[1] + 1] < times[keyframes[1]], "the file has no open GOP"
    assert_exact(path, expect_indexed=True)


@pytest.mark.parametrize("options", [{}, {"x264-params": "open-gop=1:bframes=3:scenecut=0:b-adapt=0"}])
@pytest.mark.parametrize("start", [0.2, 0.55, 1.03])
def test_stream_copied_cut_with_edit_list(tmp_path, start, options):
    source = write_video(tmp_path / "source.mp4", moving_frames(50), gop=15, b_frames=2, options=options)
    cut = cut_video(source, tmp_path / "cut.mp4", start)
    with av.open(str(cut)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert any(packet.is_discard for packet in packets) or start == 0.2 or options
    assert_exact(cut)
    assert_exact(cut_video(source, tmp_path / "cut.mkv", start))


def test_intra_refresh(tmp_path):
    options = {"x264-params": "intra-refresh=1"}
    assert_exact(write_video(tmp_path / "refresh.mp4", moving_frames(40), gop=10, options=options))


@pytest.mark.parametrize(
    "codec, ending, b_frames",
    [
        ("mpeg4", "avi", 0),
        ("mpeg4", "avi", 2),
        ("mpeg4", "mp4", 2),
        ("mjpeg", "avi", 0),
        ("libvpx", "webm", 0),
        ("libvpx-vp9", "webm", 0),
        ("libx264", "avi", 3),
        ("libx264", "ts", 2),
        ("libx264", "flv", 2),
        ("mpeg2video", "mpg", 2),
    ],
)
def test_codecs_and_containers(tmp_path, codec, ending, b_frames):
    if codec not in av.codecs_available:
        pytest.skip(f"no encoder {codec}")
    options = {"auto-alt-ref": "1", "lag-in-frames": "16"} if codec == "libvpx" else {}
    path = tmp_path / f"clip.{ending}"
    assert_exact(write_video(path, moving_frames(40), codec=codec, b_frames=b_frames, options=options))


def write_header_first(folder, frames):
    """An mp4 that keeps its header when its end is cut off."""
    source = write_video(folder / "source.mp4", frames, gop=12)
    target = folder / "header_first.mp4"
    with av.open(str(source)) as reader, av.open(str(target), "w", options={"movflags": "faststart"}) as writer:
        copy = writer.add_stream_from_template(reader.streams.video[0])
        for packet in reader.demux(video=0):
            if packet.size:
                packet.stream = copy
                writer.mux(packet)
    return target


@pytest.mark.parametrize("share", [0.4, 0.6, 0.95])
def test_truncated_mp4_gives_the_frames_that_are_there(tmp_path, share):
    whole = write_header_first(tmp_path, moving_frames(40))
    truncated = tmp_path / "truncated.mp4"
    truncated.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    with open_video(truncated, tolerate_short=True) as reader:
        assert 0 < reader.num_frames < 40
        num_frames = reader.num_frames
    assert_exact(truncated, expected=decode_all(whole)[:num_frames], tolerate_short=True)


def test_truncated_before_the_header_of_an_mp4(tmp_path):
    path = write_video(tmp_path / "clip.mp4", moving_frames(20))
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(VideoError, match="header is damaged"):
        open_video(path)


def test_flipped_bits_are_an_error(tmp_path):
    path = write_video(tmp_path / "clip.mkv", moving_frames(40, 96, 128), gop=40)
    data = bytearray(path.read_bytes())
    for place in range(len(data) // 2, len(data) // 2 + 40):
        data[place] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(VideoError, match="damaged|does not decode"), open_video(path) as reader:
        reader.read(range(reader.num_frames))


@pytest.mark.parametrize("rotation, turns", [(90, 1), (180, 2), (-90, -1)])
def test_rotation_is_applied(tmp_path, rotation, turns):
    path = write_video(tmp_path / "turned.mp4", moving_frames(6, 128, 64), rotation=rotation)
    expected = np.rot90(decode_all(path), turns, axes=(1, 2))
    assert_exact(path, expected=expected)


# --- the other backends ---

OPEN_GOP = {"x264-params": "open-gop=1:bframes=3:scenecut=0:b-adapt=0"}


def _edit_list(path):
    return cut_video(write_video(path.with_name("whole.mp4"), numbered_frames(50), gop=15, b_frames=2), path, 0.55)


# {what is special about a video: its file's ending, and what writes it}
KINDS = {
    "B-frames": ("mp4", lambda path: write_video(path, numbered_frames(40), b_frames=3)),
    "mkv": ("mkv", lambda path: write_video(path, numbered_frames(40), gop=250, b_frames=3, audio=True)),
    "varying rate": ("mp4", lambda path: write_phone_video(path, b_frames=2)),
    "late start": ("mp4", write_late_video),
    "edit list": ("mp4", _edit_list),
    "cut mkv": ("mkv", _edit_list),
    "open GOP": ("mp4", lambda path: write_video(path, numbered_frames(40), gop=10, b_frames=3, options=OPEN_GOP)),
    "turned": ("mp4", lambda path: write_video(path, numbered_frames(12, 128, 64), rotation=90)),
    "upside down": ("mp4", lambda path: write_video(path, numbered_frames(12), rotation=180)),
    "odd sides": ("mp4", lambda path: write_video(path, moving_frames(12, 56, 72)[:, :50, :66])),
    "another size": ("mkv", write_size_change),
    "transport stream": ("ts", lambda path: write_video(path, numbered_frames(30), b_frames=2)),
    "joined": ("ts", write_joined_video),
    "avi": ("avi", lambda path: write_video(path, numbered_frames(30), codec="mpeg4", b_frames=2)),
    "mjpeg": ("avi", lambda path: write_video(path, numbered_frames(10), codec="mjpeg")),
    "VP9": ("webm", lambda path: write_video(path, numbered_frames(20), codec="libvpx-vp9")),
    "one frame": ("mp4", lambda path: write_video(path, numbered_frames(1))),
}  # fmt: skip


# How far values of two conversions of a frame to RGB are apart at most: each backend brings another FFmpeg.
TOLERANCES = {"decord": 8, "torchcodec": 2}


def assert_same_frames(path, backend):
    """The same frames by the same numbers at the same seconds."""
    with open_video(path) as ours, open_video(path, backend) as theirs:
        assert (theirs.num_frames, theirs.fps) == (ours.num_frames, ours.fps)
        np.testing.assert_array_equal(theirs.frame_times(), ours.frame_times())
        last = ours.num_frames - 1
        for wanted in ([last // 2], [last, 0, last // 3, last // 3], range(0, ours.num_frames, last // 50 + 1)):
            apart = np.abs(ours.read(wanted).astype(np.int16) - theirs.read(wanted))
            assert apart.max() <= TOLERANCES[backend]


@pytest.mark.parametrize("backend", backends("decord", "torchcodec"))
@pytest.mark.parametrize("kind", KINDS)
def test_every_backend_has_the_same_frames(tmp_path, kind, backend):
    ending, write = KINDS[kind]
    assert_same_frames(write(tmp_path / f"v.{ending}"), backend)


@pytest.mark.skipif(not CLIPS.is_dir(), reason="no sample clips")
@pytest.mark.parametrize("backend", backends("decord", "torchcodec"))
@pytest.mark.parametrize("name", sorted(str(path.relative_to(CLIPS)) for path in CLIPS.glob("*/*.*")))
def test_every_backend_has_the_same_frames_of_sample_clips(name, backend):
    assert_same_frames(CLIPS / name, backend)


def test_single_frame(tmp_path):
    path = write_video(tmp_path / "one.mp4", moving_frames(1))
    assert_exact(path)
    with open_video(path) as reader:
        assert reader.num_frames == 1 and reader.fps > 0


def test_reading_given_up_halfway_leaves_nothing_behind(tmp_path):
    path = write_video(tmp_path / "clip.mp4", moving_frames(40), gop=20, b_frames=2)
    expected = decode_all(path)
    with open_video(path) as reader:
        next(reader.frames(range(30)))
        np.testing.assert_array_equal(reader.read([25, 2]), expected[[25, 2]])


def test_failed_seek_decodes_from_the_start(tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.mp4", moving_frames(40), gop=10)
    expected = decode_all(path)
    with open_video(path) as reader:
        monkeypatch.setattr(reader, "_packets_of_run", lambda run: iter(()))
        np.testing.assert_array_equal(reader.read([35, 12]), expected[[35, 12]])


def test_only_what_is_needed_is_decoded(tmp_path, monkeypatch):
    options = {"x264-params": "scenecut=0"}
    path = write_video(tmp_path / "clip.mp4", moving_frames(60), gop=10, options=options)
    with open_video(path) as reader:
        sent = []
        decode = reader._decode
        monkeypatch.setattr(reader, "_decode", lambda packet: sent.append(packet) or decode(packet))
        reader.read([33, 35, 35, 33])
        assert len([packet for packet in sent if packet is not None]) == 6


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize("gop", [1, 2, 3, 10])
def test_packets_are_read_from_the_keyframe_on_that_is_needed(tmp_path, gop, ending, monkeypatch):
    """Whatever a container calls the time that is sought: with B-frames a packet is decoded before it is shown."""
    options = {"x264-params": "scenecut=0"}
    path = write_video(tmp_path / f"clip.{ending}", moving_frames(60), gop=gop, b_frames=3, options=options)
    expected = decode_all(path)
    with open_video(path) as reader:
        read = []
        demux = reader._demux
        monkeypatch.setattr(reader, "_demux", lambda: (read.append(packet) or packet for packet in demux()))
        monkeypatch.setattr(reader, "_decode_from_start", lambda missing: pytest.fail("seeking missed the keyframe"))
        for index in range(60):
            read.clear()
            np.testing.assert_array_equal(reader.read([index]), expected[[index]])
            # Those of one group and the one behind it; a keyframe that is decoded before the sought time is met once, in vain.
            assert len(read) <= gop + 2 + (2 if gop < 4 else 0), index


def test_index_out_of_range(tmp_path):
    with open_video(write_video(tmp_path / "clip.mp4", moving_frames(5))) as reader:
        for wanted in ([5], [-1], []):
            with pytest.raises(ValueError, match="outside its frames 0..4|at least one"):
                reader.read(wanted)


@every_backend
def test_what_is_no_video_names_path_and_cause(tmp_path, backend):
    text, empty, folder, missing = (tmp_path / f"{name}.mp4" for name in ("text", "empty", "folder", "missing"))
    text.write_text("no video at all\n" * 100)
    empty.write_bytes(b"")
    folder.mkdir()
    sound = write_audio(tmp_path / "sound.mp4")
    causes = {}
    for path in (text, empty, folder, missing, sound):
        with pytest.raises(VideoError) as caught:
            open_video(path, backend)
        assert caught.value.path == str(path) and f"cannot read video '{path}': " in str(caught.value)
        causes[path.stem] = caught.value.cause
    assert len(set(causes.values())) == 5, causes


def test_causes_of_the_reference_backend(tmp_path):
    sound = write_audio(tmp_path / "sound.mp4")
    with pytest.raises(VideoError, match="no video stream"):
        open_video(sound)
    header = write_header_first(tmp_path, moving_frames(5))
    data = header.read_bytes()
    header.write_bytes(data[: data.index(b"mdat") + 4])
    with pytest.raises(VideoError, match="no decodable frame"):
        open_video(header)


def test_backends(monkeypatch, caplog):
    with pytest.raises(ValueError, match="'opencv'.*pyav, decord, torchcodec, auto"):
        check_backend("opencv")
    monkeypatch.setattr("mutual3d.data.video.decode._told", set())
    assert check_backend("torchvision") == check_backend("torchvision") == "pyav"
    assert sum("torchvision" in record.getMessage() for record in caplog.records) == 1
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for backend in ("decord", "torchcodec"):
        with pytest.raises(ImportError, match=rf"pip install -e .\[{backend}\]"):
            check_backend(backend)


def test_auto_is_the_fastest_of_those_that_work_and_says_so(tmp_path, monkeypatch, caplog):
    """Which is the fastest was measured once: the benchmark's last run."""
    assert sorted(BY_SPEED) == sorted(BACKENDS)
    caplog.set_level(logging.INFO)
    for installed, taken in (({"decord", "torchcodec", "pyav"}, BY_SPEED[0]), ({"pyav"}, "pyav")):
        monkeypatch.setattr("mutual3d.data.video.decode._told", set())
        monkeypatch.setattr("mutual3d.data.video.decode.what_is_missing", lambda name: "" if name in installed else "gone")
        caplog.clear()
        assert check_backend("auto") == check_backend("auto") == VideoOpening("auto").backend == taken
        (told,) = [record.getMessage() for record in caplog.records]
        assert f"decoded by '{taken}'" in told and all(name in told for name in installed)
    path = write_video(tmp_path / "v.mp4", moving_frames(3))
    with open_video(path, "auto") as reader:
        assert reader.num_frames == 3


@pytest.mark.parametrize("is_lazy", [False, True], ids=["when_imported", "when_it_first_decodes"])
def test_ffmpeg_without_its_libraries_is_told_in_a_sentence(monkeypatch, is_lazy):
    def fail(name):
        raise RuntimeError("Could not load libtorchcodec. Likely causes:\n[... libavutil.so.59: cannot open shared object file]")

    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("importlib.import_module", (lambda name: SimpleNamespace(VideoDecoder=fail)) if is_lazy else fail)
    decode._missing_libraries.cache_clear()
    try:
        with pytest.raises(ImportError, match=r"^[^\n]*libavutil.so.59 is missing[^\n]*apt-get install ffmpeg[^\n]*$"):
            check_backend("torchcodec")
    finally:
        decode._missing_libraries.cache_clear()


def test_frame_rate(tmp_path):
    path = write_video(tmp_path / "clip.mp4", moving_frames(10), fps=25)
    ntsc = write_video(tmp_path / "ntsc.mp4", moving_frames(10), fps=Fraction(30000, 1001))
    with open_video(path) as first, open_video(ntsc) as second:
        assert first.fps == 25.0 and second.fps == pytest.approx(30000 / 1001)


@pytest.mark.skipif(not CLIPS.is_dir(), reason="no sample clips")
@pytest.mark.parametrize("name", sorted(str(path.relative_to(CLIPS)) for path in CLIPS.glob("*/*.*")))
def test_sample_clips(name):
    assert_exact(CLIPS / name)


# --- the clock ---


@every_backend
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_seconds_of_a_varying_rate(tmp_path, backend, ending):
    with open_video(write_phone_video(tmp_path / f"phone.{ending}", b_frames=2), backend) as reader:
        times = [k / 30 for k in range(60)] + [2 + k / 15 for k in range(60)]
        assert reader.frame_times().tolist() == pytest.approx(times, abs=1e-3)
        assert reader.index_at(0.5) == 15 and reader.index_at(3) == 75 and reader.time_of(75) == pytest.approx(3, abs=1e-3)
        assert reader.duration == pytest.approx(6, abs=2e-3)


def test_a_picture_that_starts_after_the_sound(tmp_path):
    path = write_video(tmp_path / "late.mp4", moving_frames(20), fps=10, times=[70 + 10 * k for k in range(20)], audio=True)
    with open_video(path) as reader:
        assert reader.time_of(0) == pytest.approx(0.7) and reader.time_of(19) == pytest.approx(2.6)
        assert reader.index_at(1.0) == 3 and reader.index_at(0) == 0


def test_joined_transport_streams_ascend_and_lose_no_frame(tmp_path):
    first = write_video(tmp_path / "a.ts", moving_frames(12), fps=10, b_frames=2)
    second = write_video(tmp_path / "b.ts", moving_frames(10, seed=1), fps=10)
    glued = tmp_path / "glued.ts"
    glued.write_bytes(first.read_bytes() + second.read_bytes())
    with open_video(glued) as reader:
        assert reader.num_frames == 22
        np.testing.assert_allclose(np.diff(reader.frame_times()), 0.1, atol=1e-6)
        assert [reader.index_at(reader.time_of(index)) for index in range(22)] == list(range(22))
        assert reader.fps == pytest.approx(10)
    assert_exact(glued)


@every_backend
@pytest.mark.parametrize("codec, ending", [("libx264", "mp4"), ("mpeg4", "avi"), ("mpeg4", "mp4")])
def test_damage_before_a_wanted_frame_is_told(tmp_path, codec, ending, backend):
    """The wanted frame's own packet is whole, and its decoder flags nothing: the one that it refers to is damaged."""
    path = write_video(tmp_path / f"clip.{ending}", moving_frames(40), codec=codec, gop=40)
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    place, size = packets[20]
    data[place + size // 3 : place + size] = bytes(size - size // 3)
    path.write_bytes(data)
    with open_video(path, backend) as reader:
        assert len(reader.read(range(18))) == 18
        with pytest.raises(VideoError, match="damaged|does not decode"):
            reader.read([24])


def test_an_mjpeg_picture_is_not_filled_up_with_an_earlier_one(tmp_path):
    path = write_video(tmp_path / "clip.avi", moving_frames(20), codec="mjpeg")
    with av.open(str(path)) as container:
        place, size = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size][10]
    data = bytearray(path.read_bytes())
    tables = data.index(b"\xff\xdb", place)
    assert tables < place + size
    # A comment in place of the quantisation tables: the decoder takes those of the picture before.
    data[tables + 1] = 0xFE
    path.write_bytes(data)
    with open_video(path) as reader, pytest.raises(VideoError, match="does not decode|damaged"):
        reader.read([9, 10])


OTHERS = {"decord": ("decord_reader", "DecordReader"), "torchcodec": ("torchcodec_reader", "TorchcodecReader")}


@pytest.mark.parametrize("backend", backends(*OTHERS))
def test_another_backend_reads_what_was_found_sound_and_pyav_looks_once(tmp_path, monkeypatch, backend):
    module, name = OTHERS[backend]
    kind = getattr(importlib.import_module(f"mutual3d.data.video.{module}"), name)
    path = write_video(tmp_path / "clip.mp4", moving_frames(40), gop=10, b_frames=2)
    looked, read = [], []
    look, give = kind._decodes, kind._decode_by_other
    monkeypatch.setattr(kind, "_decodes", lambda *run: looked.append(run[1:]) or look(*run))
    monkeypatch.setattr(kind, "_decode_by_other", lambda self, wanted: read.append(wanted) or give(self, wanted))
    for _ in range(2):
        with open_video(path, backend) as reader:
            np.testing.assert_allclose(reader.read([13, 34]).astype(int), decode_all(path)[[13, 34]].astype(int), atol=8)
    assert len(looked) == 2 and read == [[13, 34]] * 2


@pytest.mark.parametrize("backend", backends(*OTHERS))
@pytest.mark.parametrize("options, ending", [(OPEN_GOP, "mp4"), ({}, "ts")])
def test_another_backend_is_exact_where_its_own_frames_are_not(tmp_path, options, ending, backend):
    path = write_video(tmp_path / f"clip.{ending}", moving_frames(40), gop=10, b_frames=3, options=options)
    assert_exact(path, backend=backend)


@pytest.mark.parametrize("backend", backends("torchcodec"))
def test_frames_of_other_times_are_not_taken(tmp_path, monkeypatch, backend):
    from torchcodec.decoders import VideoDecoder

    path = write_video(tmp_path / "clip.mp4", moving_frames(40), gop=10)
    give = VideoDecoder.get_frames_at
    monkeypatch.setattr(VideoDecoder, "get_frames_at", lambda self, wanted: give(self, [(index + 1) % 40 for index in wanted]))
    assert_exact(path, backend=backend)
