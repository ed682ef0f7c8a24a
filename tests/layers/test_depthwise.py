"""The backward of depthwise 3D convolutions: every way is exact, and is taken only where a gradient is computed."""

import csv
import io

import depthwise as benchmark
import pytest
import torch
import torch.nn.functional as F
from tiny import ROOT

from mutual3d.layers import ScaledChannels, SlimmableConv3d, depthwise
from mutual3d.layers.depthwise import INPUT_WAYS, WEIGHT_WAYS, Given, choose_ways, conv3d, kind_of

# (size, kernel, stride, padding, dilation), each (time, height, width).
SETTINGS = {
    "x3d": ((4, 6, 6), (3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
    "x3d_strided": ((4, 6, 7), (3, 3, 3), (1, 2, 2), (1, 1, 1), (1, 1, 1)),
    "stem": ((6, 3, 4), (5, 1, 1), (1, 1, 1), (2, 0, 0), (1, 1, 1)),
    "time_strided": ((7, 3, 2), (3, 1, 1), (2, 1, 1), (1, 0, 0), (1, 1, 1)),
    "one_frame": ((1, 5, 5), (3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
    "fewer_frames_than_taps": ((2, 3, 3), (5, 3, 3), (1, 1, 1), (2, 1, 1), (1, 1, 1)),
    "one_pixel": ((3, 1, 1), (3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
    "two_pixels": ((3, 2, 2), (3, 3, 3), (1, 2, 2), (1, 1, 1), (1, 1, 1)),
    "frames_alone": ((3, 5, 4), (1, 3, 3), (1, 2, 1), (0, 1, 1), (1, 1, 1)),
    "no_padding": ((5, 6, 7), (3, 2, 4), (1, 1, 1), (0, 0, 0), (1, 1, 1)),
    "padding_beyond_the_kernel": ((3, 4, 4), (2, 1, 2), (1, 2, 1), (2, 3, 2), (1, 1, 1)),
    "stride_beyond_the_kernel": ((7, 8, 7), (1, 2, 2), (3, 3, 3), (0, 0, 1), (1, 1, 1)),
    "dilated": ((5, 7, 8), (3, 3, 2), (1, 1, 1), (2, 2, 1), (2, 2, 3)),
    "dilated_and_strided": ((7, 8, 7), (3, 3, 3), (2, 2, 3), (1, 2, 3), (2, 2, 3)),
    "rows_left_over": ((6, 8, 9), (3, 3, 3), (2, 3, 4), (0, 1, 0), (1, 1, 1)),
}


@pytest.fixture(params=SETTINGS)
def setting(request):
    return SETTINGS[request.param]


def random_tensor(*shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, dtype=dtype, generator=generator).contiguous(memory_format=torch.channels_last_3d)


def make_given(setting, batch=2, channels=3, dtype=torch.float64):
    size, kernel, *settings = setting
    x, weight = random_tensor(batch, channels, *size, dtype=dtype), random_tensor(channels, 1, *kernel, dtype=dtype)
    output = F.conv3d(x, weight, None, *settings, channels)
    return Given(random_tensor(*output.shape, dtype=dtype), x, weight, *settings)


@pytest.fixture
def own_calls(monkeypatch):
    """The ways that backwards took, in the order in which they ran, whatever the processor."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: depthwise.MEASURED_INSTRUCTIONS[0])
    calls = []
    for ways in (INPUT_WAYS, WEIGHT_WAYS):
        for name, way in ways.items():
            monkeypatch.setitem(ways, name, lambda given, way=way, name=name: calls.append(name) or way(given))
    return calls


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("ways", [INPUT_WAYS, WEIGHT_WAYS], ids=["input", "weight"])
def test_every_way_gives_the_gradient(setting, ways, batch):
    given = make_given(setting, batch)
    expected = ways["autograd"](given)
    for name, way in ways.items():
        if name != "plane" or kind_of(*setting[1:]) == "temporal":
            torch.testing.assert_close(way(given), expected, rtol=0, atol=1e-12, msg=lambda text: f"{name}: {text}")


def test_gradcheck(setting, own_calls):
    _, _, *settings = setting
    given = make_given(setting, 1, 2)
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True)
    tensors = given.x.requires_grad_(), given.weight.requires_grad_(), bias
    assert torch.autograd.gradcheck(lambda *tensors: conv3d(*tensors, *settings, groups=2), tensors)
    assert own_calls


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=str)
def test_gradients_are_autograd_s_and_keep_the_format(setting, own_calls, dtype, tolerance):
    _, _, *settings = setting
    given = make_given(setting, 2, 8, dtype)
    tensors = given.x.requires_grad_(), given.weight.requires_grad_(), torch.zeros(8, dtype=dtype, requires_grad=True)
    output = conv3d(*tensors, *settings, groups=8)
    expected = F.conv3d(*tensors, *settings, 8)
    assert torch.equal(output, expected)
    found = torch.autograd.grad(output, tensors, given.grad)
    for mine, theirs in zip(found, torch.autograd.grad(expected, tensors, given.grad)):
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance * theirs.abs().max().item())
    assert found[0].is_contiguous(memory_format=torch.channels_last_3d)
    assert own_calls == list(choose_ways(output.shape[2:], *setting[1:]))


@pytest.mark.parametrize("width", [0.25, 0.63, 1.0])
def test_a_slimmable_layer_at_every_width(own_calls, width):
    channels = ScaledChannels(32)
    layer = SlimmableConv3d(channels, channels, 3, padding=1, groups=32)
    vars(layer).update(layer.settings(width))
    active = channels.at(width)
    x = random_tensor(2, active, 3, 5, 5, dtype=torch.float32).requires_grad_()
    layer(x).square().sum().backward()
    assert own_calls == ["forward", "frames"]
    found = x.grad, layer.weight.grad, layer.bias.grad
    x.grad = layer.weight.grad = layer.bias.grad = None
    F.conv3d(x, *layer.slice(active, active)[:2], 1, 1, 1, active).square().sum().backward()
    for mine, theirs in zip(found, (x.grad, layer.weight.grad, layer.bias.grad)):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_only_the_gradients_that_are_needed(own_calls):
    given = make_given(SETTINGS["x3d"])
    conv3d(given.x.requires_grad_(), given.weight, None, 1, 1, 1, 3).sum().backward()
    assert own_calls == ["forward"] and given.weight.grad is None
    conv3d(given.x.detach(), given.weight.requires_grad_(), None, 1, 1, 1, 3).sum().backward()
    assert own_calls == ["forward", "frames"]


def test_second_derivatives_are_autograd_s(own_calls):
    given = make_given(SETTINGS["x3d_strided"], 1, 2)
    tensors = given.x.requires_grad_(), given.weight.requires_grad_()
    assert torch.autograd.gradgradcheck(lambda *tensors: conv3d(*tensors, None, *SETTINGS["x3d_strided"][2:], groups=2), tensors)


def is_own(output):
    return "DepthwiseConv3d" in type(output.grad_fn).__name__


def test_where_it_is_not_meant_pytorch_s_own_runs(own_calls):
    x, weight = random_tensor(2, 4, 3, 5, 5, dtype=torch.float32), random_tensor(4, 1, 3, 3, 3, dtype=torch.float32).requires_grad_()
    assert is_own(conv3d(x, weight, padding=1, groups=4))
    with torch.no_grad():
        assert conv3d(x, weight, padding=1, groups=4).grad_fn is None
    with torch.inference_mode():
        assert conv3d(x, weight, padding=1, groups=4).grad_fn is None
    with torch.autocast("cpu"):
        output = conv3d(x, weight, padding=1, groups=4)
        assert output.dtype == torch.bfloat16 and not is_own(output)
    assert not is_own(conv3d(x.bfloat16(), weight.bfloat16(), padding=1, groups=4))
    assert not is_own(conv3d(x.contiguous(), weight, padding=1, groups=4))
    assert not is_own(conv3d(x[:0], weight, padding=1, groups=4))
    assert not is_own(conv3d(x, torch.ones(4, 2, 3, 3, 3, requires_grad=True), padding=1, groups=2))
    assert not is_own(conv3d(x, torch.ones(8, 1, 3, 3, 3, requires_grad=True), padding=1, groups=4))
    assert not is_own(conv3d(x, torch.ones(4, 1, 1, 1, 1, requires_grad=True), groups=4))


def test_an_unmeasured_processor_gets_pytorch_s_own(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    x, weight = random_tensor(2, 4, 3, 5, 5), random_tensor(4, 1, 3, 3, 3).requires_grad_()
    assert not is_own(conv3d(x, weight, padding=1, groups=4))


def test_tracing_export_and_compiling_meet_the_plain_convolution():
    layer = SlimmableConv3d(4, 4, 3, padding=1, groups=4)
    x = random_tensor(2, 4, 3, 5, 5, dtype=torch.float32)
    traced = torch.jit.trace(layer, x)
    assert "aten::_convolution" in str(traced.graph) and "PythonOp" not in str(traced.graph)
    exported = torch.export.export(layer, (x,))
    targets = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    assert targets == {"aten.conv3d.default"}
    graphs = []
    compiled = torch.compile(layer, backend=lambda graph, inputs: graphs.append(graph) or graph.forward, fullgraph=True)
    compiled(x).sum().backward()
    assert len(graphs) == 1 and "DepthwiseConv3d" not in graphs[0].code
    assert layer.weight.grad is not None


def test_same_shapes_take_the_same_ways_and_bits():
    given = make_given(SETTINGS["x3d_strided"], 4, 16, torch.float32)
    settings = SETTINGS["x3d_strided"][2:]
    found = []
    for _ in range(2):
        tensors = given.x.clone(memory_format=torch.preserve_format).requires_grad_(), given.weight.clone().requires_grad_()
        found.append(torch.autograd.grad(conv3d(*tensors, None, *settings, groups=16), tensors, given.grad))
    assert all(torch.equal(one, other) for one, other in zip(*found))


def test_no_way_copies_x(own_calls):
    """At stride 1, views of x's own memory are what the convolutions take."""
    given = make_given(SETTINGS["x3d"], 3, 8, torch.float32)
    assert depthwise._as_frames(given.x).data_ptr() == given.x.data_ptr()
    for tap in range(3):
        outputs = given.overlap(0, tap)[1]
        _, frames = depthwise._shifted_frames(given, tap, outputs)
        assert frames.untyped_storage().data_ptr() == given.x.untyped_storage().data_ptr()
        assert frames.is_contiguous(memory_format=torch.channels_last)
    stem = make_given(SETTINGS["stem"], 3, 8, torch.float32)
    assert depthwise._as_plane(stem.x).data_ptr() == stem.x.data_ptr()


# ---- The rules and their measurement ---------------------------------------------------------------------------------------


def test_the_rules_are_those_of_the_measurement():
    rows = list(csv.DictReader((ROOT / "benchmarks" / "results" / "depthwise.csv").open()))
    assert {row["instructions"] for row in rows} == set(depthwise.MEASURED_INSTRUCTIONS)
    measured = {key: rule for key, rule in depthwise.RULES.items() if key[1] != "dilated"}
    assert benchmark.derive_rules(rows) == measured


def test_rules_follow_their_rows():
    text = "gradient,kind,output_pixels,autograd_ms,forward_ms,spread_ms\n" + "".join(
        f"input,strided,{pixels},{ms}\n" for pixels, ms in [(4, "9,2,1"), (16, "9,2,1"), (64, "9,1,3"), (256, "9,1,3"), (1024, "1,4,")]
    )
    rows = list(csv.DictReader(io.StringIO(text)))
    points = [(int(row["output_pixels"]), benchmark.losses(row, INPUT_WAYS)) for row in rows]
    assert benchmark.best_rule(points, list(INPUT_WAYS)) == ((16, "spread"), (256, "forward"), (float("inf"), "autograd"))


def test_a_layer_is_measured_in_every_way_that_fits():
    layers = [benchmark.Layer(2, 4, (3, 4, 4), (3, 3, 3), (1, 2, 2)), benchmark.Layer(2, 4, (4, 3, 3), (5, 1, 1))]
    rows = benchmark.measure_cpu(layers, repeats=1)
    assert [row["gradient"] for row in rows] == ["input", "weight"] * 2
    assert {way for way in ("forward", "spread") if rows[0][f"{way}_ms"]} == {"forward", "spread"}
    assert rows[3]["taken"] == "plane" and rows[3]["plane_ms"]
