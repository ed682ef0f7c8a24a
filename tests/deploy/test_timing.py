"""Latencies of a model on this machine: in its runtimes, in its table, and as budgets; nobody else's by mistake."""

import logging
import re

import pytest
import torch
from batches import MEAN, STD, batches_from, prepare
from tiny import SPACE, tiny_network
from videos import moving_frames, write_video

from mutual3d.cost.axes import CostConditions, measure_costs
from mutual3d.cost.latency import Repeating, Timing
from mutual3d.cost.latency_key import LatencyKey
from mutual3d.data.video.reader import VideoError
from mutual3d.deploy import AdaptiveModel, Preprocessing, timing
from mutual3d.deploy.runtimes import RUNTIMES, CompiledNetwork, Runtime, TensorSpec, register_runtime
from mutual3d.deploy.timing import Column, key_here, measure_columns, timed_front, with_columns
from mutual3d.deploy.video_timing import FileTimes, time_file, with_file_times
from mutual3d.evaluation import calibrate
from mutual3d.table.query_table import BudgetTooSmall, QueryTable, Row

CPU = torch.device("cpu")
QUICKEST = Repeating(repeats=1, warmup=0, attempts=1)
ELSEWHERE = "cpu.elsewhere_1-torch-fp32-b1-t1"


@pytest.fixture(autouse=True, scope="module")
def small_tensors():
    """One thread of torch's: with tensors so small a second would only be waited for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = tiny_network()
    calibrate(network, batches_from, SPACE.corners(), prepare=prepare)
    return network


@pytest.fixture(scope="module")
def rows(network):
    """Accuracy grows with the cost; a column of another machine says that everything takes a tenth of a millisecond."""
    costs = measure_costs(("gflops", "parameters"), network, SPACE.corners(), CostConditions(24, CPU, MEAN, STD))
    return [
        Row(c, (8,), costs["gflops"][""][c], costs["parameters"][""][c], {"top1_acc": 50.0 + i}, {ELSEWHERE: 0.1})
        for i, c in enumerate(sorted(SPACE.corners(), key=costs["gflops"][""].get))
    ]


@pytest.fixture
def model(network, rows):
    cut = Preprocessing(mean=MEAN, std=STD, num_frames=4, sampling_rate=2, target_fps=30, crop=24)
    table = QueryTable(rows, {"metric": "top1_acc", "split": "val", "num_views": 1, "crop": 24})
    return AdaptiveModel(network, preprocessing=cut, table=table, class_names=["right", "down"])


@pytest.fixture
def by_flops(monkeypatch):
    """Times that are the GFLOPs, in a runtime of any name: what is measured, without measuring. Counts the measurements."""
    asked = []

    def measure(model, configurations, *, runtimes=(None,), **options):
        asked.append(list(configurations))
        times = {c: model.table.row(c).gflops * 1e4 for c in configurations}
        timings = {c: Timing(ms, 2 * ms, 3 * ms, 0.01, 20) for c, ms in times.items()}
        return [Column(timing.latency_key(model, name), timings, {}, {"date": "today"}) for name in runtimes]

    monkeypatch.setattr(timing, "measure_columns", measure)
    return asked


@pytest.fixture
def crashing_runtime():
    """A runtime that compiles the smallest configuration alone."""

    @register_runtime
    class Crashing(Runtime):
        name, title = "crashing", "Crashing"

        def compile(self, network):
            if str(SPACE.smallest) not in network.metadata["configuration"]:
                raise RuntimeError("segment 7 is too large\nand more")
            module = network.module

            def run(inputs):
                with torch.no_grad():
                    return module(*inputs)

            return CompiledNetwork(network.inputs, TensorSpec("scores", torch.float32, (None, 2)), run)

    yield Crashing
    del RUNTIMES["crashing"]


def test_every_runtime_batch_and_thread_count_has_a_column_of_calls(model):
    chosen = [SPACE.smallest, SPACE.largest]
    columns = measure_columns(
        model, chosen, runtimes=[None, "torch"], batches=[1, 3], threads=[1, 2], repeating=QUICKEST, progress=False
    )
    keys = [str(column.key) for column in columns]
    start = str(LatencyKey.here(CPU)).partition("-")[0]
    assert keys == [f"{start}-{name}-fp32-b{b}-t{t}" for t in (1, 2) for name in ("eager", "torch") for b in (1, 3)]
    assert all(list(column.timings) == chosen and column.about["repeats"] == 1 for column in columns)
    assert "torch" in columns[2].about["runtime"] and columns[0].about["features"] and columns[0].about["date"]
    assert torch.get_num_threads() == 1 and model.runtime is None


def test_columns_stand_beside_others_and_survive_a_file(model, tmp_path):
    key = LatencyKey.here(CPU, "torch")
    column = Column(key, {c: Timing(2.0, 3.0, 4.0, 0.05, 9) for c in SPACE.corners()}, {}, {"cpu": "some", "spread": 0.05})
    model.table = with_columns(model.table, [column])
    model.save(tmp_path / "a.pyth")
    table = AdaptiveModel.load(tmp_path / "a.pyth").table
    assert table == model.table and table.devices == sorted([ELSEWHERE, str(key)])
    row = table.rows[0]
    assert row.latency_ms == {ELSEWHERE: 0.1, str(key): 2.0} and row.costs["latency_p99_ms"] == {str(key): 4.0}
    assert table.provenance["latency"][str(key)] == {"cpu": "some", "spread": 0.05}
    assert table.select(latency_p99_ms=4.0).latency_ms[str(key)] == 2.0
    shown = table.format()
    assert f"ms {key}" in shown and f"ms {ELSEWHERE}" in shown and shown.count(str(key)) == 1  # the median; the csv has all
    table.save_csv(tmp_path / "a.csv")
    assert f"latency_p90_ms:{key}" in (tmp_path / "a.csv").read_text()


def test_a_budget_in_time_is_this_machines_and_is_measured_once_where_nothing_is_known(model, by_flops, caplog):
    budget = 1e4 * model.table.rows[3].gflops
    with caplog.at_level(logging.WARNING, "mutual3d"):
        row = model.set_budget(latency_ms=budget)
    key = str(timing.latency_key(model, None))
    assert row.latency_ms[key] <= budget and model.active == row.configuration
    assert f"no latency was measured on this machine as {key}; the table has {ELSEWHERE}: measuring" in caplog.text
    assert by_flops == [[row.configuration for row in model.table.pareto_front()]]
    assert model.set_budget(latency_p99_ms=3 * budget) == row and len(by_flops) == 1
    with pytest.raises(BudgetTooSmall, match=re.escape(f"ms on {key}")):
        model.set_budget(latency_ms=1e-6)
    # Another runtime is another column; another machine's is taken where it is named.
    model.run_in("torch")
    assert model.set_budget(latency_ms=budget).latency_ms.keys() >= {key.replace("eager", "torch")} and len(by_flops) == 2
    assert model.set_budget(latency_ms=0.1, device=ELSEWHERE).latency_ms[ELSEWHERE] == 0.1
    with pytest.raises(ValueError, match=f"no median latency on 'cpu-fp32-b1-t2': name one of .*{ELSEWHERE}"):
        model.set_budget(latency_ms=5, device="cpu-fp32-b1-t2")


def test_a_column_of_named_configurations_is_no_front_and_what_failed_is_not_tried_again(model, by_flops, caplog):
    """`bench --config` writes a column of one configuration, within which a budget would choose that one whatever its time."""
    key = timing.latency_key(model, None)
    first, second, *rest = [row.configuration for row in model.table.rows]
    one = Column(key, {first: Timing(1.0, 2.0, 3.0, 0.01, 20)}, {second: "no memory"})
    model.table = with_columns(model.table, [one])
    assert key_here(model) == str(key) and len(by_flops) == 1
    front = {row.configuration for row in model.table.pareto_front("gflops")}
    assert set(by_flops[0]) == front - {first, second} and "not all of the front was measured on this machine" in caplog.text
    assert model.table.provenance["latency"][str(key)]["failed"] == {str(second): "no memory"}
    assert key_here(model) == str(key) and len(by_flops) == 1


def test_a_key_says_what_a_runtime_computes_in(model):
    words = {name: LatencyKey.parse(str(timing.latency_key(model, name))).dtype for name in ("torch", "openvino", "openvino_default", "openvino_int8")}
    assert words == {"torch": "fp32", "openvino": "fp32", "openvino_default": "default", "openvino_int8": "int8"}


def test_the_choice_is_by_time_and_not_by_gflops(model):
    """A row of more GFLOPs that is faster and better is taken, and the slower one never."""
    rows = sorted(model.table.rows, key=lambda row: row.gflops)
    key = timing.latency_key(model, None)
    times = {row.configuration: 10.0 - i for i, row in enumerate(rows)}  # the largest is the fastest
    model.table = with_columns(model.table, [Column(key, {c: Timing(ms, ms, ms, 0.0, 9) for c, ms in times.items()})])
    assert model.set_budget(latency_ms=100) == model.table.row(rows[-1].configuration)
    assert [one.configuration for one in timed_front(model)] == [rows[-1].configuration]


def test_a_front_over_time_is_made_ready_and_ascends(model, by_flops):
    front = timed_front(model.run_in("torch"))
    assert [one.quiet_ms for one in front] == sorted(one.quiet_ms for one in front) and len(front) == len(model.table.pareto_front())
    assert key_here(model) in model.table.devices and len(by_flops) == 1
    (one,) = timed_front(model, [SPACE.largest])
    assert one.configuration == SPACE.largest and len(by_flops) == 2
    model.table = None
    with pytest.raises(ValueError, match="this model has no query table, which says how accurate"):
        timed_front(model)


def test_a_runtime_that_fails_costs_its_own_times_alone(model, crashing_runtime, caplog):
    with caplog.at_level(logging.WARNING, "mutual3d"):
        eager, column = measure_columns(
            model, [SPACE.smallest, SPACE.largest], runtimes=[None, "crashing"], repeating=QUICKEST, progress=False
        )
    assert list(column.timings) == [SPACE.smallest] and list(column.failed) == [SPACE.largest] and len(eager.timings) == 2
    assert f"crashing-fp32-b1-t1 has no times of {SPACE.largest}: configuration {SPACE.largest} in the runtime crashing" in caplog.text
    assert "segment 7 is too large" in caplog.text
    model.table = with_columns(model.table, [column])
    assert str(SPACE.largest) in model.table.provenance["latency"][str(column.key)]["failed"]
    model.run_in("crashing")
    model.table = QueryTable([model.table.row(SPACE.largest)], model.table.provenance)
    with pytest.raises(ValueError, match="no configuration runs in crashing: .* segment 7 is too large"):
        model.set_budget(latency_ms=5)


def test_a_noisy_column_says_so(model, caplog):
    restless = Column(LatencyKey.here(CPU), {SPACE.smallest: Timing(1, 2, 3, 0.9, 9), SPACE.largest: Timing(1, 1, 1, 0.01, 9)})
    assert restless.noisy == [SPACE.smallest]
    with caplog.at_level(logging.WARNING, "mutual3d"):
        timing._tell(restless)
    assert re.search(f"noisy: on .* of the calls of {SPACE.smallest} is spread over up to 90 % of the median", caplog.text)


def test_the_way_from_a_file_is_a_budget_of_its_own(model, tmp_path, by_flops):
    path = write_video(tmp_path / "clip.mp4", moving_frames(40))
    with pytest.raises(ValueError, match="the way from a file was not measured on this machine as .*mutual3d bench MODEL --video CLIP"):
        model.set_budget(latency_ms=50, source="file")
    times = time_file(model, path, SPACE.corners(), repeating=QUICKEST)
    assert str(times.key).endswith("-pyav-uint8-b1-t1") and times.about["video"] == "clip.mp4" and times.about["size"]
    two, four = SPACE.smallest, SPACE.largest  # two frames and four: each is measured once
    assert len(set(map(id, times.decoding.values()))) == 2 and times.decoding[two] is not times.decoding[four]
    # Exact numbers from here on.
    both = {c: Timing(20.0, 21, 22, 0.0, 9) for c in SPACE.corners()}
    times = FileTimes(times.key, both, both, times.about)
    key = timing.latency_key(model, None)
    column = Column(key, {c: Timing(5.0 + i, 9, 9, 0.0, 9) for i, c in enumerate(SPACE.corners())})
    model.table = with_file_times(with_columns(model.table, [column]), times, [column])
    row = model.set_budget(latency_ms=46.5, source="file")
    assert row.costs["file_ms"][str(key)] == 40 + row.latency_ms[str(key)] and row.costs["decoding_ms"] == {str(times.key): 20.0}
    with pytest.raises(BudgetTooSmall, match=f"no configuration fits 44 ms on {key}"):
        model.set_budget(latency_ms=44, source="file")
    with pytest.raises(ValueError, match="source is 'camera': give 'clip', or 'file'"):
        model.set_budget(latency_ms=44, source="camera")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(VideoError, match="text.mp4"):
        time_file(model, tmp_path / "text.mp4", SPACE.corners(), repeating=QUICKEST)
