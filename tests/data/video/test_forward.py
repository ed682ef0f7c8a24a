"""Frames from first to last, on the reader's clock, without knowing what follows; addresses and cameras."""

import io
import time

import av
import numpy as np
import pytest
from PIL import Image
from streams import serving
from videos import (
    moving_frames,
    number_of,
    numbered_frames,
    write_audio,
    write_joined_video,
    write_late_video,
    write_phone_video,
    write_size_change,
    write_video,
)  # fmt: skip

from mutual3d.data.video.decode import open_video
from mutual3d.data.video.forward import RunningClock, open_address, open_camera, open_file, without_password
from mutual3d.data.video.reader import VideoError

WRITERS = {
    "plain.mp4": lambda path: write_video(path, numbered_frames(30), fps=30, b_frames=2),
    "phone.mp4": write_phone_video,
    "late.mp4": write_late_video,
    "joined.ts": write_joined_video,
    "turned.mp4": lambda path: write_video(path, moving_frames(12), rotation=90),
    "old.avi": lambda path: write_video(path, numbered_frames(20), codec="mpeg4"),
    "photos.mkv": lambda path: write_video(path, numbered_frames(10), codec="mjpeg"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_frames_and_their_seconds_are_the_readers(name, tmp_path):
    path = WRITERS[name](tmp_path / name)
    with open_video(path) as reader:
        expected = dict(reader.frames(range(reader.num_frames)))
        times = reader.frame_times()
    found = open_file(path)
    frames = list(found.frames())
    found.close()
    assert [frame.second for frame in frames] == pytest.approx(times.tolist(), abs=1e-6) and found.num_bad == 0
    assert all(np.array_equal(frame.image_HWC, expected[index]) for index, frame in enumerate(frames))
    assert [frame.arrival for frame in frames] == sorted(frame.arrival for frame in frames)


def test_a_frame_of_another_size_keeps_its_own(tmp_path):
    frames = list(open_file(write_size_change(tmp_path / "turned.mkv")).frames())
    assert [frame.image_HWC.shape for frame in frames] == [(48, 64, 3)] * 10 + [(64, 48, 3)] * 10
    assert [number_of(frame.image_HWC) for frame in frames] == list(range(20))


def test_a_clock_that_jumps_or_tells_nothing_goes_on_by_its_usual_step():
    clock = RunningClock(0.1, 0.5, usual_step=1.0)
    assert [clock.second_of(pts) for pts in (7, 9, None, 13, 2, 4)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.2])
    clock = RunningClock(0.1, None, usual_step=1.0, longest_step=10.0)
    assert [clock.second_of(pts) for pts in (None, None, 1000, 1001)] == pytest.approx([0.0, 1.0, 2.0, 2.1])
    assert RunningClock(1.0, 3.0, usual_step=1.0).second_of(1) == 0.0


def test_frames_around_damage_come(tmp_path):
    path = write_video(tmp_path / "whole.avi", numbered_frames(40), gop=10, codec="mpeg4")
    with av.open(str(path)) as container:
        place, size = next((packet.pos, packet.size) for packet in container.demux(video=0) if packet.pts == 20)
    data = bytearray(path.read_bytes())
    data[place + 8 : place + 8 + size] = bytes(size)
    (tmp_path / "damaged.avi").write_bytes(data)
    reader = open_file(tmp_path / "damaged.avi")
    numbers = [number_of(frame.image_HWC) for frame in reader.frames()]
    assert numbers[:20] == list(range(20)) and numbers[-10:] == list(range(30, 40)) and reader.num_bad == 1


def test_what_is_no_video_is_refused(tmp_path):
    with pytest.raises(VideoError, match="it has no video stream"):
        open_file(write_audio(tmp_path / "sound.m4a"))
    (tmp_path / "list.mp4").write_text("#EXTM3U\n/etc/passwd\n")
    with pytest.raises(VideoError, match="m3u8 playlist"):
        open_file(tmp_path / "list.mp4")
    with pytest.raises(VideoError, match="does not exist"):
        open_file(tmp_path / "none.mp4")


def test_addresses_and_cameras_that_are_not_there():
    with pytest.raises(ValueError, match="of the protocol 'gopher': http, https, rtsp"):
        open_address("gopher://127.0.0.1/a", 1.0)
    with pytest.raises(VideoError, match=r"'http://...@127.0.0.1:9/a': the address cannot be opened \(Connection refused\)"):
        open_address("http://me:secret@127.0.0.1:9/a", 1.0)
    with pytest.raises(VideoError, match="there is no /dev/video973 on this machine"):
        open_camera(973, 1.0)
    assert without_password("rtsp://a:b@c/d") == "rtsp://...@c/d" and without_password("http://c/@d") == "http://c/@d"


def test_an_address_leads_to_no_file(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(3))
    with pytest.raises(ValueError, match="of the protocol 'file'"):
        open_address(f"file://{path}", 1.0)


# ---- Addresses -----------------------------------------------------------------------------------------------------------


def whole(content):
    def page(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return page


def camera(handler):
    """Numbered pictures one after the other, as cameras serve them: no times, ten a second."""
    handler.send_response(200)
    handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
    handler.end_headers()
    for frame in numbered_frames(8):
        picture = io.BytesIO()
        Image.fromarray(frame).save(picture, "JPEG")
        handler.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture.getvalue()))
        handler.wfile.write(picture.getvalue() + b"\r\n")
        time.sleep(0.1)


def silence(handler):
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.flush()
    time.sleep(2)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = write_video(tmp_path_factory.mktemp("served") / "a.mkv", numbered_frames(20))
    pages = {
        "/a.mkv": whole(path.read_bytes()), "/a.m3u8": whole(b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"),
        "/camera": camera, "/silence": silence,
    }  # fmt: skip
    with serving(pages) as address:
        yield address


def test_a_file_on_a_server_has_an_end_and_its_own_clock(address):
    reader = open_address(f"{address}/a.mkv", 5.0)
    assert not reader.is_endless
    frames = list(reader.frames())
    assert [number_of(frame.image_HWC) for frame in frames] == list(range(20)) and frames[6].second == pytest.approx(0.2, abs=1e-3)


def test_pictures_without_times_are_shown_when_they_come(address):
    reader = open_address(f"{address}/camera", 5.0)
    assert reader.is_endless
    frames = []
    with pytest.raises(VideoError, match="it breaks off"):
        frames.extend(reader.frames())
    assert [number_of(frame.image_HWC) for frame in frames] == list(range(8))
    assert [frame.second for frame in frames] == pytest.approx([frame.arrival - frames[0].arrival for frame in frames])


def test_what_gives_no_video_or_nothing_is_a_sentence(address):
    with pytest.raises(VideoError, match=r"a.m3u8': it gives no video that is read; a playlist \(m3u8, mpd\) names other addresses"):
        open_address(f"{address}/a.m3u8", 5.0)
    with pytest.raises(VideoError, match="silence': nothing answers within 0.2 s"):
        open_address(f"{address}/silence", 0.2)
