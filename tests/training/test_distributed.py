"""Two gloo processes against one with twice the batch."""

import dataclasses
import functools
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tiny import NETWORK, SPACE, overrides, same, tiny_network
from torch.nn.parallel import DistributedDataParallel

from mutual3d.evaluation import PartialResult, VideoPass, calibrate, measure
from mutual3d.models import build_model, create_model
from mutual3d.pipeline import load_config
from mutual3d.sampling import normalize_clip
from mutual3d.training.build import build_average, build_optimizer, build_step
from mutual3d.training.step import Networks
from mutual3d.utils import distributed

from test_step import MEAN, STD, batch, freeze_norms, gradients, make_step  # isort: skip


def network():
    torch.manual_seed(0)
    model = tiny_network().train()
    model.head.dropout.p = 0.0
    return model


def _exchanging_step(rank, port, path):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    model = freeze_norms(network())
    parallel = DistributedDataParallel(Networks(model), broadcast_buffers=False, bucket_cap_mb=100)
    exchanges = []

    def counting_hook(state, bucket):
        exchanges.append(bucket.index())
        future = dist.all_reduce(bucket.buffer().div_(2), async_op=True).get_future()
        return future.then(lambda done: done.value()[0])

    parallel.register_comm_hook(None, counting_hook)
    clips, labels = batch(8)
    half = slice(4 * rank, 4 * rank + 4)
    make_step(model, network=parallel, accumulation_steps=2)(clips[half], labels[half], step=0)
    torch.save({"gradients": gradients(model), "exchanges": exchanges}, f"{path}/{rank}.pth")
    dist.destroy_process_group()


def run_two(process, path, *arguments):
    """`process(rank, port, path, ...)` in two processes, forked because torch takes seconds to import."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    mp.start_processes(process, args=(port, str(path), *arguments), nprocs=2, start_method="fork")


def test_two_processes_have_the_gradients_of_one_with_twice_the_batch(tmp_path):
    run_two(_exchanging_step, tmp_path)
    model = freeze_norms(network())
    make_step(model)(*batch(8), step=0)
    ranks = [torch.load(tmp_path / f"{rank}.pth") for rank in (0, 1)]
    for name, gradient in gradients(model).items():
        assert torch.equal(ranks[0]["gradients"][name], ranks[1]["gradients"][name]), name
        assert torch.allclose(gradient, ranks[0]["gradients"][name], atol=1e-6), name
    # Three networks in each of two accumulated parts, and every bucket still crosses once.
    assert len(ranks[0]["exchanges"]) == len(set(ranks[0]["exchanges"]))


SYNCHRONISED = {"BN.NORM_TYPE": "sync_batchnorm", "BN.NUM_SYNC_DEVICES": 4, "MODEL.DROPOUT_RATE": 0.0}


def _synchronised(clips, labels):
    """A step of a config whose norms, not frozen, share their statistics: gradients, and the norms' running statistics."""
    cfg = load_config(None, overrides("data", "out", **SYNCHRONISED))
    torch.manual_seed(0)
    model = build_model(cfg).train()
    build_step(cfg, model, torch.device("cpu"))(clips, labels, step=0)
    return model, {"gradients": gradients(model), "buffers": {name: b.clone() for name, b in model.named_buffers()}}


def _calibrated(model, batches):
    """{norm: variance} of the smallest configuration."""
    prepare = lambda clips: normalize_clip(clips, MEAN, STD)  # noqa: E731
    calibrate(model, lambda skip: batches[skip:], [SPACE.smallest], prepare=prepare)
    return model.statistics[SPACE.smallest].variance


def _synchronised_step(rank, port, path):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    clips, labels = batch(8)
    # The processes' shares need not be equal for the statistics; for the mean of their losses they are.
    own = slice(4 * rank, 4 * rank + 4)
    model, result = _synchronised(clips[own], labels[own])
    # Norms exchange nothing in calibration, where one process may have more batches than another.
    every = batches_of(0, 1, 0)
    result["calibrated"] = _calibrated(model, every[:3] if rank == 0 else every[3:])
    assert distributed.neighbours(1) is None
    with pytest.raises(ValueError, match="2 processes do not divide into groups of 3"):
        distributed.neighbours(3)
    torch.save(result, f"{path}/{rank}.pth")
    dist.destroy_process_group()


def test_norms_that_are_synchronised_have_the_statistics_and_gradients_of_one_process(tmp_path):
    run_two(_synchronised_step, tmp_path)
    model, alone = _synchronised(*batch(8))
    alone["calibrated"] = _calibrated(model, batches_of(0, 1, 0))
    assert len(alone["buffers"]) > 30
    for rank in (0, 1):
        result = torch.load(tmp_path / f"{rank}.pth")
        for kind, tolerance in (("gradients", 2e-5), ("buffers", 1e-6), ("calibrated", 1e-5)):
            assert result[kind].keys() == alone[kind].keys()
            for name, value in alone[kind].items():
                torch.testing.assert_close(result[kind][name], value, atol=tolerance, rtol=1e-4, msg=f"{rank} {name}")


class FakeBatch:
    boxes = None

    def __init__(self, clips, labels, start):
        self.clips_BVCTHW, self.labels, self.bad = clips[:, None], labels, []
        self.indices = torch.arange(start, start + len(labels))


def batches_of(rank, world_size, skip):
    generator = torch.Generator().manual_seed(1)
    clips = torch.randint(0, 256, (12, 3, 4, 24, 24), dtype=torch.uint8, generator=generator)
    every = [FakeBatch(clips[i : i + 3], torch.arange(3) % 2, i) for i in range(0, 12, 3)]
    return every[rank::world_size][skip:]


def _evaluate(rank, world_size):
    model, prepare = network(), lambda clips: normalize_clip(clips, MEAN, STD)
    batches = functools.partial(batches_of, rank, world_size)
    calibrate(model, batches, SPACE.corners(), prepare=prepare, videos=VideoPass(partial=PartialResult()))
    metrics = measure(model, batches, SPACE.corners(), prepare=prepare)
    return model.statistics, {c: m.state() for c, m in metrics.items()}


def _evaluating(rank, port, path):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    statistics, metrics = _evaluate(rank, 2)
    plain = {str(c): s.to_dict() for c, s in statistics.items()}
    torch.save({"statistics": plain, "metrics": {str(c): m for c, m in metrics.items()}}, f"{path}/{rank}.pth")
    dist.destroy_process_group()


def test_two_processes_calibrate_and_measure_like_one(tmp_path):
    run_two(_evaluating, tmp_path)
    statistics, metrics = _evaluate(0, 1)
    for rank in (0, 1):
        result = torch.load(tmp_path / f"{rank}.pth")
        for configuration, own in statistics.items():
            theirs = result["statistics"][str(configuration)]
            for name in own.mean:
                assert torch.allclose(own.mean[name], theirs["mean"][name], atol=1e-5), name
                assert torch.allclose(own.variance[name], theirs["variance"][name], rtol=1e-3, atol=1e-5), name
            assert result["metrics"][str(configuration)][0] == metrics[configuration][0] == 12




PRIVATE = {
    "private_width": dict(subnets=["each_width"], objective="labels", largest=False),
    "private_size": dict(subnets=["each_size"], objective="ensemble_distillation", largest=False),
    "private_frames": dict(subnets=["each_temporal"], objective="inplace_distillation", largest=False),
}


def private_network(batchnorm):
    torch.manual_seed(0)
    space = dataclasses.replace(SPACE, listed_widths=(0.5, 1.0))
    model = create_model("x3d", space=space, num_classes=2, batchnorm=batchnorm, temporal_adapters=batchnorm == "private_frames", **NETWORK).train()
    model.head.dropout.p = 0.0
    return freeze_norms(model)


def _private_step(rank, port, path, batchnorm):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    model = private_network(batchnorm)
    parallel = DistributedDataParallel(Networks(model), broadcast_buffers=False, find_unused_parameters=True)
    clips, labels = batch(8)
    half = slice(4 * rank, 4 * rank + 4)
    step = make_step(model, network=parallel, **PRIVATE[batchnorm])
    for number in range(2):
        model.zero_grad()
        step(clips[half], labels[half], step=number)
    own = [parameter.grad for parameter in step.objective.parameters()]
    torch.save({"gradients": gradients(model), "own": own}, f"{path}/{rank}.pth")
    dist.destroy_process_group()


@pytest.mark.parametrize("batchnorm", PRIVATE)
def test_norms_of_ones_own_get_the_gradients_of_one_process_too(tmp_path, batchnorm):
    run_two(_private_step, tmp_path, batchnorm)
    model = private_network(batchnorm)
    step = make_step(model, **PRIVATE[batchnorm])
    for number in range(2):
        model.zero_grad()
        step(*batch(8), step=number)
    expected = gradients(model)
    for rank in (0, 1):
        result = torch.load(tmp_path / f"{rank}.pth")
        assert result["gradients"].keys() == expected.keys()
        for name, gradient in expected.items():
            assert torch.allclose(gradient, result["gradients"][name], atol=1e-6), name
        for parameter, gradient in zip(step.objective.parameters(), result["own"]):
            assert torch.allclose(parameter.grad, gradient, atol=1e-6)


def _train(clips_and_labels):
    """Weights, running statistics and their averages after steps of a config, each with its own clips; the settings are those of a
    process group, where there is one."""
    cfg = load_config(None, overrides("data", "out", **SYNCHRONISED, **{"TRAIN.GRADIENT_COMPRESSION": "bfloat16", "MODEL.EMA": True, "SOLVER.BASE_LR": 0.001}))
    torch.manual_seed(0)
    model = build_model(cfg).train()
    step, average = build_step(cfg, model, torch.device("cpu")), build_average(cfg, model)
    optimizer = build_optimizer(cfg, model)
    for number, (clips, labels) in enumerate(clips_and_labels):
        optimizer.zero_grad(set_to_none=True)
        step(clips, labels, step=number)
        optimizer.step()
        average.update()
    return {"weights": dict(model.state_dict()), "averages": average.weights()}


STEPS = 4


def _training_together(rank, port, path):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    clips, labels = batch(8 * STEPS)
    places = [slice(8 * number + 4 * rank, 8 * number + 4 * rank + 4) for number in range(STEPS)]
    torch.save(_train([(clips[own], labels[own]) for own in places]), f"{path}/{rank}.pth")
    dist.destroy_process_group()


def test_synchronised_norms_and_compressed_gradients_leave_all_processes_with_the_same_weights(tmp_path):
    run_two(_training_together, tmp_path)
    ranks = [torch.load(tmp_path / f"{rank}.pth") for rank in (0, 1)]
    assert same(*ranks)
    # And with those of one process, up to the gradients' 8 bits.
    clips, labels = batch(8 * STEPS)
    alone, start = (_train(list(zip(clips.split(8), labels.split(8)))[:steps]) for steps in (STEPS, 0))
    for kind in ("weights", "averages"):
        names = [name for name, value in alone[kind].items() if value.is_floating_point() and "running" not in name]
        together, own, initial = (torch.cat([found[kind][name].flatten() for name in names]) for found in (ranks[0], alone, start))
        assert 0 < (together - own).norm() < 0.05 * (own - initial).norm(), kind


def _compressed_step(rank, port, path):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    clips, labels = batch(8)
    own = slice(4 * rank, 4 * rank + 4)
    found = {}
    for compression in ("none", "bfloat16"):
        words = {"TRAIN.GRADIENT_COMPRESSION": compression, "MODEL.DROPOUT_RATE": 0.0}
        cfg = load_config(None, overrides("data", "out", **words))
        torch.manual_seed(0)
        model = build_model(cfg).train()
        build_step(cfg, model, torch.device("cpu"))(clips[own], labels[own], step=0)
        found[compression] = gradients(model)
    torch.save(found, f"{path}/{rank}.pth")
    dist.destroy_process_group()


def test_compressed_gradients_are_the_others_rounded_to_bfloat16_and_the_same_everywhere(tmp_path):
    run_two(_compressed_step, tmp_path)
    ranks = [torch.load(tmp_path / f"{rank}.pth") for rank in (0, 1)]
    for name, whole in ranks[0]["none"].items():
        rounded = ranks[0]["bfloat16"][name]
        assert torch.equal(rounded, ranks[1]["bfloat16"][name]) and torch.equal(rounded, rounded.bfloat16().float()), name
        # Each process's share is rounded to 8 bits, and so is the sum.
        assert (whole - rounded).norm() <= 0.02 * whole.norm() + 1e-6, name
    assert any(not torch.equal(whole, ranks[0]["bfloat16"][name]) for name, whole in ranks[0]["none"].items())
