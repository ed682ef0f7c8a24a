"""What is opened, how it stands and how long it should be: every backend."""

import shutil
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from backends import every_backend
from clips import video_dataset
from videos import decode_all, moving_frames, write_audio, write_video

from mutual3d.data.datasets.dataset import BadVideo
from mutual3d.data.video import pyav_reader
from mutual3d.data.video.decode import VideoError, open_video
from mutual3d.data.video.orientation import upright


def cut(path, share):
    """The file without its end, under another name."""
    target = path.with_name(f"cut_{path.name}")
    data = path.read_bytes()
    target.write_bytes(data[: int(share * len(data))])
    return target


# --- names and formats ---


@every_backend
@pytest.mark.parametrize("name", ["12:30:15.mp4", "pipe:3.mp4", "http:x.mp4", "-i.mp4", "%03d.mp4", "a b\u2028c.mp4"])
def test_a_name_is_a_file_whatever_it_looks_like(tmp_path, monkeypatch, backend, name):
    write_video(tmp_path / "v.mp4", moving_frames(6)).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with open_video(name, backend) as reader:
        assert reader.num_frames == 6 and reader.read([5]).shape == (1, 48, 64, 3)


@every_backend
@pytest.mark.parametrize(
    "script, cause",
    [
        ("ffconcat version 1.0\nfile self.mp4\n", "ffconcat"),
        ("ffconcat version 1.0\nfile other.mp4\n", "ffconcat"),
        ("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n", "m3u8"),
        ("\ufeff#EXTM3U\n#EXTINF:1,\nother.mp4\n", "m3u8"),
        ('<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>\n', "DASH"),
        ("v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n", "SDP"),
    ],
)
@pytest.mark.parametrize("ending", ["mp4", "ffconcat", "m3u8", "sdp"])
def test_a_playlist_opens_nothing(tmp_path, backend, script, cause, ending):
    write_video(tmp_path / "other.mp4", moving_frames(6))
    playlist = tmp_path / f"self.{ending}"
    playlist.write_text(script, encoding="utf-8")
    with pytest.raises(VideoError, match=f"{cause}.*only videos themselves are opened"):
        open_video(playlist, backend)


@every_backend
def test_what_ffmpeg_would_read_but_is_no_video_container(tmp_path, backend):
    path = tmp_path / "subtitles.mp4"
    path.write_text("1\n00:00:00,000 --> 00:00:01,000\nwords\n")
    with pytest.raises(VideoError, match="not a video in a container that is read"):
        open_video(path, backend)


@every_backend
def test_a_link_to_a_video_is_one(tmp_path, backend):
    (tmp_path / "link.mp4").symlink_to(write_video(tmp_path / "v.mp4", moving_frames(3)))
    with open_video(tmp_path / "link.mp4", backend) as reader:
        assert reader.num_frames == 3


@every_backend
def test_metadata_that_are_not_utf8(tmp_path, backend):
    path = tmp_path / "v.avi"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "HMDB XYZ"
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for image in moving_frames(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    assert data.count(b"HMDB XYZ") == 1
    path.write_bytes(data.replace(b"HMDB XYZ", b"HMDB \xff\xe4\xfe"))
    with open_video(path, backend) as reader:
        assert reader.num_frames == 5


@every_backend
def test_any_failure_is_a_bad_video_with_its_cause(tmp_path, monkeypatch, backend):
    path = write_video(tmp_path / "v.mp4", moving_frames(8))
    dataset = video_dataset([(str(path), 0)], num_frames=2, sampling_rate=1, crop_size=16, backend=backend)

    def fail(*arguments, **options):
        raise MemoryError("no room")

    targets = {
        "pyav": "mutual3d.data.video.pyav_reader.orientation_of_frame", "decord": "decord.VideoReader.get_batch",
        "torchcodec": "torchcodec.decoders.VideoDecoder.get_frames_at",
    }  # fmt: skip
    monkeypatch.setattr(targets[backend], fail)
    with open_video(path, backend) as reader, pytest.raises(VideoError, match="no room"):
        reader.read([0])
    bad = dataset[0, 0]
    assert isinstance(bad, BadVideo) and bad.path == str(path) and "no room" in bad.cause
    monkeypatch.setattr("mutual3d.data.datasets.kinetics.UniformCrops", fail)
    assert dataset[0, 0].cause


def test_decord_in_a_program_that_asked_it_for_tensors(tmp_path):
    decord = pytest.importorskip("decord")
    path = write_video(tmp_path / "v.mp4", moving_frames(6, 64, 64))
    with open_video(path, "decord") as reader:
        expected = reader.read([1, 4])
    decord.bridge.set_bridge("torch")
    try:
        with open_video(path, "decord") as reader:
            np.testing.assert_array_equal(reader.read([1, 4]), expected)
    finally:
        decord.bridge.reset_bridge()


# --- orientation and size ---

ONE = 1 << 16
# (a, b, c, d) of a display matrix, and EXIF's number for it.
MATRICES = {
    (1, 0, 0, 1): 1, (-1, 0, 0, 1): 2, (-1, 0, 0, -1): 3, (1, 0, 0, -1): 4, (0, 1, 1, 0): 5, (0, 1, -1, 0): 6,
    (0, -1, -1, 0): 7, (0, -1, 1, 0): 8, (0, 0, 0, 0): 1, (1, 0, 0, 0): 1, (1, 1, 1, 1): 1,
}  # fmt: skip


@every_backend
@pytest.mark.parametrize("matrix, orientation", MATRICES.items())
def test_every_display_matrix(tmp_path, backend, matrix, orientation):
    path = write_video(tmp_path / "v.mp4", moving_frames(4, 64, 96))
    expected = decode_all(path)
    plain, data = struct.pack(">9i", ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30), path.read_bytes()
    a, b, c, d = (number * ONE for number in matrix)
    place = data.rindex(plain)
    path.write_bytes(data[:place] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[place + 36 :])
    with open_video(path, backend) as reader:
        frames = reader.read(range(4))
    for frame, stored in zip(frames, expected, strict=True):
        np.testing.assert_allclose(frame.astype(int), upright(stored, orientation).astype(int), atol=2)


@every_backend
def test_a_picture_that_changes_its_size_keeps_one(tmp_path, backend):
    first = write_video(tmp_path / "a.h264", moving_frames(6, 64, 96), b_frames=0)
    second = write_video(tmp_path / "b.h264", moving_frames(6, 96, 64), b_frames=0)
    raw, glued = tmp_path / "raw.h264", tmp_path / "glued.mkv"
    raw.write_bytes(first.read_bytes() + second.read_bytes())
    with av.open(str(raw)) as source, av.open(str(first)) as header, av.open(str(glued), "w") as target:
        copy = target.add_stream_from_template(header.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        for number, packet in enumerate(packets):
            packet.stream, packet.pts, packet.dts, packet.duration = copy, number * 33, number * 33, 33
            packet.time_base = Fraction(1, 1000)
            target.mux(packet)
    with open_video(glued, backend) as reader:
        assert reader.num_frames == 12
        (shape,) = {image.shape for _, image in reader.frames(range(12))}
        assert shape in ((64, 96, 3), (96, 64, 3))
        assert {reader.read([index]).shape[1:] for index in (9, 2, 11)} == {shape}
        # The same picture, whatever was read before it.
        np.testing.assert_array_equal(reader.read([9, 2])[0], reader.read([9])[0])


# --- length and rate ---

CONTAINERS = [
    ("libx264", "mkv", False), ("libx264", "mkv", True), ("libvpx-vp9", "webm", False), ("mjpeg", "avi", False),
    ("mpeg4", "avi", True), ("libx264", "flv", False), ("libx264", "flv", True),
]  # fmt: skip


@every_backend
@pytest.mark.parametrize("codec, ending, audio", CONTAINERS)
def test_a_cut_video_is_named_with_both_numbers(tmp_path, codec, ending, audio, backend):
    whole = write_video(tmp_path / f"v.{ending}", moving_frames(60), codec=codec, audio=audio)
    with open_video(whole, backend) as reader:
        assert reader.num_frames >= 58
    short = cut(whole, 0.7)
    with open_video(short, backend, tolerate_short=True) as reader:
        num_frames = reader.num_frames
    with pytest.raises(VideoError, match=rf"announces (60|6[1-5]) frames, and {num_frames} are there .*TOLERATE_SHORT"):
        open_video(short, backend)


@every_backend
def test_a_hole_in_a_constant_rate_is_named(tmp_path, backend):
    """Blocks lost from the middle of a Matroska: its last frame is where it should be."""
    held = write_video(tmp_path / "held.mkv", moving_frames(24), times=[10 * k + (240 if k > 11 else 0) for k in range(24)])
    with pytest.raises(VideoError, match="announces 48 frames, and 24 are there"):
        open_video(held, backend)
    slower = write_video(tmp_path / "slower.mkv", moving_frames(24), times=[10 * k + max(k - 12, 0) * 20 for k in range(24)])
    with open_video(slower, backend) as reader:
        assert reader.num_frames == 24


@every_backend
def test_sound_that_goes_on_after_the_picture_is_no_cut(tmp_path, backend):
    """Matroska without its tags, as mkclean and browsers write it, and FLV tell one length for all tracks."""
    for ending in ("mkv", "flv", "mp4", "avi"):
        path = tmp_path / f"v.{ending}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=30)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            sound = container.add_stream("aac", rate=16000, layout="mono")
            for image in moving_frames(15):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))
            for start in range(0, 48000, 1024):
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 16000, start
                container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
        path.write_bytes(path.read_bytes().replace(b"DURATION", b"DORATION"))
        with open_video(path, backend) as reader:
            assert reader.num_frames == 15


def test_a_cut_video_is_taken_where_the_data_set_is_told_to(tmp_path):
    short = cut(write_video(tmp_path / "v.mkv", moving_frames(60)), 0.6)
    arguments = dict(num_frames=2, sampling_rate=1, crop_size=16)
    bad = video_dataset([(str(short), 0)], **arguments)[0, 0]
    assert isinstance(bad, BadVideo) and "announces 60 frames" in bad.cause
    taken = video_dataset([(str(short), 0)], tolerate_short=True, **arguments)
    assert taken[0, 0].clips_VCTHW.shape == (1, 3, 2, 16, 16)
    assert taken.fingerprint() != video_dataset([(str(short), 0)], **arguments).fingerprint()


@every_backend
def test_a_rate_that_no_camera_has(tmp_path, backend):
    """An AVI tells times by its rate alone: with a flipped bit both are absurd."""
    path = write_video(tmp_path / "v.avi", moving_frames(30), codec="mjpeg")
    data = path.read_bytes()
    place = data.index(b"strh") + 8 + 20
    scale, rate = struct.unpack("<2I", data[place : place + 8])
    assert rate / scale in (30, 300)
    path.write_bytes(data[:place] + struct.pack("<2I", 1, 124_151_428) + data[place + 8 :])
    with pytest.raises(VideoError, match=r"rate of 1241514[\d.]+ frames a second is outside 1 to 1000"):
        open_video(path, backend)


# --- what is kept of a file ---


def test_a_file_is_passed_through_once_for_as_long_as_it_stays(tmp_path, monkeypatch):
    path = write_video(tmp_path / "v.mp4", moving_frames(30), gop=5)
    read = pyav_reader.PyAVReader._read_table
    passes = []
    monkeypatch.setattr(pyav_reader.PyAVReader, "_read_table", lambda self: passes.append(self.path) or read(self))
    for _ in range(3):
        with open_video(path) as reader:
            assert reader.num_frames == 30
    assert len(passes) == 1
    other = write_video(tmp_path / "w.mp4", moving_frames(20, seed=1))
    shutil.move(other, path)
    with open_video(path) as reader:
        assert reader.num_frames == 20
    assert len(passes) == 2
    np.testing.assert_array_equal(open_video(path).read(range(20)), decode_all(path))


def test_a_picture_beside_sound_alone_is_no_video(tmp_path):
    with pytest.raises(VideoError, match="no video stream"):
        open_video(write_audio(tmp_path / "sound.mkv"))
