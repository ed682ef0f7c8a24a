"""What only a GPU can show: its losses, statistics, tables and runtimes beside the CPU's."""

import contextlib
import copy
import functools
import json
import socket

import pytest
import torch
import torch.distributed as dist
from batches import batches_from
from networks import NETWORKS
from served import CASES, FRAME, make_model, random_call
from tiny import overrides, tiny_network, write_set
from torch.nn.parallel import DistributedDataParallel

import mutual3d
from mutual3d.cli import bench
from mutual3d.cli import run as run_net
from mutual3d.evaluation import calibrate, measure
from mutual3d.sampling import normalize_clip, prepare_clip, shrink_clip, take_frames
from mutual3d.training import Method, MutualStep, NonFiniteLossError, Trainer, TrainingCourse, build_optimizer
from mutual3d.training.step import Networks
from mutual3d.utils import distributed
from mutual3d.utils.logging import read_json_stats

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
MEAN, STD = (0.45,) * 3, (0.225,) * 3


@pytest.fixture
def exact(monkeypatch):
    """Convolutions in float32 instead of TF32, so that only the order of sums differs from the CPU's."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@contextlib.contextmanager
def no_waiting():
    """While it is open, whatever waits for the GPU is an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def network(device):
    torch.manual_seed(0)
    model = tiny_network().train()
    model.head.dropout.p = 0.0
    return model.place(device)


def step_of(model, **options):
    device = next(model.parameters()).device
    method = Method(("smallest", "random"), "inplace_distillation")
    prepare = functools.partial(prepare_clip, device=device, mean=MEAN, std=STD, memory_format=model.memory_format)
    return MutualStep(model, method, prepare=prepare, seed=1, **options)


def batch(device, count=4):
    generator = torch.Generator().manual_seed(0)
    clips = torch.randint(0, 256, (count, 3, 4, 24, 24), dtype=torch.uint8, generator=generator)
    return clips.to(device), (torch.arange(count) % 2).to(device)


# ---- Training --------------------------------------------------------------------------------------------------------


def test_a_clip_is_prepared_to_the_bit_as_on_a_cpu():
    clips, _ = batch(CPU)
    expected, found = normalize_clip(clips, (0.4, 0.45, 0.5), (0.2, 0.225, 0.3)), normalize_clip(clips.to(GPU), (0.4, 0.45, 0.5), (0.2, 0.225, 0.3))
    assert torch.allclose(found.cpu(), expected, rtol=0, atol=1e-6)
    assert torch.equal(take_frames(clips.to(GPU), 3).cpu(), take_frames(clips, 3))
    assert torch.allclose(shrink_clip(found, 16, 2).cpu(), shrink_clip(expected, 16, 2), atol=1e-5)


@pytest.mark.parametrize("dtype, tolerance", [(None, 1e-4), (torch.float16, 0.02), (torch.bfloat16, 0.1)])
def test_a_steps_losses_and_gradients_are_the_cpus(dtype, tolerance, exact):
    on_cpu, on_gpu = network(CPU), network(GPU)
    expected = step_of(on_cpu)(*batch(CPU), step=3)
    autocast = functools.partial(torch.autocast, "cuda", dtype=dtype) if dtype else None
    scaler = torch.amp.GradScaler("cuda") if dtype == torch.float16 else None
    found = step_of(on_gpu, autocast=autocast, scaler=scaler)(*batch(GPU), step=3)
    assert found.losses == pytest.approx(expected.losses, rel=tolerance, abs=tolerance)
    scale = scaler.get_scale() if scaler else 1.0
    theirs = torch.cat([p.grad.flatten() for p in on_cpu.parameters()])
    ours = torch.cat([p.grad.flatten() for p in on_gpu.parameters()]).cpu() / scale
    assert (ours - theirs).norm() / theirs.norm() < (1e-3 if dtype is None else 0.3)


@pytest.mark.parametrize("name", ["slow", "slowfast", "x3d"])
def test_networks_train_in_their_memory_format_and_have_the_cpus_gradients(name, exact):
    found = {}
    for device in (CPU, GPU):
        model = NETWORKS[f"{name}_small"].build(dropout_rate=0.0).place(device).train()
        generator = torch.Generator().manual_seed(0)
        shape = 4, 3, model.clip_frames, 48, 48
        clips = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(device)
        step_of(model)(clips, (torch.arange(4) % 2).to(device), step=3)
        found[device.type] = torch.cat([p.grad.flatten().cpu() for p in model.parameters()])
    is_last = model.memory_format == torch.channels_last_3d
    assert is_last == (name != "x3d")
    weights = [weight for weight in model.parameters() if weight.ndim == 5]
    assert all(weight.is_contiguous(memory_format=model.memory_format) for weight in weights)
    assert (found["cuda"] - found["cpu"]).norm() / found["cpu"].norm() < 1e-2


def test_a_step_does_not_wait_for_the_gpu():
    model = network(GPU)
    step, optimizer = step_of(model), build_optimizer(model, base_lr=0.1, weight_decay=0.0)
    clips, labels = batch(GPU)
    step(clips, labels, 0)
    with no_waiting():
        result = step(clips, labels, 1)
        optimizer.step()
    result.check_finite()
    assert len(result.losses) == 3


class OneBatch:
    num_samples = 4

    def state(self):
        return {}

    def load_state(self, states):
        pass

    def __len__(self):
        return 4

    def batches(self, epoch=0, start=0):
        clips, labels = batch(CPU)
        for _ in range(4):
            yield type("Batch", (), dict(clips_BVCTHW=clips[:, None].pin_memory(), labels=labels.pin_memory(), bad=[], boxes=None))


def trainer_of(model, device, **options):
    return Trainer(
        step_of(model), build_optimizer(model, base_lr=0.01, weight_decay=0.0), OneBatch(), lambda epoch: 0.01, TrainingCourse(1, log_period=3), device=device, **options
    )


def test_a_loss_that_is_not_finite_ends_training_before_anything_is_saved():
    model, finished = network(GPU), []
    with torch.no_grad():
        model.head.projection.weight[0, 0] = float("nan")
    with pytest.raises(NonFiniteLossError, match="configuration 1-24-4.*in step 0"):
        trainer_of(model, GPU, after_epoch=finished.append).train()
    assert not finished


def test_an_epoch_gives_the_cpus_weights(exact):
    on_cpu, on_gpu = network(CPU), network(GPU)
    trainer_of(on_cpu, CPU).train()
    trainer_of(on_gpu, GPU).train()
    for (name, ours), theirs in zip(on_gpu.state_dict().items(), on_cpu.state_dict().values()):
        assert torch.allclose(ours.cpu().float(), theirs.float(), rtol=0.02, atol=0.02), name


def test_one_rank_of_nccl_has_the_gradients_of_one_process():
    """What is asked of all processes (flags, sums, objects) works through NCCL too."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    alone, parallel = network(GPU), network(GPU)
    expected = step_of(alone)(*batch(GPU), step=0)
    dist.init_process_group("nccl", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1, device_id=GPU)
    try:
        found = step_of(parallel, network=DistributedDataParallel(Networks(parallel), broadcast_buffers=False))(*batch(GPU), step=0)
        assert found.losses == pytest.approx(expected.losses, rel=1e-3)
        found.check_finite()
        assert distributed.gather({"a": 1}) == [{"a": 1}] and not distributed.any_process(False, GPU)
        assert distributed.from_main(lambda: 3) == 3
        distributed.broadcast_buffers(parallel)
        distributed.barrier()
    finally:
        dist.destroy_process_group()
    ours, theirs = (torch.cat([p.grad.flatten() for p in model.parameters()]) for model in (parallel, alone))
    assert (ours - theirs).norm() / theirs.norm() < 1e-2


# ---- A whole run -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [
    {"TRAIN.MIXED_PRECISION": True, "TRAIN.MIXED_PRECISION_DTYPE": "bfloat16"},
    {"TRAIN.MIXED_PRECISION": True, "TRAIN.MIXED_PRECISION_DTYPE": "float16", "SOLVER.CLIP_GRAD_L2NORM": 1.0},
    {"DATA_LOADER.NUM_WORKERS": 2, "DATA_LOADER.PIN_MEMORY": True},
], ids=["bf16", "fp16", "workers"])  # fmt: skip
def test_a_run_and_its_resumption(words, tmp_path):
    """Train an epoch, go on with the second, calibrate, measure the grid with latencies of both devices, test."""
    data = write_set(tmp_path / "set", num_videos=8)
    config = tmp_path / "tiny.yaml"
    config.write_text("RNG_SEED: 3\n")
    common = {"NUM_GPUS": 1, "LOG_PERIOD": 1, "GRID.LATENCY_DEVICES": ["cpu", "cuda"], "GRID.RUNTIMES": ["torch", "cuda"], **words}
    first = {"SOLVER.MAX_EPOCH": 1, "GRID.ENABLE": False, "CALIBRATION.ENABLE": False, "TEST.ENABLE": False}
    run_net.main(["--cfg", str(config), *overrides(data, tmp_path / "out", **common, **first)])
    run_net.main(["--cfg", str(config), *overrides(data, tmp_path / "out", **common)])
    stats = read_json_stats(tmp_path / "out" / "stdout.log")
    assert [entry["epoch"] for entry in stats if entry.get("_type") == "train_epoch"] == ["1/1", "2/2"]
    assert any(float(entry["gpu_mem"][:-1]) > 0 for entry in stats if entry.get("_type") == "train_epoch")
    table = json.loads((tmp_path / "out" / "query_table.json").read_text())
    keys = set(table["rows"][0]["latency_ms"])
    assert {key.split(".")[0] for key in keys} == {"cpu", "cuda"} and any("-cuda-" in key for key in keys)


# ---- Measuring -------------------------------------------------------------------------------------------------------


def test_calibration_and_accuracy_are_the_cpus(exact):
    results, models = [], []
    for device in (CPU, GPU):
        model = network(device)
        configurations = [model.space.smallest, model.space.largest]
        prepare = functools.partial(prepare_clip, device=device, mean=MEAN, std=STD, memory_format=model.memory_format)
        calibrate(model, batches_from, configurations, prepare=prepare)
        results.append(measure(model.eval(), batches_from, configurations, prepare=prepare))
        models.append(model)
    on_cpu, on_gpu = models
    for configuration, theirs in on_cpu.statistics.items():
        ours = on_gpu.statistics[configuration]
        for name in theirs.mean:
            assert ours.mean[name].device == GPU
            assert torch.allclose(ours.mean[name].cpu(), theirs.mean[name], rtol=1e-3, atol=1e-4), name
            assert torch.allclose(ours.variance[name].cpu(), theirs.variance[name], rtol=1e-3, atol=1e-4), name
    for configuration, metric in results[0].items():
        assert results[1][configuration].num_videos == metric.num_videos


# ---- Runtimes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("runtime", ["torch", "cuda"])
def test_runtimes_on_a_gpu_give_its_eager_scores_and_the_cpus(name, runtime):
    model, width = make_model(name), FRAME.get(name, (0, 48))[1]
    corners = [model.network.space.smallest, model.network.space.largest]
    calls = [(random_call(model, batch, width, seed=batch), configuration) for configuration in corners for batch in (1, 3, 8, 1)]
    on_cpu = [model(*call, configuration=configuration) for call, configuration in calls]
    model.network.place(GPU)
    eager = [model(*call, configuration=configuration) for call, configuration in calls]
    model.run_in(runtime)
    found = [model(*call, configuration=str(configuration)) for call, configuration in calls]
    kept = [scores.clone() for scores in found]
    for scores, active, theirs in zip(found, eager, on_cpu):
        assert scores.device == GPU
        assert (scores - active).abs().max() < 4e-3 and (scores.cpu() - theirs).abs().max() < 4e-3
    again = [model(*call, configuration=configuration) for call, configuration in calls]
    assert all(torch.equal(scores, before) for scores, before in zip(found, kept)), "what was returned is the caller's own"
    assert all(torch.allclose(scores, before, atol=1e-5) for scores, before in zip(again, kept))


def test_streams_of_ones_own_do_not_meet_in_a_recorded_graph():
    model = make_model("x3d")
    model.network.place(GPU)
    model.run_in("cuda")
    clips = [random_call(model, 1, seed=seed)[0].to(GPU) for seed in range(2)]
    expected = [model(clip) for clip in clips]
    torch.cuda.synchronize()
    streams, found = [torch.cuda.Stream() for _ in clips], []
    for number in range(40):
        with torch.cuda.stream(streams[number % 2]):
            found.append(model(clips[number % 2]))
    torch.cuda.synchronize()
    assert all(torch.equal(scores, expected[number % 2]) for number, scores in enumerate(found))


def test_a_model_on_the_cpu_runs_in_cuda_graphs_too():
    model = make_model("slow")
    (clip,) = random_call(model)
    expected = model(clip)
    assert (model.run_in("cuda")(clip) - expected).abs().max() < 4e-3


def saved_with_a_table(tmp_path):
    """The bundle of a small run on the GPU, without latencies."""
    data = write_set(tmp_path / "set", num_videos=8)
    config = tmp_path / "tiny.yaml"
    config.write_text("RNG_SEED: 3\n")
    words = {"NUM_GPUS": 1, "SOLVER.MAX_EPOCH": 1, "TEST.ENABLE": False, "GRID.LATENCY_DEVICES": []}
    run_net.main(["--cfg", str(config), *overrides(data, tmp_path / "out", **words)])
    return tmp_path / "out" / "adaptive.pyth"


def test_a_budget_is_measured_on_the_gpu_and_bench_writes_its_columns(tmp_path, capsys):
    path = saved_with_a_table(tmp_path)
    model = mutual3d.load(path)
    model.network.place(GPU)
    for runtime in (None, "cuda"):
        model.run_in(runtime)
        row = model.set_budget(latency_ms=1000.0)
        key = f"-{runtime or 'eager'}-"
        assert any(name.startswith("cuda.") and key in name for name in row.latency_ms)
    model.run_in("auto")
    assert model.runtime in mutual3d.deploy.runtimes.RUNTIMES
    words = [str(path), "--device", "cuda", "--runtime", "eager", "torch", "cuda", "--batch", "1", "2", "--repeats", "3"]
    assert bench.main(words) == 0
    printed = capsys.readouterr().out
    keys = set(mutual3d.load(path).table.devices)
    for runtime in ("eager", "torch", "cuda"):
        assert f"-{runtime}-fp32-b2 " in printed and any(f"-{runtime}-fp32-b1" in key for key in keys)


def test_half_precision_runs_on_the_gpu():
    model = make_model("x3d")
    (clip,) = random_call(model)
    expected = model(clip)
    for dtype in (torch.float16, torch.bfloat16):
        half = copy.deepcopy(model)
        half.network.to(GPU, dtype)
        for runtime in (None, "cuda"):
            assert (half.run_in(runtime)(clip).float().cpu() - expected).abs().max() < 0.05
