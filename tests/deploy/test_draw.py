"""Boxes drawn into a video, and the csv that they come from."""

import av
import numpy as np
import pytest
import torch
from videos import decode_all, number_of, numbered_frames, write_joined_video, write_late_video, write_phone_video, write_video

from mutual3d.data.video.decode import VideoError, open_video
from mutual3d.deploy.draw import describe_boxes, draw_boxes, draw_on_frame, read_boxes_csv

GREY = np.full((40, 241, 321, 3), 90, np.uint8)


def changed(frame_HWC):
    """Pixels that are no longer grey."""
    return np.abs(frame_HWC.astype(int) - 90).max(-1) > 60


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("draw") / "grey.mp4", GREY[:, :240, :320], fps=10)


def test_boxes_are_read_by_time(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text("second,x1,y1,x2,y2,score\n2.5,0.1,0.2,0.3,0.4,0.75\n\n1,0.5,0.5,1,1\n2.5,0,0,1,1,0.5\n")
    boxes = read_boxes_csv(path)
    assert list(boxes) == [1.0, 2.5]
    torch.testing.assert_close(boxes[2.5][0], torch.tensor([[0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1]]))
    assert boxes[2.5][1].tolist() == [0.75, 0.5] and boxes[1.0][1].tolist() == [1.0]


@pytest.mark.parametrize(
    "line, words",
    [
        ("1,0.1,0.2,0.3", "4 columns"),
        ("1,0.1,0.2,0.3,0.4,0.5,0.6", "7 columns"),
        ("1,0.1,0.2,right,0.4", "'right' is not a number"),
        ("1,0.3,0.2,0.1,0.4", "x1 must be below x2"),
        ("1,10,20,30,40", "divide x by the frame's width"),
        ("-1,0.1,0.2,0.3,0.4", "second must be 0 or more"),
        ("1,0.1,0.2,0.3,0.4,7", "score in"),
        ("1,0.1,0.2,0.3,0.4,nan", "'nan' is not a number"),
        ("inf,0.1,0.2,0.3,0.4", "'inf' is not a number"),
        ("1_0,0.1,0.2,0.3,0.4", "'1_0' is not a number"),
    ],
)
def test_wrong_rows_are_named(tmp_path, line, words):
    path = tmp_path / "boxes.csv"
    path.write_text(f"0,0.1,0.2,0.3,0.4\n{line}\n")
    with pytest.raises(ValueError, match=words) as caught:
        read_boxes_csv(path)
    assert f"'{path}', line 2: '{line}'" in str(caught.value) and "second,x1,y1,x2,y2[,score]" in str(caught.value)


def test_what_is_no_row_is_named(tmp_path):
    path = tmp_path / "boxes.csv"
    for line, words in (("1,0.1,0.2,0.3,0." + "4" * 140_000, "the line is longer than"), ('1,"0.1,0.2', "a quote is opened")):
        path.write_text(f"0,0.1,0.2,0.3,0.4\n{line}\n")
        with pytest.raises(ValueError, match=f"boxes.csv', line 2: .*{words}"):
            read_boxes_csv(path)
    path.write_bytes("seconde,à\n".encode("latin-1"))
    with pytest.raises(ValueError, match="boxes.csv', line 1: .*not UTF-8"):
        read_boxes_csv(path)


def test_a_file_without_boxes(tmp_path):
    (tmp_path / "empty.csv").write_text("second,x1,y1,x2,y2\n")
    with pytest.raises(ValueError, match="is empty"):
        read_boxes_csv(tmp_path / "empty.csv")
    with pytest.raises(FileNotFoundError, match="gone.csv"):
        read_boxes_csv(tmp_path / "gone.csv")


def test_texts_name_the_best_classes():
    scores = torch.tensor([[0.1, 0.8, 0.5, 0.4], [0.05, 0.1, 0.0, 0.2]])
    assert describe_boxes(scores, list("abcd"), most=2) == ["b 80 %\nc 50 %", "d 20 %"]
    assert describe_boxes(scores, threshold=0.45, most=9) == ["1 80 %\n2 50 %", "3 20 %"]


def test_a_box_is_drawn_around_its_place():
    drawn = draw_on_frame(GREY[0], torch.tensor([[0.25, 0.5, 0.75, 0.9]]), [""])
    rows, columns = changed(drawn).nonzero()
    assert np.abs(np.array([columns.min(), rows.min(), columns.max(), rows.max()]) - [80, 120, 241, 217]).max() <= 2
    assert not changed(drawn)[150:190, 120:200].any() and (GREY[0] == 90).all()


def test_every_box_has_its_text():
    boxes = torch.tensor([[0.0, 0.0, 0.4, 0.9], [0.5, 0.0, 1.0, 1.0]])
    bare = changed(draw_on_frame(GREY[0], boxes, ["", ""]))
    for texts, side in ((["walk 87 %", ""], slice(0, 160)), (["", "run\nsit"], slice(160, 321))):
        extra = changed(draw_on_frame(GREY[0], boxes, texts)) & ~bare
        assert extra[:, side].sum() > 20 and extra.sum() == extra[:, side].sum()
    # A box up to the border stays in the picture.
    assert bare[-3:, 170:].any() and bare[:, -3:].any()


def test_boxes_are_shown_around_their_time(tmp_path, video):
    boxes = torch.tensor([[0.1, 0.1, 0.5, 0.9]]), ["a"]
    other = torch.tensor([[0.6, 0.1, 0.9, 0.9]]), ["b"]
    shown = draw_boxes(video, tmp_path / "out.mp4", {1.0: boxes, 1.5: other, 3.0: (torch.zeros(0, 4), [])}, hold=0.4)
    frames_THWC = decode_all(tmp_path / "out.mp4")
    assert len(frames_THWC) == 40
    marks_TW = np.array([changed(frame).any(0) for frame in frames_THWC])
    left, right = marks_TW[:, :170].any(1), marks_TW[:, 180:].any(1)
    assert left.nonzero()[0].tolist() == list(range(6, 13)) and right.nonzero()[0].tolist() == list(range(13, 20))
    assert shown == left.sum() + right.sum()


def test_odd_small_and_slow_videos(tmp_path):
    """An odd size cannot be encoded, and a text in 40 pixels cannot be read."""
    path = write_video(tmp_path / "small.mkv", GREY[:5, :41, :61], fps=7, codec="ffv1")
    draw_boxes(path, tmp_path / "out.mp4", {0.0: (torch.tensor([[0.2, 0.2, 0.6, 0.6]]), ["walk"])})
    with open_video(path) as source, open_video(tmp_path / "out.mp4") as reader:
        # Matroska stores whole milliseconds, which the drawn video keeps.
        assert reader.num_frames == 5 and reader.frame_times() == pytest.approx(source.frame_times(), abs=1e-4)
        assert reader.fps == pytest.approx(7, abs=0.01)
        assert reader.read([0]).shape == (1, 246, 366, 3)


def test_no_boxes_at_all_leave_the_video_as_it_is(tmp_path, video):
    assert draw_boxes(video, tmp_path / "out.mp4", {}) == 0
    assert not changed(decode_all(tmp_path / "out.mp4")).any()


def test_wrong_calls_write_nothing(tmp_path, video):
    with pytest.raises(ValueError, match="second 1.0 there are 2 boxes and 1 texts"):
        draw_boxes(video, tmp_path / "out.mp4", {1.0: (torch.rand(2, 4), ["a"])})
    with pytest.raises(VideoError):
        draw_boxes(tmp_path / "gone.mp4", tmp_path / "out.mp4", {})
    assert list(tmp_path.iterdir()) == []


def times_of(path):
    """Presentation times of the frames of a file, in seconds, as it stores them."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [float(frame.pts * stream.time_base) for frame in container.decode(stream)]


@pytest.mark.parametrize(
    "write, zero", [(write_phone_video, 0.0), (write_late_video, 0.7), (lambda path: write_joined_video(path.with_suffix(".ts")), 0.0)]
)
def test_a_drawn_video_plays_as_its_source(tmp_path, write, zero):
    """Each frame at its own time, of any rate; nothing before the source shows something; as long as the source."""
    path = write(tmp_path / "v.mp4")
    boxes = torch.tensor([[0.0, 0.5, 1.0, 1.0]]), [""]
    with open_video(path) as source:
        times, duration = source.frame_times(), source.duration
        middle = source.num_frames // 2
    shown = draw_boxes(path, tmp_path / "out.mp4", {float(times[middle]): boxes}, hold=0.09)
    assert times_of(tmp_path / "out.mp4") == pytest.approx(times, abs=1e-4) and times[0] == pytest.approx(zero, abs=1e-3)
    with open_video(tmp_path / "out.mp4") as drawn:
        assert drawn.num_frames == len(times) and drawn.duration - drawn.time_of(0) == pytest.approx(duration - times[0], abs=1e-3)
        frames_THWC = drawn.read(range(drawn.num_frames))
        assert drawn.frame_times() == pytest.approx(times, abs=1e-3)
    assert [number_of(frame) for frame in frames_THWC] == list(range(len(times)))
    # The boxes are where their time is.
    near = [k for k, time in enumerate(times) if abs(time - times[middle]) <= 0.09]
    assert shown == len(near) and middle in near


def sound_of(path):
    """(seconds at which packets of sound begin, their bytes)."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size]
        return [float(packet.pts * packet.time_base) for packet in packets], [bytes(packet) for packet in packets]


def test_sound_is_copied_where_an_mp4_holds_it(tmp_path):
    for name in ("late.mp4", "late.mkv"):
        path = write_late_video(tmp_path / name)
        draw_boxes(path, tmp_path / "out.mp4", {})
        (times, packets), (drawn_times, drawn_packets) = sound_of(path), sound_of(tmp_path / "out.mp4")
        assert len(packets) > 20 and drawn_packets == packets and drawn_times == pytest.approx(times, abs=2e-3)
    damaged = tmp_path / "damaged.mkv"
    damaged.write_bytes((tmp_path / "late.mkv").read_bytes()[:-300])
    draw_boxes(damaged, tmp_path / "out.mp4", {})
    avi = write_video(tmp_path / "loud.avi", numbered_frames(12), codec="mpeg4", audio=True)
    draw_boxes(avi, tmp_path / "out.mp4", {})
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert not container.streams.audio
