"""Weights of other projects give their own outputs here, ours give ours there, and nothing is dropped in silence."""

import functools
import pickle
import re

import numpy as np
import pytest
import torch
import torchvision
from networks import fill_by_rule

from mutual3d.models import create_model
from mutual3d.models.interop import FORMATS, convert_state, export_state, key_map, load_checkpoint, recognise_format

FRAMES, SIZE = 4, 48
SPACE = {"width_range": [1, 1], "spatial_sizes": [SIZE], "temporal_sizes": [FRAMES]}
FULL = {
    "slow": dict(name="slow", num_classes=11),
    "c2d": dict(name="c2d", num_classes=11),
    "i3d": dict(name="i3d", num_classes=11),
    "slowfast": dict(name="slowfast", num_classes=11, alpha=8, fusion_kernel=5),
    "x3d": dict(name="x3d", num_classes=11),
}
SMALL = {
    "slow": dict(name="slow", num_classes=3, width_per_group=16),
    "c2d": dict(name="c2d", num_classes=3, width_per_group=16),
    "i3d": dict(name="i3d", num_classes=3, width_per_group=16),
    "slowfast": dict(name="slowfast", num_classes=3, width_per_group=16, alpha=4, beta_inv=4),
    "x3d": dict(name="x3d", num_classes=3, width_factor=1.0, depth_factor=1.0, dim_c5=16),
}
# What a classifier gives to a detector is tested with that (test_mask_rcnn.py).
PAIRS = [(form, name) for form in FORMATS if form != "classifier" for name in FORMATS[form].rules]
WRITTEN = [(form, name) for form, name in PAIRS if FORMATS[form].exported]


def filled(build, *arguments, **options):
    """The network that `build` makes, in evaluation, with weights that its keys alone decide."""
    with torch.device("meta"):
        network = build(*arguments, **options).eval()
    network.to_empty(device="cpu")
    for buffer in network.buffers():
        buffer.zero_()
    return fill_by_rule(network)


@functools.cache
def full(name):
    return filled(create_model, **FULL[name], space=SPACE)


@functools.cache
def meta(name):
    with torch.device("meta"):
        return create_model(**FULL[name], space=SPACE)


@functools.cache
def small(name):
    """A small network, which tests leave as it is."""
    return filled(create_model, **SMALL[name], space=SPACE)


@functools.cache
def pytorchvideo(name):
    """PyTorchVideo's own network, which returns logits, in evaluation."""
    importorskip = functools.partial(pytest.importorskip, exc_type=ImportError)
    if name == "slow":
        build = importorskip("pytorchvideo.models.resnet").create_resnet
        return filled(build, model_num_class=11, stem_conv_kernel_size=(1, 7, 7), head_pool=torch.nn.AdaptiveAvgPool3d)
    if name in ("c2d", "i3d"):
        build = importorskip("pytorchvideo.models.resnet").create_resnet
        one, three = (1, 1, 1), (3, 1, 1)
        kernels = {"c2d": (one,) * 4, "i3d": (three, [three, one], [three, one], [one, three])}[name]
        stem = (1 if name == "c2d" else 5, 7, 7)
        return filled(
            build, model_num_class=11, stem_conv_kernel_size=stem, stage1_pool=torch.nn.MaxPool3d,
            stage_conv_a_kernel_size=kernels, head_pool=torch.nn.AdaptiveAvgPool3d,
        )  # fmt: skip
    if name == "slowfast":
        build = importorskip("pytorchvideo.models.slowfast").create_slowfast
        fusion = dict(slowfast_fusion_conv_kernel_size=(5, 1, 1), slowfast_fusion_conv_stride=(8, 1, 1))
        return filled(build, model_num_class=11, head_pool=torch.nn.AdaptiveAvgPool3d, **fusion)
    build = importorskip("pytorchvideo.models.x3d").create_x3d
    return filled(build, model_num_class=11, input_clip_length=FRAMES, input_crop_size=SIZE, head_activation=None)


def pathways(name):
    clip = torch.randn(2, 3, FRAMES * 8, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    return full(name).split(clip) if name == "slowfast" else [clip[:, :, :FRAMES]]


def relative_error(network, others, name):
    """Largest difference between the logits here and there, relative to the largest logit."""
    inputs = pathways(name)
    with torch.no_grad():
        ours = network([x.clone() for x in inputs])
        theirs = others([x.clone() for x in inputs] if name == "slowfast" else inputs[0].clone())
    assert theirs.shape == ours.shape == (2, 11) and theirs.std(0).min() > 0
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


# ---- PyTorchVideo's networks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FULL)
def test_pytorchvideos_weights_give_its_logits_here(name):
    others = pytorchvideo(name)
    state, report = convert_state(others.state_dict(), "pytorchvideo", full(name))
    full(name).load_state_dict(state)
    assert relative_error(full(name), others, name) < 1e-4
    assert set(report.used) == set(others.state_dict()) and not report.skipped and not report.reshaped


@pytest.mark.parametrize("name", FULL)
def test_our_weights_give_our_logits_in_pytorchvideo(name):
    own, others = fill_by_rule(full(name)), pytorchvideo(name)  # its weights are from here on ours
    state, report = export_state(own.state_dict(), "pytorchvideo", name)
    others.load_state_dict(state)
    assert relative_error(own, others, name) < 1e-4
    assert {*report.used.values(), *report.skipped} == set(own.state_dict())


def test_the_norm_that_pytorchvideos_x3d_lacks_is_reported_in_both_directions():
    norm = "s2.pathway0_res0.branch1_bn"
    entries = {f"{norm}.{e}" for e in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
    exported, written = export_state(small("x3d").state_dict(), "pytorchvideo", "x3d")
    assert set(written.skipped) == entries
    assert set(written.reshaped) == {"s2.pathway0_res0.branch1.weight", "s2.pathway0_res0.branch2.c_bn.bias"}
    _, read = convert_state(exported, "pytorchvideo", small("x3d"))
    assert set(read.missing) == entries
    assert read.missing[f"{norm}.weight"] == "a norm that the other project lacks, set to change nothing"


# ---- Names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form, name", PAIRS)
def test_every_key_has_one_name_of_the_format(form, name):
    own = meta(name).state_dict()
    names = key_map(own, form, name)
    assert list(names) == list(own)
    named = [there for there in names.values() if there]
    assert len(set(named)) == len(named)
    if form != "pyslowfast":
        assert not [there for there in named if there.startswith(("s1", "s2", "s3", "s4", "s5", "head", "branch"))]
    left_out = {key for key, there in names.items() if there is None}
    expected = {
        "caffe2": {key for key in own if key.endswith("num_batches_tracked")},
        "torchvision": {"head.projection.weight", "head.projection.bias"},
        "pytorchvideo": {key for key in own if name == "x3d" and key.startswith("s2.pathway0_res0.branch1_bn")},
    }
    assert left_out == expected.get(form, set())


@pytest.mark.parametrize(
    "name, pairs",
    [
        ("slow", {
            "s1.pathway0_stem.conv.weight": "conv1_w",
            "s1.pathway0_stem.bn.running_var": "res_conv1_bn_riv",
            "s2.pathway0_res0.branch1.weight": "res2_0_branch1_w",
            "s2.pathway0_res0.branch1_bn.bias": "res2_0_branch1_bn_b",
            "s4.pathway0_res5.branch2.c_bn.weight": "res4_5_branch2c_bn_s",
            "s5.pathway0_res2.branch2.a.weight": "res5_2_branch2a_w",
            "s3.pathway0_res1.branch2.b_bn.running_mean": "res3_1_branch2b_bn_rm",
            "head.projection.weight": "pred_w",
            "head.projection.bias": "pred_b",
        }),
        ("slowfast", {
            "s1.pathway1_stem.conv.weight": "t_conv1_w",
            "s1.pathway1_stem.bn.weight": "t_res_conv1_bn_s",
            "s1_fuse.conv_f2s.weight": "t_pool1_subsample_w",
            "s1_fuse.bn.running_mean": "t_pool1_subsample_bn_rm",
            "s2_fuse.conv_f2s.weight": "t_res2_2_branch2c_bn_subsample_w",
            "s3_fuse.bn.weight": "t_res3_3_branch2c_bn_subsample_bn_s",
            "s4_fuse.bn.bias": "t_res4_5_branch2c_bn_subsample_bn_b",
            "s5.pathway1_res2.branch2.c_bn.running_var": "t_res5_2_branch2c_bn_riv",
            "s3.pathway1_res0.branch1.weight": "t_res3_0_branch1_w",
        }),
        ("x3d", {
            "s1.pathway0_stem.conv_xy.weight": "conv1_xy_w",
            "s1.pathway0_stem.conv.weight": "conv1_w",
            "s2.pathway0_res0.branch2.se.fc1.weight": "res2_0_branch2b_bn_fc1_w",
            "s2.pathway0_res0.branch2.se.fc2.bias": "res2_0_branch2b_bn_fc2_b",
            "s4.pathway0_res10.branch2.b.weight": "res4_10_branch2b_w",
            "head.conv_5.weight": "conv_5_w",
            "head.conv_5_bn.running_var": "conv_5_bn_riv",
            "head.lin_5.weight": "lin_5_w",
        }),
    ],
)  # fmt: skip
def test_caffe2s_names(name, pairs):
    names = key_map(meta(name).state_dict(), "caffe2", name)
    assert {key: names[key] for key in pairs} == pairs


def test_a_fusion_is_named_after_the_last_block_of_any_depth():
    with torch.device("meta"):
        own = create_model(**{**FULL["slowfast"], "depth": 101}, space=SPACE).state_dict()
    assert key_map(own, "caffe2", "slowfast")["s4_fuse.conv_f2s.weight"] == "t_res4_22_branch2c_bn_subsample_w"


@pytest.mark.parametrize("form, name", WRITTEN)
def test_there_and_back_again_is_the_identity(form, name):
    own = small(name).state_dict()
    first, _ = export_state(own, form, name)
    back, report = convert_state(first, form, small(name))
    again, _ = export_state(back, form, name)
    assert list(again) == list(first) and all(torch.equal(again[key], first[key]) for key in first)
    if (form, name) != ("pytorchvideo", "x3d"):
        assert list(back) == list(own) and all(torch.equal(back[key], own[key]) for key in own)
        assert not report.reshaped and not report.skipped


# ---- Caffe2's and older files ----------------------------------------------------------------------------------------


def caffe2_blobs(name):
    return {key: tensor.numpy() for key, tensor in export_state(small(name).state_dict(), "caffe2", name)[0].items()}


def test_caffe2s_blobs_beside_the_weights_are_skipped_and_listed():
    blobs = caffe2_blobs("slow")
    extra = {"conv1_w_momentum": blobs["conv1_w"], "lr": np.float32(0.1), "model_iter": np.zeros(1, np.int64)}
    state, report = convert_state({"blobs": {**blobs, **extra}}, "caffe2", small("slow"))
    assert set(report.skipped) == set(extra) and set(report.used) == set(blobs)
    assert all(torch.equal(state[key], own) for key, own in small("slow").state_dict().items())
    assert set(report.missing) == {key for key in state if key.endswith("num_batches_tracked")}


def test_fully_connected_weights_become_1x1x1_convolutions():
    blobs = caffe2_blobs("x3d")
    blobs.update({key: blob.reshape(blob.shape[:2]) for key, blob in blobs.items() if re.search("_fc[12]_w", key)})
    state, report = convert_state(blobs, "caffe2", small("x3d"))
    assert all(torch.equal(state[key], own) for key, own in small("x3d").state_dict().items())
    assert "(36, 8) -> (36, 8, 1, 1, 1)" in report.reshaped["s2.pathway0_res0.branch2.se.fc2.weight"]
    assert all(".se.fc" in key for key in report.reshaped)


def test_older_files_of_pyslowfast():
    """Nested, saved from a distributed wrapper, and with norms of parts of a batch."""
    own = small("slow").state_dict()
    old = {}
    for key, tensor in own.items():
        if "_bn.running" in key:
            old[f"module.{key}".replace("_bn.", "_bn.split_bn.")] = tensor.repeat(2)
            key = key.replace("_bn.", "_bn.bn.")
        old[f"module.{key}"] = tensor
    state, report = convert_state({"epoch": 3, "model_state": old}, "pyslowfast", small("slow"))
    assert all(torch.equal(state[key], tensor) for key, tensor in own.items())
    assert report.skipped and all("split_bn" in name for name in report.skipped)


def test_half_precision_becomes_the_networks():
    half = {key: t.half() if t.is_floating_point() else t for key, t in small("x3d").state_dict().items()}
    state, _ = convert_state(half, "pyslowfast", small("x3d"))
    assert {t.dtype for t in state.values()} == {torch.float32, torch.int64}


# ---- ImageNet --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def imagenet():
    return filled(torchvision.models.resnet50, weights=None)


def test_an_inflated_resnet_sees_in_a_still_clip_what_the_2d_network_sees_in_the_image(imagenet):
    network = full("slow")
    head = network.head.projection.weight.clone()
    state, report = convert_state(imagenet.state_dict(), "torchvision", network)
    network.load_state_dict(state)
    image = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    # res4 and res5 look nine frames back and ahead: the middle one of 19 sees no border in time.
    with torch.no_grad():
        (features,) = functools.reduce(lambda x, stage: stage(x), list(network.children())[:-1], [still(image, 19)])
        expected = torch.nn.Sequential(*list(imagenet.children())[:-2])(image)
    assert (features[:, :, 9] - expected).abs().max() < 1e-4 * expected.abs().max()
    assert (features[:, :, 0] - expected).abs().max() > 1e-2 * expected.abs().max()
    assert torch.equal(network.head.projection.weight, head)
    assert set(report.skipped) == {"fc.weight", "fc.bias"}
    assert set(report.missing) == {"head.projection.weight", "head.projection.bias"}
    assert "RE-INITIALISED" in report.missing["head.projection.weight"]
    assert "(256, 1024, 1, 1) -> (256, 1024, 3, 1, 1), inflated" in report.reshaped["s4.pathway0_res1.branch2.a.weight"]


def still(image, frames):
    return image.unsqueeze(2).expand(-1, -1, frames, -1, -1)


def test_imagenets_weights_belong_to_slow_alone(imagenet):
    with pytest.raises(ValueError, match="the format torchvision has no 'x3d': it has slow"):
        convert_state(imagenet.state_dict(), "torchvision", small("x3d"))
    with pytest.raises(ValueError, match="read and not written"):
        export_state(small("slow").state_dict(), "torchvision", "slow")


def test_a_resnet_of_another_depth_is_another_architecture():
    with torch.device("meta"):
        shallow, deep = torchvision.models.resnet34(), torchvision.models.resnet101()
    for network, message in ((shallow, "shape: layer1.0.conv1.weight"), (deep, "unknown.*layer3.6.conv1.weight")):
        with pytest.raises(ValueError, match=f"(?s)checkpoint of another architecture.*{message}"):
            convert_state(network.state_dict(), "torchvision", meta("slow"))


# ---- The head --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["pyslowfast", "caffe2", "pytorchvideo"])
def test_another_class_count_needs_the_flag(form):
    theirs, _ = export_state(small("slow").state_dict(), form, "slow")
    arguments = {**SMALL["slow"], "num_classes": 5, "space": SPACE}
    message = "'k400' was made for 3 classes and this network has 5: .*NUM_CLASSES.*--reset-head"
    with pytest.raises(ValueError, match=message):
        convert_state(theirs, form, arguments, source="k400")
    network = create_model(**arguments)
    state, report = convert_state(theirs, form, network, reset_head=True)
    assert torch.equal(state["head.projection.weight"], network.head.projection.weight)
    assert torch.equal(state["s5.pathway0_res2.branch2.c.weight"], small("slow").s5.pathway0_res2.branch2.c.weight)
    assert len(report.skipped) == 2 and "RE-INITIALISED" in str(report)


def test_the_flag_resets_a_head_that_fits_too_and_one_that_is_not_there():
    network, theirs = create_model(**SMALL["x3d"], space=SPACE), small("x3d").state_dict()
    headless = {key: tensor for key, tensor in theirs.items() if not key.startswith("head.projection")}
    for source in (theirs, headless):
        state, _ = convert_state(source, "pyslowfast", network, reset_head=True)
        assert torch.equal(state["head.projection.weight"], network.head.projection.weight)
        assert torch.equal(state["head.lin_5.weight"], theirs["head.lin_5.weight"])


# ---- What is refused -------------------------------------------------------------------------------------------------


def error_of(state, form, model):
    with pytest.raises(ValueError) as error:
        convert_state(state, form, model, source="zoo.pyth")
    return str(error.value)


@pytest.mark.parametrize("name, other", [("slow", "slowfast"), ("slowfast", "slow"), ("x3d", "slow"), ("slow", "x3d")])
@pytest.mark.parametrize("form", ["pyslowfast", "caffe2", "pytorchvideo"])
def test_another_architecture_is_refused_with_counts_and_examples(form, name, other):
    message = error_of(export_state(small(other).state_dict(), form, other)[0], form, small(name))
    assert "'zoo.pyth' is a checkpoint of another architecture or format: " in message
    assert f"entries that {name} has in the format {form} fit" in message
    assert "unknown to this network: " in message or "missing in the file: " in message
    assert ", and " in message and "more" in message


def test_half_of_the_keys_is_refused():
    own = small("x3d").state_dict()
    keys = list(own)
    message = error_of({key: own[key] for key in keys[: len(keys) // 2]}, "pyslowfast", small("x3d"))
    assert f"another architecture or format: {len(keys) // 2} of the {len(keys)} entries" in message
    half_renamed = {key if i % 2 else f"x.{key}": own[key] for i, key in enumerate(keys)}
    message = error_of(half_renamed, "pyslowfast", small("x3d"))
    assert "unknown to this network: x.s1.pathway0_stem.conv_xy.weight" in message


def test_blocks_that_this_network_does_not_have_are_not_dropped():
    deeper = create_model(**{**SMALL["x3d"], "depth_factor": 2.0}, space=SPACE).state_dict()
    message = error_of(deeper, "pyslowfast", small("x3d"))
    assert "unknown to this network: s2.pathway0_res1.branch2.a.weight" in message and "missing" not in message


def test_the_right_format_is_named():
    exported, _ = export_state(small("slow").state_dict(), "pytorchvideo", "slow")
    assert "its names are those of the format pytorchvideo" in error_of(exported, "caffe2", small("slow"))
    assert "its names are those of the format caffe2" in error_of(caffe2_blobs("slow"), "pyslowfast", small("slow"))


@pytest.mark.parametrize("state", [{}, None, [], {"epoch": 3}, {"model_state": {}}, {"model_state": {"s1": [1.0]}}])
def test_what_holds_no_weights_is_refused(state):
    assert "'zoo.pyth' holds no weights" in error_of(state, "pyslowfast", small("x3d"))


def test_unknown_formats_and_architectures_list_the_legal_ones():
    state = small("x3d").state_dict()
    with pytest.raises(ValueError, match="no format 'tf': choose among pyslowfast, caffe2, pytorchvideo, torchvision"):
        convert_state(state, "tf", small("x3d"))
    with pytest.raises(ValueError, match="these weights are of x3d, not of slow"):
        export_state(state, "pytorchvideo", "slow")


def test_a_report_lists_every_entry():
    exported, _ = export_state(small("slow").state_dict(), "pytorchvideo", "slow")
    _, report = convert_state(exported, "pytorchvideo", small("slow"), source="hub.pyth")
    lines = str(report).splitlines()
    assert lines[0] == f"hub.pyth, pytorchvideo -> slow: {len(exported)} used, 0 skipped, 0 reshaped, 0 missing"
    assert "  blocks.5.proj.weight: head.projection.weight" in lines
    assert len(lines) == len(exported) + 2


@pytest.mark.parametrize("form, name", WRITTEN)
def test_a_file_is_recognised_by_its_names(form, name, tmp_path, caplog):
    network = small(name)
    theirs = export_state(network.state_dict(), form, name)[0]
    path = tmp_path / "theirs.pyth"
    if form == "caffe2":
        path = tmp_path / "theirs.pkl"
        path.write_bytes(pickle.dumps({"blobs": {key: value.numpy() for key, value in theirs.items()}}, protocol=2))
    else:
        torch.save({"model_state": theirs}, path)
    assert recognise_format(theirs, network) == form
    other = create_model(**SMALL[name], space=SPACE)
    with caplog.at_level("INFO"):
        load_checkpoint(other, path, kind="caffe2" if form == "caffe2" else None)
    key = "s3.pathway0_res0.branch2.a.weight"
    assert torch.equal(other.state_dict()[key], network.state_dict()[key])
    told = [message for message in caplog.messages if "entries are used" in message]
    assert len(told) == (form != "pyslowfast") and all(message.count("\n") == 2 for message in told)
    if form != "caffe2":
        with pytest.raises(ValueError, match="of the kind pytorch, not caffe2"):
            load_checkpoint(other, path, kind="caffe2")


def test_kernels_of_images_are_inflated_where_that_is_asked_for(tmp_path):
    theirs, path = torchvision.models.resnet50(weights=None).state_dict(), tmp_path / "resnet50.pth"
    torch.save(theirs, path)
    network = create_model(**FULL["i3d"], space=SPACE)
    with pytest.raises(ValueError, match="set TRAIN.CHECKPOINT_INFLATE True"):
        load_checkpoint(network, path, inflate=False)
    load_checkpoint(network, path, inflate=True)
    own = network.state_dict()
    for key, name, frames in (
        ("s1.pathway0_stem.conv.weight", "conv1.weight", 5), ("s2.pathway0_res0.branch2.a.weight", "layer1.0.conv1.weight", 3),
        ("s5.pathway0_res2.branch2.b.weight", "layer4.2.conv2.weight", 1),
    ):  # fmt: skip
        assert own[key].shape[2] == frames
        assert all(torch.equal(own[key][:, :, t], theirs[name] / frames) for t in range(frames))
