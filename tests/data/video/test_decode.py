"""Frames by index, against a decode of the whole file."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from videos import cut_video, decode_all, moving_frames, write_audio, write_video

from mutual3d.data.video.decode import VideoError, check_backend, open_video

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


def test_rotation_agrees_with_decord(tmp_path):
    pytest.importorskip("decord")
    path = write_video(tmp_path / "turned.mp4", moving_frames(6, 128, 64), rotation=90)
    with open_video(path) as ours, open_video(path, "decord") as theirs:
        np.testing.assert_allclose(ours.read([0, 3]).astype(int), theirs.read([0, 3]).astype(int), atol=2)


def test_decord_agrees_on_a_plain_file(tmp_path):
    pytest.importorskip("decord")
    path = write_video(tmp_path / "clip.mp4", moving_frames(30, 64, 64), b_frames=2)
    with open_video(path) as ours, open_video(path, "decord") as theirs:
        assert (ours.num_frames, ours.fps) == (theirs.num_frames, theirs.fps)
        wanted = [7, 3, 3, 29]
        np.testing.assert_allclose(ours.read(wanted).astype(int), theirs.read(wanted).astype(int), atol=2)


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


def test_index_out_of_range(tmp_path):
    with open_video(write_video(tmp_path / "clip.mp4", moving_frames(5))) as reader:
        for wanted in ([5], [-1], []):
            with pytest.raises(ValueError, match="outside its frames 0..4|at least one"):
                reader.read(wanted)


@pytest.mark.parametrize("backend", ["pyav", "decord"])
def test_what_is_no_video_names_path_and_cause(tmp_path, backend):
    if backend == "decord":
        pytest.importorskip("decord")
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
    with pytest.raises(ValueError, match="'opencv'.*pyav, decord"):
        check_backend("opencv")
    monkeypatch.setattr("mutual3d.data.video.decode._warned", set())
    assert check_backend("torchvision") == check_backend("torchvision") == "pyav"
    assert sum("torchvision" in record.getMessage() for record in caplog.records) == 1
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install -e .\[decord\]"):
        check_backend("decord")


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


def write_phone_video(path, **options):
    """Thirty frames a second, then fifteen, as phones record in the dark."""
    times = [10 * k for k in range(30)] + [300 + 20 * k for k in range(30)]
    return write_video(path, moving_frames(60), times=times, **options)


@pytest.mark.parametrize("backend", ["pyav", "decord"])
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_seconds_of_a_varying_rate(tmp_path, backend, ending):
    if backend == "decord":
        pytest.importorskip("decord")
    with open_video(write_phone_video(tmp_path / f"phone.{ending}", b_frames=2), backend) as reader:
        times = [k / 30 for k in range(30)] + [1 + k / 15 for k in range(30)]
        assert reader.frame_times().tolist() == pytest.approx(times, abs=1e-3)
        assert reader.index_at(0.5) == 15 and reader.index_at(2) == 45 and reader.time_of(45) == pytest.approx(2, abs=1e-3)
        assert reader.duration == pytest.approx(3, abs=2e-3)


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


@pytest.mark.parametrize("backend", ["pyav", "decord"])
@pytest.mark.parametrize("codec, ending", [("libx264", "mp4"), ("mpeg4", "avi"), ("mpeg4", "mp4")])
def test_damage_before_a_wanted_frame_is_told(tmp_path, codec, ending, backend):
    """The wanted frame's own packet is whole, and its decoder flags nothing: the one that it refers to is damaged."""
    if backend == "decord":
        pytest.importorskip("decord")
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


def test_decord_reads_what_was_found_sound_and_pyav_looks_once(tmp_path, monkeypatch):
    pytest.importorskip("decord")
    from mutual3d.data.video.decord_reader import DecordReader

    path = write_video(tmp_path / "clip.mp4", moving_frames(40), gop=10, b_frames=2)
    looked, read = [], []
    look, give = DecordReader._decodes, DecordReader._decode_by_decord
    monkeypatch.setattr(DecordReader, "_decodes", lambda *run: looked.append(run[1:]) or look(*run))
    monkeypatch.setattr(DecordReader, "_decode_by_decord", lambda self, wanted: read.append(wanted) or give(self, wanted))
    for _ in range(2):
        with open_video(path, "decord") as reader:
            np.testing.assert_allclose(reader.read([13, 34]).astype(int), decode_all(path)[[13, 34]].astype(int), atol=8)
    assert len(looked) == 2 and read == [[13, 34]] * 2


@pytest.mark.parametrize("options, ending", [({"x264-params": "open-gop=1:bframes=3:scenecut=0:b-adapt=0"}, "mp4"), ({}, "ts")])
def test_decord_is_exact_where_its_own_frames_are_not(tmp_path, options, ending):
    pytest.importorskip("decord")
    path = write_video(tmp_path / f"clip.{ending}", moving_frames(40), gop=10, b_frames=3, options=options)
    assert_exact(path, backend="decord")
