"""FFN (CVPR 2023): norms and adapters of its own for each number of frames, on every network of clips."""

import pytest
import torch
from networks import IMAGE_NETWORKS, NETWORKS, calibrate_at_random

from mutual3d.cost.flops import count_costs
from mutual3d.layers import AdaptsInput, slimmable_norms
from mutual3d.models import create_model
from mutual3d.models.adaptive.private_norms import nearest_frames
from mutual3d.models.create import load_network
from mutual3d.models.interop import convert_state, export_state, load_checkpoint, read_checkpoint
from mutual3d.pipeline import load_config
from mutual3d.sampling import Configuration
from mutual3d.training.optimizer import parameter_groups

CASES = {name: NETWORKS[name] for name in ("x3d_small", "slow_small", "slowfast_small")}
FRAMES = [2, 4, 8]
FFN = dict(temporal_sizes=FRAMES, batchnorm="private_frames", own_statistics="private", temporal_adapters=True)


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def build(case, **arguments):
    """In evaluation, in float64, with adapters that are not zero and let features grow little."""
    with torch.no_grad():
        model = case.build(**{**FFN, **arguments}).double()
        for parameter in adapters(model).values():
            parameter.mul_(0.1)
    return model


def adapters(model):
    return {name: p for name, p in model.named_parameters() if ".adapter.filters." in name}


def zero_adapters(model):
    with torch.no_grad():
        for parameter in adapters(model).values():
            parameter.zero_()
    return model


def test_activate_equals_extract_folded_or_not_at_every_width_and_number_of_frames(case):
    """Those that training keeps statistics of with their own, others with calibrated ones, unseen ones with the nearest's."""
    model, outputs = build(case), []
    model.add_frames(3)
    own, others = ["1-48-8", "1-48-2", "1-48-3"], ["0.5-32-4", "0.5-48-3"]
    calibrate_at_random(model, [Configuration.parse(text) for text in others])
    with torch.no_grad():
        for text in own + others:
            assert model.can_evaluate(text) and model.has_own_statistics(text) == (text in own)
            inputs = case.inputs(Configuration.parse(text), torch.float64)
            output = model.activate(text)(inputs)
            for network in (model.extract(text), model.extract(text, fold_bn=True)):
                torch.testing.assert_close(network(inputs), output, rtol=1e-9, atol=1e-9)
            assert torch.equal(model(inputs, configuration=text), output)
            outputs.append(output)
    assert not any(torch.allclose(outputs[i], outputs[j], atol=1e-9) for i in range(len(outputs)) for j in range(i))


def test_with_adapters_of_zeros_the_largest_is_the_plain_network_bit_for_bit(case):
    torch.manual_seed(0)
    plain = case.create(temporal_sizes=FRAMES).eval()
    torch.manual_seed(0)
    model = zero_adapters(case.create(**FFN).eval())
    largest, inputs = model.space.largest, case.inputs(model.space.largest)
    with torch.no_grad():
        expected = plain(inputs)
        for network in (model.activate(largest), model.extract(largest)):
            assert torch.equal(network(inputs), expected)


def test_training_a_number_of_frames_touches_its_own_norms_and_adapters_alone(case):
    model = build(case).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.activate("1-48-4")(case.inputs(Configuration(1.0, 48, 4), torch.float64)).sum().backward()
    assert adapters(model) and len(adapters(model)) == 3 * sum(isinstance(m, AdaptsInput) for m in model.modules())
    for name, parameter in model.named_parameters():
        if ".adapter.filters." in name or ".norms." in name:
            own = ".filters.1." in name or ".norms.1." in name
            assert (parameter.grad is not None) == own, name
        else:
            assert parameter.grad is not None, name
    moved = {key for key, value in model.state_dict().items() if not torch.equal(before[key], value)}
    assert moved and all(".norms.1." in key for key in moved)


def test_a_narrow_width_has_the_first_channels_of_a_filter_and_after_a_fusion_the_last_ones_too(case):
    model = build(case)
    calibrate_at_random(model, [model.space.smallest])
    plain = model.extract(model.space.smallest)
    for name, block in model.named_modules():
        if isinstance(block, AdaptsInput):
            weight, own = block.adapter.filters[2].weight, plain.get_submodule(name).adapter.weight
            assert torch.equal(own, 1 + block.in_channels.select(weight, block.in_channels.at(0.5), 0))
    if case is CASES["slowfast_small"]:
        assert len(plain.s3.pathway0_res0.adapter.weight) < len(model.s3.pathway0_res0.adapter.filters[2].weight)
        assert len(plain.s3.pathway1_res0.adapter.weight) == len(model.s3.pathway1_res0.adapter.filters[2].weight)


def test_every_block_costs_a_depthwise_convolution_more(case):
    model, plain = build(case), case.create(temporal_sizes=FRAMES)
    c, volumes = model.space.largest, {}
    for name, block in model.named_modules():
        if isinstance(block, AdaptsInput):
            block.adapter.register_forward_hook(lambda module, given, output, name=name: volumes.update({name: output[0].numel()}))
    with torch.no_grad():
        model.activate(c)(case.inputs(c, torch.float64))
    ours, theirs = count_costs(model.float(), [c], 48)[c], count_costs(plain, [c], 48)[c]
    assert ours.gflops - theirs.gflops == pytest.approx(sum(volumes.values()) / 1e9, rel=1e-6) and sum(volumes.values()) > 1e5
    assert ours.parameters - theirs.parameters == sum(p.numel() for p in adapters(model).values()) / 3


def test_adapters_decay_and_are_in_one_group(case):
    model = build(case)
    decay = [(id(p), group["weight_decay"]) for group in parameter_groups(model, weight_decay=1e-4) for p in group["params"]]
    assert sorted(key for key, _ in decay) == sorted(id(p) for p in model.parameters())
    own = {id(p) for p in adapters(model).values()}
    assert {value for key, value in decay if key in own} == {1e-4}
    asked = {id(p) for g in parameter_groups(model, weight_decay=1e-4, no_decay_depthwise=True) if g["name"] == "no_decay" for p in g["params"]}
    assert own <= asked


def test_a_file_builds_the_same_network_again_with_what_was_not_trained(case):
    model = build(case).float()
    model.add_frames(6)
    twin = load_network(model.arguments, model.state_dict(), "a file").eval()
    assert twin.arguments == model.arguments and twin.arguments["unseen_frames"] == [6] and twin.space == model.space
    assert twin.has_private_parameters and not case.build().has_private_parameters
    inputs = case.inputs(Configuration(1.0, 48, 6))
    with torch.no_grad():
        torch.testing.assert_close(twin.activate("1-48-6")(inputs), model.activate("1-48-6")(inputs), rtol=1e-3, atol=1e-3)


# ---- numbers of frames that were not trained ---------------------------------------------------------------------------


def test_an_unseen_number_of_frames_runs_with_the_norms_and_adapters_of_the_nearest():
    model = build(CASES["x3d_small"])
    for frames, nearest in ((1, 2), (3, 4), (5, 4), (6, 8), (7, 8)):
        assert nearest_frames(frames, FRAMES) == nearest
        model.add_frames(frames)
        own, its = (model.extract(f"1-48-{t}").state_dict() for t in (frames, nearest))
        assert all(torch.equal(value, its[key]) for key, value in own.items())
        clip = torch.randn(1, 3, 8, 48, 48, dtype=torch.float64)
        assert model.fit_clip(clip, f"1-48-{frames}")[0].shape[2] == frames
        assert torch.isfinite(model(model.fit_clip(clip, f"1-48-{frames}"), configuration=f"1-48-{frames}")).all()
    assert model.space.temporal_sizes == (1, 2, 3, 4, 5, 6, 7, 8) and model.space.largest == Configuration(1.0, 48, 8)
    for wrong in (6, 8, 9, 0):
        with pytest.raises(ValueError, match=f"{wrong} frames cannot be added: give a number from 1 to 7"):
            model.add_frames(wrong)


@pytest.mark.parametrize("batchnorm", ["calibrated", "private_size"])
def test_other_norms_take_unseen_frames_too_and_sizes_still_lie_between_their_neighbours(batchnorm):
    model = build(CASES["x3d_small"], batchnorm=batchnorm, own_statistics="largest", temporal_adapters=batchnorm == "calibrated")
    model.add_frames(6)
    assert not model.can_evaluate("1-48-6")
    if batchnorm == "private_size":
        model.add_size(40)
        norms, index = model.s1.pathway0_stem.bn.norms, model._private_index
        assert len(norms) == 9 and index(Configuration(1.0, 40, 6)) == index(Configuration(1.0, 40, 8))
        low, high, between = (norms[index(Configuration(1.0, size, 4))[0]].weight for size in (32, 48, 40))
        assert torch.allclose(between, (low + high) / 2)
    calibrate_at_random(model, [Configuration(1.0, 48, 6)])
    inputs = CASES["x3d_small"].inputs(Configuration(1.0, 48, 6), torch.float64)
    torch.testing.assert_close(model.activate("1-48-6")(inputs), model.extract("1-48-6", fold_bn=True)(inputs), rtol=1e-9, atol=1e-9)


def test_quantised_networks_take_adapters_as_they_are_and_unseen_frames():
    case = CASES["x3d_small"]
    torch.manual_seed(0)
    with torch.no_grad():
        model = case.create(**FFN, weight_bits=2, activation_bits=2).double().train()
        for frames in FRAMES:
            model.activate(f"1-48-{frames}")(case.inputs(Configuration(1.0, 48, frames), torch.float64))
        model.eval().add_frames(6)
        for text in ("1-48-8", "1-48-2", "1-48-6"):
            inputs = case.inputs(Configuration.parse(text), torch.float64)
            for network in (model.extract(text), model.extract(text, fold_bn=True)):
                torch.testing.assert_close(network(inputs), model.activate(text)(inputs), rtol=1e-9, atol=1e-9)
    assert model.extract("1-48-6").s2.pathway0_res0.adapter.weight.unique().numel() > 4


def test_means_of_norms_are_told_of_each_number_of_frames():
    assert list(build(CASES["x3d_small"]).private_norm_means()) == ["1-48-8", "1-48-4", "1-48-2"]


# ---- from a plain network ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [{}, {"batchnorm": "calibrated", "own_statistics": "largest"}, {"temporal_adapters": False}], ids=["both", "adapters", "norms"])
def test_a_plain_checkpoint_gives_every_number_of_frames_its_norms_and_names_the_adapters_that_are_new(case, own, tmp_path, caplog):
    plain = case.build(temporal_sizes=FRAMES)
    torch.save({"model_state": plain.state_dict(), "class_names": ["walk", "run"]}, tmp_path / "plain.pyth")
    torch.manual_seed(1)
    model = case.create(**{**FFN, **own}).eval()
    state, report = read_checkpoint(model, tmp_path / "plain.pyth")
    assert report.missing.keys() == {name for name in adapters(model)} and not report.skipped and not report.reshaped
    assert report.class_names == ("walk", "run")
    assert all("adapters" in why and not state[name].any() for name, why in report.missing.items())
    with caplog.at_level("INFO", "mutual3d"):
        load_checkpoint(model, tmp_path / "plain.pyth")
    assert not adapters(model) or "missing (as s2.pathway0_res0.adapter.filters.0.weight)" in caplog.text
    largest, inputs = model.space.largest, case.inputs(model.space.largest)
    with torch.no_grad():
        assert torch.equal(model(inputs), plain.activate(largest)(inputs))
    if not own:
        four = [norm for name, norm in slimmable_norms(model).items() if name.endswith(".norms.1")]
        assert all(torch.equal(norm.running_var, its.running_var) for norm, its in zip(four, slimmable_norms(plain).values(), strict=True))


@pytest.mark.parametrize("form", ["pytorchvideo", "caffe2"])
def test_other_projects_checkpoints_are_plain_ones_too(form):
    case = CASES["x3d_small"]
    with torch.no_grad():
        plain, model = case.build(temporal_sizes=FRAMES), case.create(**FFN).eval()
        exported, _ = export_state(plain.state_dict(), form, "x3d")
        state, report = convert_state(exported, form, model)
        model.load_state_dict(state)
        inputs = case.inputs(model.space.largest)
        torch.testing.assert_close(model(inputs), plain(inputs), rtol=1e-3, atol=1e-3)
    assert adapters(model).keys() <= report.missing.keys()


def test_a_checkpoint_with_norms_of_its_own_is_no_plain_one_and_is_not_written_for_others(tmp_path):
    case = CASES["x3d_small"]
    norms_alone, model = case.build(**{**FFN, "temporal_adapters": False}), case.build(**FFN)
    torch.save({"model_state": norms_alone.state_dict()}, tmp_path / "norms.pyth")
    with pytest.raises(ValueError, match=r"(?s)checkpoint of another network.*missing in the file: s2.pathway0_res0.adapter.filters.0.weight"):
        load_checkpoint(model, tmp_path / "norms.pyth")
    torch.save({"model_state": model.state_dict()}, tmp_path / "own.pyth")
    assert read_checkpoint(model, tmp_path / "own.pyth")[1].is_own
    with pytest.raises(ValueError, match="norms or adapters of one's own .*pytorchvideo has no names for.*mutual3d export"):
        export_state(model.state_dict(), "pytorchvideo", "x3d")


# ---- what is refused ---------------------------------------------------------------------------------------------------


def test_one_number_of_frames_and_networks_of_images_are_refused():
    images = IMAGE_NETWORKS["resnet18_small"]
    for own in ({"batchnorm": "private_frames"}, {"temporal_adapters": True}):
        for build_one in (lambda own=own: images.create(**own), lambda own=own: CASES["x3d_small"].create(temporal_sizes=[8], **own)):
            with pytest.raises(ValueError, match=r"MUTUAL.TEMPORAL_SIZES is \[[18]\]: .*need two or more, of a network that takes clips"):
                build_one()
    with pytest.raises(ValueError, match="temporal_adapters is 'yes': give True or False"):
        CASES["x3d_small"].create(temporal_adapters="yes")
    with pytest.raises(ValueError, match="300 numbers of frames are to have norms of their own.*at most 256 may"):
        create_model("x3d", space={"width_range": [1, 1], "spatial_sizes": [32], "temporal_sizes": [*range(1, 301)]}, num_classes=2, batchnorm="private_frames")


class Blockless(torch.nn.Sequential):
    """No block of it takes adapters."""


def test_a_network_without_blocks_that_take_adapters_is_refused():
    model = build(CASES["x3d_small"], temporal_adapters=False, batchnorm="calibrated", own_statistics="largest")
    for name, _ in [*model.named_children()][1:-1]:
        setattr(model, name, Blockless())
    with pytest.raises(ValueError, match="MUTUAL.TEMPORAL_ADAPTERS is True, and no block of this network takes adapters"):
        model.add_adapters()


@pytest.mark.parametrize("words, message", [
    (["MUTUAL.TEMPORAL_SIZES", "[8]"], r"MUTUAL.TEMPORAL_SIZES is \[8\]: norms and adapters of each number of frames.*need two or more"),
    (["MUTUAL.TEMPORAL_SIZES", "[8]", "MUTUAL.BATCHNORM", "calibrated"], r"MUTUAL.TEMPORAL_SIZES is \[8\]: norms and adapters"),
    (["MUTUAL.LARGEST", "True"], "each_temporal runs the largest already; set MUTUAL.LARGEST False"),
    (["GRID.UNSEEN_FRAMES", "[4]"], r"GRID.UNSEEN_FRAMES \[4\] are among the trained numbers of frames \[2, 4, 8\]"),
    (["GRID.UNSEEN_FRAMES", "[3, 12]"], r"GRID.UNSEEN_FRAMES \[12\] are .*or above them, which no clip has"),
    (["TEST.CONFIGURATIONS", "['1-48-5']"], "TEST.CONFIGURATIONS: 1-48-5: the number of frames 5 is not one of 2, 3, 4, 6, 8"),
])  # fmt: skip
def test_configs_that_do_not_go_together_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        load_config("Demo/FFN_X3D", words)
    load_config("Demo/FFN_X3D", ["TEST.CONFIGURATIONS", "['1-48-6']"])


def test_a_config_of_images_is_refused():
    with pytest.raises(ValueError, match=r"MUTUAL.TEMPORAL_SIZES is \[1\]: norms and adapters of each number of frames"):
        load_config("Methods/MUTUAL", ["MUTUAL.BATCHNORM", "private_frames"])
