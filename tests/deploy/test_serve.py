"""The service, over real connections: what it answers, what it refuses, and what no client can do to it."""

import ast
import asyncio
import base64
import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import harm
import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from services import get, running, send, settings_of, write_bundle
from tiny import ROOT
from videos import moving_frames, red_and_blue_frames, write_video
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

import mutual3d
from mutual3d.cli import serve as command
from mutual3d.data.video.reader import VideoError
from mutual3d.deploy.controller import TimedConfiguration
from mutual3d.deploy.serve.answers import Answer, Health, LooksAnswer, StreamAnswer, StreamEnd, Table, TimelineAnswer
from mutual3d.deploy.serve.batching import Batcher, Overloaded, Request
from mutual3d.deploy.serve.explaining import draw_looks
from mutual3d.deploy.serve.front import Choice, ServedFront
from mutual3d.deploy.serve.limits import goes_by, host_name
from mutual3d.deploy.serve.readers import Readers, Upload, UploadJob
from mutual3d.deploy.serve.run import listen
from mutual3d.deploy.serve.timelines import Scored
from mutual3d.deploy.timeline import TimelineBuilder
from mutual3d.sampling import Configuration
from mutual3d.table.query_table import BudgetTooSmall

SMALL, LARGE = "0.5-16-2", "1-24-4"
RED = 0.5135


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    write_bundle(folder)
    write_video(folder / "a.mp4", moving_frames(60))
    return folder


@pytest.fixture(scope="module")
def video(folder):
    return (folder / "a.mp4").read_bytes()


@pytest.fixture(scope="module")
def served(folder):
    """(the service, its address), with limits that tests can reach."""
    samples = folder / "samples"
    samples.mkdir()
    write_video(samples / "bar.mp4", moving_frames(8))
    settings = settings_of(
        folder / "adaptive.pyth", samples=str(samples), max_bytes=400_000, max_seconds=3.0, upload_seconds=1.0, max_streams=1
    )  # fmt: skip
    with running(settings) as found:
        yield found


@pytest.fixture(scope="module")
def model(folder):
    return mutual3d.load(folder / "adaptive.pyth")


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def left_over():
    """Files of services of this process."""
    return [path for folder in Path(tempfile.gettempdir()).glob(f"mutual3d-serve-*+{os.getpid()}+*") for path in folder.iterdir()]


def wait_until(is_so):
    deadline = time.monotonic() + 10
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert is_so()


# ---- Answers ----------------------------------------------------------------------------------------------------------


def test_a_video_is_answered_as_the_model_answers_it(served, folder, video, model):
    service, address = served
    for query, expected in (({}, LARGE), ({"configuration": SMALL}, SMALL), ({"gflops": 0.0011}, SMALL), ({"latency_ms": 9999.0}, LARGE)):
        answer = Answer(**send(address, video, **query).raise_for_status().json())
        assert (answer.row.configuration, answer.asked, answer.lowered, answer.batch, answer.met) == (expected, expected, False, 1, True)
        (prediction,) = model.predict(folder / "a.mp4", configuration=expected)
        assert [(each.name, pytest.approx(each.probability, abs=1e-6)) for each in answer.top] == prediction.top(5)
        assert answer.looked_at == list(prediction.seconds) and answer.duration == pytest.approx(prediction.clips.duration)
        assert answer.times.total_ms >= answer.times.decode_ms + answer.times.wait_ms > 0
    assert model.active == service.model.active == service.model.network.space.largest  # no answer activates anything
    assert len(send(address, video, top=1).json()["top"]) == 1
    assert not left_over()


def test_images_clips_and_frames_are_answered(served, model):
    _, address = served
    image = io.BytesIO()
    Image.fromarray(moving_frames(1)[0]).save(image, "PNG")
    clip = np.random.default_rng(0).integers(0, 256, (3, 4, 24, 24), np.uint8)
    frames = moving_frames(20)
    for data, source in ((npy(clip), clip[None]), (npy(clip[None]), clip[None]), (npy(frames), frames)):
        (prediction,) = model.predict(source)
        found = send(address, data).raise_for_status().json()
        assert found["top"][0]["probability"] == pytest.approx(prediction.top(1)[0][1], abs=1e-6)
    found = send(address, image.getvalue(), name="../../etc/passwd.mp4").raise_for_status().json()
    assert found["looked_at"] == [] and len(found["top"]) == 2


def explain(address, data, **query):
    return httpx.post(f"{address}/explain", params=query, files={"file": ("upload", data)}, timeout=60)


def test_where_it_looked_is_drawn(served, folder, video, model):
    _, address = served
    for configuration, class_name in ((LARGE, None), (SMALL, "down")):
        query = {"configuration": configuration, **({"class_name": class_name} if class_name else {})}
        found = LooksAnswer(**explain(address, video, **query).raise_for_status().json())
        (expected,) = model.explain(folder / "a.mp4", [configuration], class_name=class_name)
        assert (found.row.configuration, found.class_name, found.method) == (configuration, expected.class_name, expected.method)
        assert [look.second for look in found.looks] == [expected.seconds[place] for place in expected.seen]
        assert [look.activation for look in found.looks] == pytest.approx([expected.curve_T[place].item() for place in expected.seen], abs=1e-4)
        with Image.open(io.BytesIO(base64.b64decode(found.looks[0].image.removeprefix("data:image/jpeg;base64,")))) as image:
            assert image.size == (224, 224)
    assert explain(address, npy(np.zeros((3, 4, 24, 24), np.uint8))).status_code == 200
    for data, query, told in (
        (video, {"class_name": "dwn"}, "there is no class 'dwn'; did you mean 'down'"),
        (npy(np.zeros((3, 4, 24, 24), np.float32)), {}, "send uint8"),
        (b"x", {}, "not a video"),
    ):
        response = explain(address, data, **query)
        assert response.status_code == 422 and told in response.json()["detail"]
    assert not left_over()


def timeline(address, data, **query):
    return httpx.post(f"{address}/timeline", params=query, files={"file": ("upload", data)}, timeout=60)


def as_tuples(segments):
    return [(s.start, s.end, s.label, pytest.approx(s.confidence, abs=1e-5)) for s in segments]


@pytest.fixture(scope="module")
def changing(folder):
    """A video in which the large configuration sees `right` with more than RED where it is red, and with less where it is blue."""
    path = write_video(folder / "changing.mp4", red_and_blue_frames((0.9, 0.8, 0.9667)))
    return path, path.read_bytes()


def test_a_timeline_is_that_of_predictions(served, changing, model):
    service, address = served
    path, data = changing
    for query in ({"window": "300ms", "step": "0.1"}, {"window": "0.2s", "threshold": RED, "background": "down"}, {"window": "2", "threshold": 0.0}):
        for configuration in (SMALL, LARGE):
            found = TimelineAnswer(**timeline(address, data, configuration=configuration, **query).raise_for_status().json())
            windows = model.predict(path, window=query["window"], step=query.get("step"), configuration=configuration)
            (expected,) = windows.timeline(query.get("threshold", 0.5), [query["background"]] if "background" in query else []).values()
            assert as_tuples(found.segments) == [(s.start, s.end, s.label, s.confidence) for s in expected]
            assert (found.windows, found.ran, found.asked, found.lowered, found.met) == (len(windows), {configuration: len(windows)}, configuration, False, True)
            assert found.duration == pytest.approx(windows[0].clips.duration) and found.total_ms > 0
    found = TimelineAnswer(**timeline(address, data, configuration=LARGE, window="0.2s", threshold=RED).json())
    assert [(s.label, round(s.start), round(s.end, 1)) for s in found.segments] == [("right", 0, 1.0), ("right", 2, 2.7)]
    assert found.deadline_ms == service.settings.deadline_ms and not left_over()
    frames = moving_frames(60, 24, 32)
    (expected,) = model.predict(frames, window="0.5s", configuration=LARGE).timeline(0.0).values()
    found = TimelineAnswer(**timeline(address, npy(frames), window="0.5s", threshold=0).raise_for_status().json())
    assert as_tuples(found.segments) == [(s.start, s.end, s.label, s.confidence) for s in expected] and found.segments


def test_a_timeline_needs_a_clock_and_windows_and_time(served, changing):
    _, address = served
    image = io.BytesIO()
    Image.fromarray(moving_frames(1)[0]).save(image, "PNG")
    clip, one = npy(np.zeros((3, 4, 24, 24), np.uint8)), npy(moving_frames(1))
    for data, query, status, told in (
        (image.getvalue(), {"window": "1s"}, 422, "it is an image, which has no seconds to make a timeline of"),
        (clip, {"window": "1s"}, 422, "it is a clip, which has no seconds"),
        (one, {"window": "1s"}, 422, "it is one frame, which has no seconds"),
        (b"hello", {"window": "1s"}, 422, "not a video"),
        (changing[1], {}, 422, "window: Field required"),
        (changing[1], {"window": "2 hours"}, 422, "'2 hours' is no length of time above 0"),
        (changing[1], {"window": "1s", "step": "0"}, 422, "'0' is no length of time"),
        (changing[1], {"window": "1s", "threshold": 2}, 422, "threshold: Input should be less"),
        (changing[1], {"window": "1s", "background": "nothing"}, 422, "'nothing', which is no class of this network: choose among right, down"),
        (changing[1], {"window": "1ms"}, 422, r"has 26\d\d windows, and at most 2000 are taken: give longer windows"),
        (changing[1], {"window": "10ms", "deadline_ms": 5}, 422, r"windows are left, which take about .* s at 0.5-16-2.* give a longer deadline_ms"),
        (changing[1], {"window": "1s", "latency_ms": 1e-6}, 422, "no configuration fits"),
    ):
        response = timeline(address, data, **query)
        assert response.status_code == status and re.search(told, response.json()["detail"]), (query, response.text)
    assert not left_over()


def test_a_timeline_that_is_short_of_time_goes_down(folder, changing):
    """Told that the large one takes a second for each window, and the small one none, it keeps its deadline with that."""
    with running(settings_of(folder / "adaptive.pyth")) as (service, address):
        row = service.front.choose(configuration=LARGE).row
        slow = (TimedConfiguration(Configuration.parse(SMALL), 0.1), TimedConfiguration(Configuration.parse(LARGE), 1000.0))
        service.front.choose = lambda *budgets: Choice(row, slow)
        found = TimelineAnswer(**timeline(address, changing[1], window="0.2s", deadline_ms=5000).raise_for_status().json())
        assert found.lowered and found.asked == LARGE and found.ran[SMALL] > 0 and found.windows == sum(found.ran.values()) == 14


def test_explanations_have_a_deadline_and_leave_the_queue_to_others(folder, video, monkeypatch):
    may_end = threading.Event()

    def held(*arguments):
        assert may_end.wait(60)
        return draw_looks(*arguments)

    with running(settings_of(folder / "adaptive.pyth", queue=8)) as (service, address), ThreadPoolExecutor(2) as pool:
        found = LooksAnswer(**explain(address, video, deadline_ms=20_000).raise_for_status().json())
        assert found.met and found.deadline_ms == 20_000 and found.total_ms > 0
        monkeypatch.setattr("mutual3d.deploy.serve.service.draw_looks", held)
        waiting = [pool.submit(explain, address, video)]
        wait_until(lambda: service._explaining.locked())
        late = explain(address, video, deadline_ms=200)
        assert late.status_code == 429 and int(late.headers["retry-after"]) >= 1
        # Of eight requests two may be long ones; single clips are answered meanwhile.
        waiting.append(pool.submit(explain, address, video))
        wait_until(lambda: service.inside_long == 2)
        for refused in (explain(address, video), timeline(address, video, window="1s")):
            assert refused.status_code == 429 and "2 timelines and explanations are inside" in refused.json()["detail"]
        assert send(address, video).status_code == 200
        may_end.set()
        assert [future.result(60).status_code for future in waiting] == [200, 200]
        wait_until(lambda: service.inside == service.inside_long == 0)


@pytest.mark.parametrize(
    "query, told",
    [
        ({"latency_ms": 1e-6}, r"no configuration fits .* the nearest, 0.5-16-2, needs"),
        ({"configuration": "0.7-16-2"}, f"'0.7-16-2' is not kept ready: choose among {SMALL}, {LARGE}"),
        ({"configuration": SMALL, "gflops": 1}, "give a configuration or a budget, not both"),
        ({"gflops": "nan"}, "gflops: Input should be"),
        ({"latency_ms": -1}, "latency_ms: Input should be greater than 0"),
        ({"top": 0}, "top: Input should be greater than"),
    ],
)
def test_budgets_that_cannot_be_are_sentences(served, video, query, told):
    response = send(served[1], video, **query)
    assert response.status_code == 422 and re.search(told, response.json()["detail"])


def test_table_health_samples_and_metrics(served, video):
    service, address = served
    table = Table(**get(address, "/table").json())
    assert [row.configuration for row in table.rows] == [SMALL, LARGE] and table.device == service.front.key
    assert (table.metric, table.unit, table.classes, table.frames, table.crop) == ("top-1 accuracy", "%", 2, 4, 24)
    assert table.clip_seconds == pytest.approx(4 * 2 / 30)
    health = Health(**get(address, "/health").json())
    assert (health.status, health.runtime, health.configurations, health.limits.bytes) == ("ready", "eager", 2, 400_000)
    assert [each["name"] for each in get(address, "/samples").json()] == ["bar.mp4"]
    assert get(address, "/samples/0").content == Path(service.settings.samples, "bar.mp4").read_bytes()
    for path in ("/samples/1", "/samples/-1", "/samples/..%2fa.mp4", "/none"):
        assert get(address, path).status_code in (404, 422)
    send(address, video)
    text = get(address, "/metrics").text
    assert re.search(r'mutual3d_requests_total\{path="/predict",status="200"\} [1-9]', text)
    assert 'mutual3d_requests_total{path="other",status="404"}' in text and "/none" not in text
    assert 'mutual3d_seconds_count{part="total"}' in text and "mutual3d_inside 0.0" in text


def test_the_interface_is_typed(served):
    found = get(served[1], "/openapi.json").json()
    predict = found["paths"]["/predict"]["post"]
    assert predict["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/Answer")
    assert {"408", "413", "422", "429", "503"} <= set(predict["responses"])
    assert {each["name"] for each in predict["parameters"]} >= {"latency_ms", "gflops", "configuration", "top", "deadline_ms"}
    timeline = found["paths"]["/timeline"]["post"]
    assert timeline["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/TimelineAnswer")
    names = {"latency_ms", "gflops", "configuration", "deadline_ms", "window", "step", "threshold", "background"}
    assert {each["name"] for each in timeline["parameters"]} == names and {"422", "429"} <= set(timeline["responses"])
    assert "deadline_ms" in {each["name"] for each in found["paths"]["/explain"]["post"]["parameters"]}
    assert all("service" not in each["name"] and each["schema"] for path in found["paths"].values() for method in path.values() for each in method.get("parameters", ()))


def test_each_endpoint_is_a_function_that_can_be_read_alone():
    source = ast.parse((ROOT / "mutual3d/deploy/serve/app.py").read_text())
    functions = [node for node in ast.walk(source) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    longest = max(functions, key=lambda function: sum(isinstance(node, ast.stmt) for node in ast.walk(function)))
    assert {"create_app", "predict", "timeline", "explain", "stream"} <= {function.name for function in functions}
    assert sum(isinstance(node, ast.stmt) for node in ast.walk(longest)) <= 20, longest.name


def test_the_page_loads_nothing_from_elsewhere(served):
    page = get(served[1])
    assert page.headers["content-security-policy"].startswith("default-src 'none'") and page.headers["x-content-type-options"] == "nosniff"
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(named) > 3
    for name in named:
        assert name == "data:," or get(served[1], name).status_code == 200
    for name in ("page.js", "page.css"):
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", get(served[1], "/{name}").text)


# ---- What is refused --------------------------------------------------------------------------------------------------


BROKEN = {
    "nothing": (b"", "the file is empty"),
    "text": (b"hello", "not a video"),
    "playlist": (b"#EXTM3U\n#EXTINF:1\nfile:///etc/passwd\n", "an m3u8 playlist, which names other files"),
    "concat": (b"ffconcat version 1.0\nfile '/etc/passwd'\n", "an ffconcat script"),
    "jpeg": (b"\xff\xd8\xff\xe0" + bytes(50), "cannot read the upload"),
    "objects": (npy(np.array([{"a": 1}], dtype=object)), "save it with numpy.save, as plain numbers"),
    "announced": (npy(np.zeros(4, np.uint8)).replace(b"(4,)", b"(9999999999,)"), "its header"),
    "header": (b"\x93NUMPY\x01\x00\xff\xff{'descr': __import__('os')", "its header is damaged"),
    "shape": (npy(np.zeros((3, 4, 8, 8), np.uint8)), r"give a clip \(3, 4, 24, 24\)"),
    "overflow": (npy(np.full((3, 4, 24, 24), 3e38, np.float32)), "its numbers are so large"),
    "nan": (npy(np.full((3, 4, 24, 24), np.nan, np.float32)), "not finite"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_is_a_sentence_without_paths(served, name):
    data, told = BROKEN[name]
    response = send(served[1], data)
    assert response.status_code == 422, response.text
    detail = response.json()["detail"]
    assert re.search(told, detail) and tempfile.gettempdir() not in detail and "mutual3d-serve" not in detail
    assert not left_over()


def test_a_form_has_one_file_and_nothing_that_fills_the_memory(served, video):
    address = served[1]
    for form in ({"files": [("file", video), ("file", video)]}, {"files": {"file": video}, "data": {f"f{k}": "x" * 30_000 for k in range(9)}}):
        response = httpx.post(f"{address}/predict", timeout=60, **form)
        assert response.status_code == 400 and "Too many" in response.json()["detail"]
    assert httpx.post(f"{address}/predict", files={"file": video}, data={"note": "x"}, timeout=60).status_code == 200
    assert not left_over()


def test_a_video_that_is_cut_short_is_told_as_that(served, video):
    response = send(served[1], video[: len(video) // 2])
    assert response.status_code == 422 and response.json()["detail"].startswith("cannot read the upload: it")


def test_what_is_too_large_too_long_or_too_slow_is_refused(served, folder):
    service, address = served
    assert send(address, bytes(600_000)).status_code == 413

    def endless():
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(600):
            yield bytes(1000)

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert httpx.post(f"{address}/predict", content=endless(), headers=headers, timeout=60).status_code == 413
    long = write_video(folder / "long.mp4", moving_frames(100))
    response = send(address, long.read_bytes())
    assert response.status_code == 413 and "it lasts 3.3 s, and at most 3 s are taken" in response.json()["detail"]
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as slow:
        slow.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\nContent-Type: multipart/form-data; boundary=x\r\n\r\n--x")
        assert b" 408 " in slow.recv(1000)
    assert httpx.post(f"{address}/predict", timeout=60).status_code == 422
    assert httpx.post(f"{address}/predict", content=b"--x\r\n", headers=headers, timeout=60).status_code in (400, 422)
    # A request is counted until its answer was sent, which the client may have by then.
    wait_until(lambda: service.inside == 0)
    assert not left_over()


def test_a_full_service_says_when_to_come_again(folder, video):
    with running(settings_of(folder / "adaptive.pyth", queue=1)) as (service, address):
        with service.admitted():
            response = send(address, video)
        assert response.status_code == 429 and int(response.headers["retry-after"]) >= 1
        assert send(address, video).status_code == 200
        service.is_closing = True
        assert send(address, video).status_code == 503 and get(address, "/health").status_code == 503


# ---- Decoders ---------------------------------------------------------------------------------------------------------


class HarmfulJob(UploadJob):
    """Ends its process where an upload says so."""

    def _clips(self, upload):
        word = Path(upload.path).read_bytes()
        if word in (b"crash", b"hang"):
            getattr(harm, word.decode())()
        if word == b"memory":
            return np.zeros(self._memory * 4, np.uint8)
        return super()._clips(upload)


def test_decoders_that_die_hang_or_fill_cost_their_upload_alone(folder, model, tmp_path):
    job = HarmfulJob(model.preprocessing, is_of_images=False, backend="pyav", max_seconds=10.0, memory=200_000_000)
    readers = Readers(job, 1, timeout=1.5, option="--decode-seconds")
    try:
        for word, told in (("crash", "its decoder crashed"), ("hang", "did not answer within 1.5 s"), ("memory", "more memory than this service")):
            (tmp_path / word).write_bytes(word.encode())
            with pytest.raises(VideoError, match=told):
                readers.read_now(Upload(str(tmp_path / word), None))
            assert readers.read_now(Upload(str(folder / "a.mp4"), None)).clips_VCTHW.shape == (1, 3, 4, 24, 24)
        assert readers.num_lost == 2
    finally:
        readers.close()


# ---- Choosing and batching --------------------------------------------------------------------------------------------

C = [TimedConfiguration(Configuration(0.5, 16, 2), 10.0), TimedConfiguration(Configuration(1.0, 24, 4), 40.0)]


def request(ladder=C, seconds=10.0):
    return Request(torch.zeros(1, 3, 4, 8, 8, dtype=torch.uint8), tuple(ladder), time.perf_counter() + seconds)


class Computed:
    """A network that is held until it is let go, and notes what it was asked for."""

    def __init__(self):
        self.calls, self.may_run = [], threading.Event()

    def __call__(self, clips, configuration):
        assert self.may_run.wait(10)
        self.calls.append((len(clips), str(configuration)))
        return torch.arange(float(len(clips)))[:, None].expand(-1, 2)


def batcher_of(run, **options):
    batcher = Batcher(run, **options)
    batcher.start()
    return batcher


def test_clips_of_one_configuration_are_computed_together():
    run = Computed()
    batcher = batcher_of(run, max_batch=3)
    first = batcher.submit(request())
    while batcher.num_waiting:
        time.sleep(0.001)
    futures = [batcher.submit(request(ladder)) for ladder in (C, C[:1], C, C[:1], C)]
    run.may_run.set()
    answers = [future.result(10) for future in (first, *futures)]
    assert sorted(run.calls) == [(1, LARGE), (2, SMALL), (3, LARGE)]
    assert [answer.batch for answer in answers] == [1, 3, 2, 3, 2, 3]
    # Each has its own scores.
    assert sorted(answer.scores_K[0].item() for answer in answers if answer.batch == 3) == [0.0, 1.0, 2.0]
    batcher.close()


def test_a_busy_service_goes_down_before_it_refuses():
    run = Computed()
    batcher = batcher_of(run, max_batch=1)
    batcher.submit(request(C[:1]))
    while batcher.num_waiting:
        time.sleep(0.001)
    # 200 ms for all: ten clips of 40 ms do not fit, of 10 ms they do; one that names its configuration is held.
    futures = [batcher.submit(request(seconds=0.2)) for _ in range(10)]
    held = batcher.submit(request(C[1:]))
    with pytest.raises(Overloaded) as refused:
        batcher.submit(request(seconds=0.001))
    assert refused.value.seconds > 0
    run.may_run.set()
    assert {str(future.result(10).timed.configuration) for future in futures[:2]} == {SMALL}
    assert str(held.result(10).timed.configuration) == LARGE
    batcher.close()
    with pytest.raises(Overloaded):
        batcher.submit(request())


def test_a_failing_network_fails_its_own_batch_alone():
    def run(clips, configuration):
        if str(configuration) == SMALL:
            raise MemoryError("none left")
        return torch.zeros(len(clips), 2)

    batcher = batcher_of(run)
    with pytest.raises(MemoryError):
        batcher.submit(request(C[:1])).result(10)
    assert batcher.submit(request()).result(10).batch == 1
    batcher.close()


def test_a_clip_waits_for_one_that_is_being_decoded():
    run = Computed()
    run.may_run.set()
    batcher = batcher_of(run, gather_ms=2000, num_coming=lambda: 1, max_batch=2)
    first = batcher.submit(request())
    time.sleep(0.05)
    second = batcher.submit(request())
    assert first.result(10).batch == second.result(10).batch == 2
    batcher.close()


def test_what_waits_to_be_decoded_counts(folder, video):
    """By the time that the last uploads took: who would be late by those before it is refused at once, and told when to come again."""
    with running(settings_of(folder / "adaptive.pyth")) as (service, address):
        readers = service.readers
        assert send(address, video).status_code == 200 and 0 < readers.seconds_until() < 10
        for _ in range(40):
            readers.learn(3.0)
        assert readers.seconds_until() == pytest.approx(3.0, rel=0.02) and readers.seconds_until(0) == 0
        with readers.counted():
            assert readers.seconds_until(0) == pytest.approx(3.0, rel=0.02) and service.seconds_ahead() > 2.9
            refused = send(address, video, deadline_ms=2000)
            assert refused.status_code == 429 and int(refused.headers["retry-after"]) in (4, 5) and "try again in" in refused.json()["detail"]
            for late in (explain(address, video, deadline_ms=2000), timeline(address, video, window="1s", deadline_ms=2000)):
                assert late.status_code == 429 and int(late.headers["retry-after"]) in (4, 5)
            assert send(address, video, deadline_ms=20_000).status_code == 200
            assert timeline(address, video, window="1s", deadline_ms=20_000).status_code == 200
            for _ in range(40):
                readers.learn(3.0)
        # Alone it is let in, late or not, and so what it took is learned.
        assert send(address, video, deadline_ms=2000).status_code == 200 and readers.seconds_until() < 3.0


def test_what_finds_a_free_decoder_waits_for_nobody(folder, video):
    with running(settings_of(folder / "adaptive.pyth", decoders=2)) as (service, address):
        for _ in range(40):
            service.readers.learn(3.0)
        with service.readers.counted():
            assert send(address, video, deadline_ms=2000).status_code == 200
            service.readers.learn(300.0)
            with service.readers.counted():
                assert send(address, video, deadline_ms=2000).status_code == 429


def test_a_stream_ends_with_whatever_its_decoder_dies_of(served):
    """At once, and not when the client has been silent for long."""
    service, address = served

    async def dies(frame):
        raise RuntimeError("no process can be started")

    with pytest.MonkeyPatch.context() as patch, stream_of(address) as socket:
        patch.setattr(service.frame_readers, "read", dies)
        socket.send(b"a frame")
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=10)
    wait_until(lambda: service.streams == 0)


def test_a_budget_chooses_without_activating(model):
    front = ServedFront.of(model)
    before = model.active
    assert [str(timed.configuration) for timed in front.choose().ladder] == [SMALL, LARGE]
    assert [str(timed.configuration) for timed in front.choose(gflops=0.0015).ladder] == [SMALL]
    assert [str(timed.configuration) for timed in front.choose(configuration=LARGE).ladder] == [LARGE]
    with pytest.raises(BudgetTooSmall):
        front.choose(gflops=1e-9)
    assert model.active == before


# ---- Streams ----------------------------------------------------------------------------------------------------------


def jpeg(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=100)
    return file.getvalue()


def stream_of(address, **query):
    words = "&".join(f"{name}={value}" for name, value in query.items())
    return connect(f"{address.replace('http', 'ws')}/stream?{words}", open_timeout=30)


def send_frames(socket, frames, is_raw):
    for number, frame in enumerate(frames):
        header = {"second": number / 30, **({"width": frame.shape[1], "height": frame.shape[0]} if is_raw else {})}
        socket.send(json.dumps(header))
        socket.send(frame.tobytes() if is_raw else jpeg(frame))
        time.sleep(0.02)


def test_pages_of_other_sites_open_no_stream(served, folder):
    address = served[1]
    host = address.removeprefix("http://")
    stream = f"ws://{host}/stream"
    told = {"null": "the page is of no site .* open the page from a web server"}
    for origin in ("https://evil.example", f"http://{host}.evil.example", "null", f"https://evil.example/{host}"):
        with pytest.raises(InvalidStatus) as refused:
            connect(stream, origin=origin, open_timeout=30)
        assert refused.value.response.status_code == 403
        assert re.search(told.get(origin, f"start it with --allow-origin {re.escape(origin)}"), refused.value.response.body.decode())
    for origin in (None, address):
        with connect(stream, origin=origin, open_timeout=30) as socket:
            socket.send(b"no image")
            assert "not a JPEG" in socket.recv(timeout=10)
        wait_until(lambda: served[0].streams == 0)
    with running(settings_of(folder / "adaptive.pyth", origins=("https://cameras.example",))) as (_, other):
        with connect(f"{other.replace('http', 'ws')}/stream", origin="https://Cameras.example", open_timeout=30) as socket:
            socket.send(b"no image")
            assert "not a JPEG" in socket.recv(timeout=10)


def test_whoever_asks_by_a_foreign_name_is_refused(served, folder):
    """A page of a name that its owner points at this machine is the service's own to a browser, and could read what it answers."""
    port = served[1].rpartition(":")[2]
    for path, host in (("/health", "evil.example"), ("/table", f"evil.example:{port}"), ("/", "127.0.0.1.evil.example")):
        refused = httpx.get(served[1] + path, headers={"host": host}, timeout=60)
        assert refused.status_code == 403 and f"--allow-host {host_name(host)}" in refused.json()["detail"]
    refused = httpx.post(f"{served[1]}/predict", headers={"host": "evil.example"}, files={"file": b"x"}, timeout=60)
    assert refused.status_code == 403
    with pytest.raises(InvalidStatus) as closed:
        pointed_here = socket.create_connection(("127.0.0.1", int(port)))
        connect("ws://evil.example/stream", sock=pointed_here, origin="http://evil.example", open_timeout=30)
    assert closed.value.response.status_code == 403
    for host in ("localhost", f"LOCALHOST:{port}", "localhost.", f"[::1]:{port}", "192.168.1.5", f"127.0.0.1:{port}"):
        assert httpx.get(f"{served[1]}/health", headers={"host": host}, timeout=60).status_code == 200, host
    with running(settings_of(folder / "adaptive.pyth", hosts=("127.0.0.1", "gpu-box"))) as (_, other):
        assert httpx.get(f"{other}/health", headers={"host": "GPU-box:80"}, timeout=60).status_code == 200
        assert httpx.get(f"{other}/health", headers={"host": "gpu-box.evil.example"}, timeout=60).status_code == 403


def test_a_service_may_go_by_all_names_of_a_domain_or_by_all_there_are():
    hosts = command.parse(["adaptive.pyth", "--allow-host", "*.Videos.example", "gpu-box"]).allow_host
    for name in ("a.videos.example", "b.a.videos.example", "gpu-box"):
        assert goes_by(name, hosts), name
    for name in ("videos.example", "evilvideos.example", "a.videos.example.evil", "a.gpu-box", "*"):
        assert not goes_by(name, hosts), name
    assert goes_by("evil.example", command.parse(["adaptive.pyth", "--allow-host", "*"]).allow_host)


@pytest.mark.parametrize("is_raw", [True, False])
def test_frames_are_answered_as_the_model_answers_them(served, model, is_raw):
    frames = moving_frames(30, height=24, width=24)
    with stream_of(served[1], deadline_ms=5000, fps=5) as socket:
        send_frames(socket, frames, is_raw)
        answers = [StreamAnswer.model_validate_json(socket.recv(timeout=10)) for _ in range(3)]
    assert [answer.end for answer in answers] == pytest.approx([7 / 30 + k / 5 for k in range(3)], abs=1e-3)
    for answer in answers:
        assert answer.met and answer.dropped == 0 and answer.start == pytest.approx(answer.end - 7 / 30)
        if is_raw:
            indices = [min(round(30 * second), 29) for second in np.linspace(answer.start, answer.end, 4)]
            clip = torch.from_numpy(frames[indices]).permute(3, 0, 1, 2)[None]
            expected = model(clip, configuration=answer.row.configuration)[0]
            assert answer.top[0].probability == pytest.approx(expected.max().item(), abs=1e-5)


def test_a_stream_has_a_timeline(served, model):
    """The segments that have ended come with the answers, the others when the client says that no frame follows."""
    frames = red_and_blue_frames((0.9, 0.8, 0.9667))
    with stream_of(served[1], deadline_ms=20000, fps=5, configuration=LARGE, events="true", threshold=RED) as socket:
        send_frames(socket, frames, True)
        socket.send('{"end": true}')
        messages = []
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                messages.append(json.loads(socket.recv(timeout=20)))
    assert closed.value.rcvd.code == 1000
    answers, last = [StreamAnswer(**each) for each in messages[:-1]], StreamEnd(**messages[-1])
    assert answers and answers[-1].dropped == 0
    scored = [
        Scored(each.start, each.end, torch.tensor([dict((s.name, s.probability) for s in each.top)[name] for name in model.class_names]), model.class_names)
        for each in answers
    ]  # fmt: skip
    builder = TimelineBuilder(RED, hold=1 / 5)
    expected = [builder.add(each) for each in scored] + [builder.end()]
    found = [*(each.ended for each in answers), last.ended]
    assert [[(s.start, s.end, s.label) for s in each] for each in found] == [[(s.start, s.end, s.label) for s in each] for each in expected]
    assert [s.label for each in found for s in each] == ["right", "right"] and [s.label for s in found[-1]] == ["right"]
    wait_until(lambda: served[0].streams == 0)


@pytest.mark.parametrize("query, told", [
    ({"threshold": 0.5}, "ask for events=true"), ({"background": "a"}, "ask for events=true"),
    ({"events": "true", "background": "unknown"}, "the background has 'unknown', which is no class of this network"),
])  # fmt: skip
def test_a_timeline_of_a_stream_that_cannot_be_is_refused(served, query, told):
    with stream_of(served[1], **query) as socket:
        assert told in socket.recv(timeout=10)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=10)
    assert closed.value.rcvd.code == 1008


def test_streams_refuse_what_is_none(served):
    address = served[1]
    with stream_of(address) as socket:
        socket.send(b"no image")
        assert "not a JPEG or PNG image" in socket.recv(timeout=10)
        socket.send('{"width": 3, "height": 2}')
        socket.send(bytes(5))
        assert "has 5 bytes, and 3 x 2 pixels in RGB have 18" in socket.recv(timeout=10)
        # One stream is all that is allowed here.
        with stream_of(address) as other:
            assert "1 streams are open" in other.recv(timeout=10)
            with pytest.raises(ConnectionClosed) as closed:
                other.recv(timeout=10)
            assert closed.value.rcvd.code == 1013
        socket.send('{"file": "/etc/passwd"}')
        assert "a header is a text such as" in socket.recv(timeout=10)
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=10)
    wait_until(lambda: served[0].streams == 0)
    with stream_of(address) as socket:
        socket.send('{"second": 1' + " " * 1000 + "}")
        assert "this has 1013 characters" in socket.recv(timeout=10)
    wait_until(lambda: served[0].streams == 0)
    with stream_of(address, configuration="9-9-9") as socket:
        assert "is not kept ready" in socket.recv(timeout=10)


# ---- The command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def start(folder, tmp_path):
    """Starts `mutual3d serve` with these words in a process of its own; gives (process, address)."""
    begun = []

    def begin(*words):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
        program = [sys.executable, "-m", "mutual3d", "serve", str(folder / "adaptive.pyth"), "--port", "0", "--runtime", "none", "--decoders", "1", *words]
        process = subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path)
        begun.append(process)
        told = []
        for line in process.stdout:
            told.append(line)
            found = re.match(r"(http://\S+) serves ", line)
            if found:
                return process, found[1]
        raise AssertionError("".join(told))

    yield begin
    for process in begun:
        process.kill()
        process.wait()


def test_sigterm_ends_it_when_what_is_in_hand_is_answered(start, video, tmp_path):
    process, address = start()
    parts = [b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n', video, b"\r\n--x--\r\n"]
    has_begun, may_end = threading.Event(), threading.Event()

    def slowly():
        yield parts[0]
        has_begun.set()
        assert may_end.wait(20)
        yield parts[1]
        yield parts[2]

    with ThreadPoolExecutor(1) as pool, stream_of(address) as stream:
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        future = pool.submit(httpx.post, f"{address}/predict", content=slowly(), headers=headers, timeout=60)
        assert has_begun.wait(20)
        while get(address, "/health").json()["inside"] == 0:
            time.sleep(0.01)
        assert list(tmp_path.glob("mutual3d-serve-*"))
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 20
        with pytest.raises(httpx.TransportError):  # nobody new is let in
            while time.monotonic() < deadline:
                httpx.get(f"{address}/health", timeout=5)
                time.sleep(0.02)
        with pytest.raises(ConnectionClosed) as closed:
            stream.recv(timeout=20)
        assert closed.value.rcvd.code == 1012  # the service restarts
        may_end.set()
        assert future.result(60).status_code == 200
    assert process.wait(60) == 0
    assert not list(tmp_path.glob("mutual3d-serve-*")), "no file is left"
    assert "Traceback" not in process.stdout.read()


def test_several_processes_share_an_address(start, video, tmp_path):
    process, address = start("--processes", "2")
    deadline = time.monotonic() + 60
    while True:
        try:
            response = send(address, video)
            break
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert response.status_code == 200
    while len(list(tmp_path.glob("mutual3d-serve-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert not list(tmp_path.glob("mutual3d-serve-*")) and "Traceback" not in process.stdout.read()


def test_what_it_cannot_be_started_with_is_a_sentence(folder, tmp_path, monkeypatch, capsys):
    bundle = str(folder / "adaptive.pyth")
    with pytest.raises(FileNotFoundError, match="there is no model"):
        command.main([str(tmp_path / "none.pyth")])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(OSError, match="Address already in use.*choose another --port"):
            command.main([bundle, "--port", str(taken.getsockname()[1])])
    for words, told in ((["--port", "70000"], "'70000' is no port"), (["--allow-origin", "https://a.example/page"], "is no origin: give scheme and host"),
                        (["--allow-host", "http://a.example"], "is no name of a host: give it without scheme, port and path"),
                        (["--allow-host", "a.*.example"], "'*.videos.example' for the names that end so")):
        with pytest.raises(SystemExit):
            command.main([bundle, *words])
        assert told in capsys.readouterr().err
    monkeypatch.delitem(sys.modules, "mutual3d.deploy.serve.run")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs uvicorn: pip install -e .\[serve\]"):
        command.main([bundle])


def test_folders_of_killed_services_are_removed(folder, tmp_path, monkeypatch):
    from mutual3d.deploy.serve.service import _remove_folders_of_the_dead
    from mutual3d.utils.processes import this_process

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    me = this_process()
    names = [f"mutual3d-serve-{me.place}+{me.pid}+{started}.abc" for started in (me.started, 1)]
    for name in (*names, "mutual3d-serve-other+1+1.abc"):
        (tmp_path / name).mkdir()
    _remove_folders_of_the_dead()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([names[0], "mutual3d-serve-other+1+1.abc"])


def test_a_connection_sends_small_messages_at_once():
    """Else each answer waits 40 ms for the client to confirm the first part of it."""

    async def ask():
        found = asyncio.get_running_loop().create_future()

        async def handle(reader, writer):
            found.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with contextlib.closing(listen("127.0.0.1", 0)) as listening:
            async with await asyncio.start_server(handle, sock=listening):
                _, writer = await asyncio.open_connection(*listening.getsockname())
                answer = await found
                writer.close()
                return answer

    assert asyncio.run(ask()) != 0
