"""Answers to long videos and live feeds: the right frames, in bounded memory, within a deadline, whatever breaks."""

import gc
import threading
import weakref

import numpy as np
import pytest
import torch
from networks import IMAGE_NETWORKS, NETWORKS, Case, calibrate_at_random
from streams import Frames, make_stream_model, serving
from videos import moving_frames, write_phone_video, write_size_change, write_video

from mutual3d.data.clips.transforms import UniformCrops, stack_clips
from mutual3d.data.video.decode import open_video
from mutual3d.data.video.forward import TimedFrame, open_address
from mutual3d.data.video.reader import VideoError
from mutual3d.deploy import AdaptiveModel, Preprocessing
from mutual3d.deploy.live import Feed, FrameSource, Paced, VideoFile, open_source
from mutual3d.deploy.timeline import join_windows
from mutual3d.deploy.windows import FrameRing, Pace, Window, WindowQueue, WindowReader, clip_offsets

# 4 frames at stride 2 of 30 a second: the last one of a clip is shown 7/30 seconds after the first.
LENGTH = 7 / 30


@pytest.fixture(scope="module")
def model():
    return make_stream_model()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("stream") / "a.mp4", moving_frames(60))


def exact_scores(model, path, answers):
    """Scores of the frames that an exact reader gives for the windows' seconds."""
    crops = UniformCrops(model.preprocessing.crop)
    with open_video(path) as reader:
        for answer in answers:
            offsets = np.linspace(-LENGTH, 0, 4)
            indices = reader.indices_at(answer.end + offsets)
            frames = {index: crops(frame)[0] for index, frame in reader.frames(indices)}
            yield model(stack_clips([[frames[i] for i in indices]]), configuration=answer.configuration)[0]


def test_answers_become_a_timeline(model, tmp_path):
    path = write_video(tmp_path / "a.mp4", moving_frames(60))
    with model.stream(path, fps=10, deadline_ms=1e6) as stream:
        answers = list(stream)
    with model.stream(path, fps=10, deadline_ms=1e6) as stream:
        segments = list(stream.timeline(0.4))
    assert segments == join_windows(answers, 0.4) and segments[0].start == pytest.approx(answers[0].start)
    assert segments[-1].end == answers[-1].end and {segment.label for segment in segments} <= {"right", "down"}


@pytest.mark.parametrize("write", [lambda path: write_video(path, moving_frames(60)), write_phone_video])
def test_a_window_is_the_clip_that_an_exact_reader_gives(model, tmp_path, write):
    path = write(tmp_path / "a.mp4")
    with model.stream(path, fps=10, deadline_ms=1e6) as stream:
        answers = list(stream)
    with open_video(path) as reader:
        count = int((reader.frame_times()[-1] - LENGTH) * 10 + 1e-6) + 1
    assert len(answers) == count and {str(answer.configuration) for answer in answers} == {"1-24-4"}
    assert [answer.end for answer in answers] == pytest.approx([LENGTH + 0.1 * k for k in range(count)])
    for answer, expected in zip(answers, exact_scores(model, path, answers), strict=True):
        assert torch.equal(answer.scores, expected) and answer.start == pytest.approx(answer.end - LENGTH)
    assert stream.num_answered == stream.num_met == count and stream.num_dropped == 0 and stream.share_met == 1
    assert answers[0].wait_ms == 0 and answers[0].is_met and not answers[0].is_first_run
    assert {name for name, _ in answers[0].top(2)} == {"right", "down"} and "s, 1-24-4, " in repr(answers[0])


def test_a_deadline_that_nothing_meets_is_said_and_runs_the_cheapest(model, path, caplog):
    with model.stream(path, deadline_ms=1e-3) as stream:
        answers = list(stream)
    assert {str(answer.configuration) for answer in answers} == {str(stream.front[0].configuration)}
    assert caplog.text.count("no configuration meets the deadline on this machine: the cheapest, ") == 1
    assert stream.share_met == 0 and not answers[0].is_met


def test_every_configuration_ran_once_before_the_first_window(model, path, monkeypatch):
    """A first call is many times as slow as the next ones, which the controller would take for load."""
    called = []
    compute = model.compute
    monkeypatch.setattr(model, "compute", lambda clip, boxes, configuration: called.append(str(configuration)) or compute(clip, boxes, configuration))
    with model.stream(path, deadline_ms=1e6) as stream:
        assert set(called) >= {str(timed.configuration) for timed in stream.front}


def test_a_cascade_is_not_held_by_a_stream(model, path):
    with pytest.raises(ValueError, match="0.5-16-2@0.7.1-24-4, a cascade, whose time changes from window to window: hold one of its configurations"):
        model.stream(path, configuration="0.5-16-2@0.7+1-24-4")


def test_a_fixed_configuration_needs_no_table(path):
    model = make_stream_model(table=False)
    with model.stream(path, configuration="0.5-16-2", seconds=1.0) as stream:
        assert {str(answer.configuration) for answer in stream} == {"0.5-16-2"}
    with pytest.raises(ValueError, match="no query table, which says how accurate .* GRID.ENABLE True, or name a configuration"):
        model.stream(path)


def test_the_controller_is_told_what_windows_took(model, path):
    with model.stream(path, deadline_ms=1e6) as stream:
        next(stream)
        seen = []
        stream._controller.observe = lambda *found, **more: seen.append((*found, more["is_first_run"]))
        stream._ran.clear()
        answers = list(stream)
    assert [each[1] for each in seen] == [answer.network_ms for answer in answers]
    assert [each[2] for each in seen] == [True] + [False] * (len(answers) - 1) == [answer.is_first_run for answer in answers]


def test_a_file_shorter_than_a_window_is_answered_once(model, tmp_path):
    path = write_video(tmp_path / "short.mp4", moving_frames(3))
    with model.stream(path) as stream:
        (answer,) = stream
    (expected,) = exact_scores(model, path, [answer])
    assert torch.equal(answer.scores, expected) and answer.end == pytest.approx(2 / 30)
    # It is of no second before the first frame, and neither is its timeline.
    assert answer.start == 0
    with model.stream(path) as stream:
        assert [(segment.start, segment.end) for segment in stream.timeline(0.0)] == [(0, answer.end)]


def test_a_size_that_changes_on_the_way_is_cut_like_any(model, tmp_path):
    with model.stream(write_size_change(tmp_path / "turned.mkv"), fps=10) as stream:
        assert [round(answer.end, 1) for answer in stream] == [round(LENGTH + 0.1 * k, 1) for k in range(17)]


def test_windows_share_frames_and_memory_is_bounded():
    pace = Pace(fps=5, offsets=clip_offsets(make_stream_model().preprocessing), drops=False, waiting=2)
    alive = weakref.WeakSet()
    most = 0

    def cut(image):
        nonlocal most
        frame = torch.from_numpy(image.copy())
        alive.add(frame)
        most = max(most, len(alive))
        return frame

    reader = WindowReader(Frames(30 * 120), pace, cut)
    reader.start()
    shared = 0
    before = ()
    while (window := reader.queue.get()) is not None:
        assert [frame[0, 0, 0].item() for frame in window.frames_T] == [
            round(30 * (window.end + offset)) % 200 for offset in pace.offsets
        ]
        shared += any(a is b for a in before for b in window.frames_T)
        before = window.frames_T
    reader.close()
    # What a window lasts, what lies between windows that wait, and the clips that are held.
    assert most < LENGTH * 30 + 3 * 6 + 4 * 5
    before = window = None
    reader._ring.clear()
    gc.collect()
    assert len(alive) <= 1


def test_overlapping_windows_hold_one_copy_of_a_frame():
    ring = FrameRing((-1.0, -0.5, 0.0))
    for number in range(31):
        ring.add(number / 10, torch.tensor(number))
    first, second = ring.clip_at(2.0), ring.clip_at(2.5)
    assert [int(frame) for frame in first] == [10, 15, 20] and first[1] is second[0] and first[2] is second[1]
    ring.forget_before(2.05)
    assert len(ring) == 11 and [int(frame) for frame in ring.clip_at(3.0)] == [20, 25, 30]


def test_a_live_queue_drops_the_oldest_and_counts_and_a_file_waits():
    windows = [Window(k, k + 1, (), 0.0) for k in range(5)]
    queue = WindowQueue(2, drops=True)
    for window in windows:
        queue.put(window)
    queue.end()
    assert [queue.get(), queue.get(), queue.get()] == [windows[3], windows[4], None] and queue.num_dropped == 3
    queue = WindowQueue(2, drops=False)
    thread = threading.Thread(target=lambda: [queue.put(window) for window in windows])
    thread.start()
    assert [queue.get() for _ in windows] == windows and queue.num_dropped == 0
    thread.join(5)
    queue.end(VideoError("a", "b"))
    with pytest.raises(VideoError, match="'a': b"):
        queue.get()
    assert queue.get() is None


def test_a_live_source_that_is_not_waited_for_drops_windows(model):
    source = Frames(3000)
    with model.stream(source, fps=30, deadline_ms=30) as stream:
        first = next(stream)
        stream._reader._thread.join(30)
        answers = [first, *stream]
    assert stream.num_dropped + len(answers) == 3000 - 7 and stream.num_dropped > 2000
    assert answers[-1].num_dropped == stream.num_dropped and stream.share_met < 0.5
    assert answers[-1].end == pytest.approx(2999 / 30)
    with model.stream(Frames(60), fps=30, when_late="wait") as stream:
        assert len(list(stream)) == 60 - 7


def test_a_file_that_may_drop_is_played_at_its_own_pace(path):
    seen = []
    source = Paced(VideoFile(path))
    source._stopped.wait = lambda seconds: seen.append(seconds)
    frames = list(source.frames())
    assert source.is_live and len(seen) == 60
    assert np.diff([frame.arrival for frame in frames]) == pytest.approx(np.full(59, 1 / 30), abs=1e-6)


def test_closing_ends_the_thread_that_decodes(model, path):
    source = Frames(10**9)
    with model.stream(source, fps=30) as stream:
        next(stream)
    assert source.is_closed.is_set() and not stream._reader._thread.is_alive() and list(stream) == []
    with model.stream(path, fps=30) as stream:
        next(stream)
    assert not stream._reader._thread.is_alive()


def test_a_stream_that_is_dropped_ends_its_thread(model):
    source = Frames(10**9)
    for _ in (stream := model.stream(source, fps=30)):
        break
    thread = stream._reader._thread
    del stream, _
    gc.collect()
    assert source.is_closed.is_set() and not thread.is_alive()


def test_a_gap_and_a_break_begin_windows_anew():
    seconds = [*np.arange(10) / 10, *(50 + np.arange(10) / 10)]

    class Gaps(FrameSource):
        def frames(self):
            for number, second in enumerate(seconds):
                yield TimedFrame(second, np.full((2, 2, 3), number, np.uint8), 0.0, is_cut=number == 5)

    reader = WindowReader(Gaps(), Pace(10, (-0.2, 0.0), drops=False, waiting=99), torch.from_numpy)
    reader.start()
    ends = [tuple(int(frame[0, 0, 0]) for frame in window.frames_T) for window in iter(reader.queue.get, None)]
    assert ends == [(0, 2), (1, 3), (2, 4), (5, 7), (6, 8), (7, 9), *((k, k + 2) for k in range(10, 18))]


# ---- Feeds ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def address(tmp_path):
    """Gives a second of video three times, and then refuses."""
    content, left = write_video(tmp_path / "feed.ts", moving_frames(30)).read_bytes(), [3]

    def feed(handler):
        left[0] -= 1
        if left[0] < 0:
            handler.send_error(503)
            return
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(content)

    with serving({"/feed.ts": feed}) as address:
        yield f"{address}/feed.ts"


def test_a_feed_that_breaks_is_connected_again_and_given_up_in_the_end(model, address, caplog):
    feed = Feed("the feed", lambda: open_address(address, 5.0), retries=(0.01, 0.02))
    assert feed.is_live
    answers = []
    with model.stream(feed, fps=10, when_late="wait") as stream:
        with pytest.raises(VideoError, match=r"'the feed': it broke, and 2 attempts to connect again failed: .* \(.*50?3?.*\)"):
            answers.extend(stream)
    # Each connection gives windows of its own, none across the break.
    assert stream.num_breaks == 4 and len(answers) == 3 * 8
    assert caplog.text.count("): connecting again in 0.01 s") == 3 and caplog.text.count("the feed broke (") == 4
    ends = [answer.end for answer in answers]
    assert ends == sorted(ends)


def test_a_file_that_was_cut_short_is_answered_as_far_as_it_goes_and_told(model, tmp_path, caplog):
    content = write_video(tmp_path / "whole.mkv", moving_frames(120)).read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(content[: len(content) // 2])
    counts = []
    for path in (tmp_path / "whole.mkv", cut):
        assert path.name not in caplog.text
        with model.stream(path, fps=10, configuration="1-24-4") as stream:
            counts.append(len(list(stream)))
    assert 5 < counts[1] < counts[0] - 10 and "cut.mkv: its frames end at second" in caplog.text and "it tells a length of 4.0 s" in caplog.text


def test_what_a_source_may_be(path, tmp_path):
    assert isinstance(open_source(path), VideoFile) and isinstance(open_source(str(path)), VideoFile)
    source = Frames(1)
    assert open_source(source) is source
    for camera in (973, "973", "/dev/video973"):
        with pytest.raises(VideoError, match="'camera 973': there is no /dev/video973"):
            open_source(camera)
    with pytest.raises(VideoError, match=r"'http://...@127.0.0.1:9/a': the address cannot be opened"):
        open_source("http://a:b@127.0.0.1:9/a")
    with pytest.raises(ValueError, match="protocol 'gopher'"):
        open_source("gopher://a")
    with pytest.raises(ValueError, match="the source is None: give a file, the number of a camera, or an address"):
        open_source(None)
    with pytest.raises(VideoError, match="does not exist"):
        open_source(tmp_path / "none.mp4")


@pytest.mark.parametrize(
    "words", [{"deadline_ms": 0}, {"fps": -1}, {"fps": None}, {"fps": 1e9}, {"window": "2 hours"}, {"when_late": "never"}, {"seconds": True}]
)
def test_stream_settings_that_cannot_be_are_refused(model, path, words):
    with pytest.raises(ValueError, match=next(iter(words))):
        model.stream(path, **words)


def test_a_network_of_images_looks_at_single_frames_and_one_of_boxes_refuses(path):
    def made(case):
        network = case.build()
        calibrate_at_random(network, [network.space.largest])
        cut = Preprocessing((0.4,) * 3, (0.2,) * 3, network.clip_frames, sampling_rate=1, target_fps=30, crop=48)
        return AdaptiveModel(network, preprocessing=cut)

    images = made(IMAGE_NETWORKS["resnet18_small"])
    with images.stream(path, configuration=images.active, fps=10) as stream:
        answers = list(stream)
    assert len(answers) == 20 and answers[3].start == answers[3].end == pytest.approx(0.3)
    # In a timeline a frame speaks for the time since the one before.
    with images.stream(path, configuration=images.active, fps=10) as stream:
        segments = list(stream.timeline(0.0))
    assert segments[0].start == 0 and segments[-1].end == pytest.approx(1.9)
    assert [segment.end for segment in segments[:-1]] == [segment.start for segment in segments[1:]]
    with pytest.raises(ValueError, match="classifies boxes, and a stream has none"):
        made(Case({**NETWORKS["slow_small"].arguments, "detection": {"resolution": 3}})).stream(path)
