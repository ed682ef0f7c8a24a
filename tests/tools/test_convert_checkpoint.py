"""The converter's command line: what it writes loads where it should, and what it cannot convert it explains."""

import os
import pickle
import re
import subprocess
import sys

import pytest
import torch
from networks import calibrate_at_random, fill_by_rule
from tiny import ROOT, SPACE, tiny_network

import mutual3d
from mutual3d.cli import convert as tool
from mutual3d.config import load_config
from mutual3d.deploy import AdaptiveModel, Preprocessing
from mutual3d.models import build_model, create_model
from mutual3d.models.interop import convert_state, export_state
from mutual3d.sampling import SearchSpace
from mutual3d.utils.checkpoint import load_weights, read_weights
from mutual3d.utils.files import load_tensors, save_tensors

SIZES = "DATA: {NUM_FRAMES: 4, TRAIN_CROP_SIZE: 32, TEST_CROP_SIZE: 32}\n"
CONFIGS = {
    "slow": "MODEL: {MODEL_NAME: ResNet, ARCH: slow, NUM_CLASSES: 3}\nRESNET: {WIDTH_PER_GROUP: 16}\n" + SIZES,
    "slowfast": "MODEL: {MODEL_NAME: SlowFast, ARCH: slowfast, NUM_CLASSES: 3}\nRESNET: {WIDTH_PER_GROUP: 16}\n"
    "SLOWFAST: {ALPHA: 2, BETA_INV: 4}\n" + SIZES,
    "x3d": "MODEL: {MODEL_NAME: X3D, NUM_CLASSES: 3}\n"
    "X3D: {WIDTH_FACTOR: 1.0, DEPTH_FACTOR: 1.0, DIM_C5: 16}\n" + SIZES,
}
PREPROCESSING = Preprocessing((0.45,) * 3, (0.225,) * 3, num_frames=4, sampling_rate=2, target_fps=30, crop=24)


@pytest.fixture
def config(tmp_path):
    """Write the YAML of a small network; returns its path."""

    def write(name, num_classes=3):
        path = tmp_path / f"{name}_{num_classes}.yaml"
        path.write_text(CONFIGS[name].replace("NUM_CLASSES: 3", f"NUM_CLASSES: {num_classes}"))
        return str(path)

    return write


@pytest.fixture
def convert(tmp_path):
    """Run the tool; returns the path of its output."""

    def run(source, *words, output="converted.pyth"):
        tool.main(["--from", str(source), *words, "--output", str(tmp_path / output)])
        return tmp_path / output

    return run


def network_of(config_path):
    return build_model(load_config(config_path)).eval()


def logits(network):
    with torch.no_grad():
        clip = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(3))
        return network(network.fit_clip(clip))


def write_zoo(path, network, form):
    """A checkpoint as the other project's own files are: Caffe2's a pickle with blobs of the solver."""
    state, _ = export_state(network.state_dict(), form, network.arguments["name"])
    if form == "caffe2":
        blobs = {key: tensor.numpy() for key, tensor in state.items()}
        path.write_bytes(pickle.dumps({"blobs": {**blobs, "pred_w_momentum": blobs["pred_w"], "lr": 0.1}}, 2))
    else:
        save_tensors(path, {"model_state": state})
    return path


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("form", ["pyslowfast", "caffe2", "pytorchvideo"])
def test_a_zoo_checkpoint_becomes_one_that_a_run_loads(tmp_path, config, convert, capsys, name, form):
    source = fill_by_rule(network_of(config(name)))
    path = convert(write_zoo(tmp_path / "zoo.file", source, form), "--format", form, "--cfg", config(name), "--verbose")
    network = network_of(config(name))
    load_weights(network, read_weights(path), path)
    assert torch.allclose(logits(network), logits(source), rtol=1e-4, atol=1e-4 * logits(source).abs().max())
    printed = capsys.readouterr().out
    assert f"zoo.file, {form} -> {name}: " in printed and "s5.pathway0_res2.branch2.c.weight" in printed
    assert ("pred_w_momentum: no weight of this network" in printed) == (form == "caffe2")
    assert load_tensors(path)["model_arguments"] == network.arguments


@pytest.mark.parametrize("form", ["pyslowfast", "caffe2", "pytorchvideo"])
def test_a_format_is_recognised_and_three_lines_say_what_became_of_it(tmp_path, config, convert, capsys, form):
    source = fill_by_rule(network_of(config("slow")))
    path = convert(write_zoo(tmp_path / "zoo.file", source, form), "--cfg", config("slow"))
    back = read_weights(path)
    assert all(torch.equal(back[key], tensor) for key, tensor in source.state_dict().items())
    lines = capsys.readouterr().out.splitlines()
    title = "slow under its own names" if form == "pyslowfast" else f"{form} -> slow"
    assert lines[0] == f"{tmp_path}/zoo.file, {title}" and lines[2] == f"written to '{path}'" and len(lines) == 3
    assert re.match(r"\d+ entries are used; ", lines[1]) and ("2 skipped (as pred_w_momentum)" in lines[1]) == (form == "caffe2")


@pytest.mark.parametrize("words", [("--to", "pytorchvideo"), ("--extract", "1-24-4")])
def test_what_is_written_is_told_in_three_lines(adaptive, convert, capsys, words):
    path = convert(adaptive, *words)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[0].startswith(f"{adaptive}, x3d") and lines[2] == f"written to '{path}'"
    convert(adaptive, *words, "--verbose")
    assert len(capsys.readouterr().out.splitlines()) > 30


@pytest.mark.parametrize("form", ["pyslowfast", "pytorchvideo"])
def test_a_checkpoint_goes_out_under_the_other_names_and_comes_back(tmp_path, config, convert, form):
    source = fill_by_rule(network_of(config("slow")))
    save_tensors(tmp_path / "ours.pyth", {"model_state": source.state_dict(), "model_arguments": source.arguments})
    there = convert(tmp_path / "ours.pyth", "--to", form, output="there.pyth")
    expected, _ = export_state(source.state_dict(), form, "slow")
    assert list(load_tensors(there)) == ["model_state"] and list(read_weights(there)) == list(expected)
    back = read_weights(convert(there, "--format", form, "--cfg", config("slow")))
    assert all(torch.equal(back[key], tensor) for key, tensor in source.state_dict().items())


def test_another_class_count_needs_the_flag_and_says_so(tmp_path, config, convert, capsys):
    zoo = write_zoo(tmp_path / "zoo.pkl", fill_by_rule(network_of(config("slow"))), "caffe2")
    words = "--format", "caffe2", "--cfg", config("slow", num_classes=5)
    with pytest.raises(ValueError, match="zoo.pkl' was made for 3 classes and this network has 5.*--reset-head"):
        convert(zoo, *words)
    assert not (tmp_path / "converted.pyth").exists()
    network = network_of(config("slow", num_classes=5))
    load_weights(network, read_weights(convert(zoo, *words, "--reset-head", "--verbose")), "converted.pyth")
    assert "head.projection.weight: RE-INITIALISED" in capsys.readouterr().out


@pytest.fixture(scope="module")
def adaptive(tmp_path_factory):
    """An adaptive.pyth of a tiny network, calibrated at the corners of its space."""
    torch.manual_seed(0)
    network = calibrate_at_random(fill_by_rule(tiny_network()), SPACE.corners())
    path = tmp_path_factory.mktemp("model") / "adaptive.pyth"
    AdaptiveModel(network, preprocessing=PREPROCESSING, class_names=["right", "down"]).save(path)
    return path


@pytest.mark.parametrize("configuration", ["0.5-16-2", "1-24-4"])
def test_an_extracted_configuration_is_the_adaptive_models(adaptive, convert, configuration):
    path = convert(adaptive, "--extract", configuration)
    content, model = load_tensors(path), mutual3d.load(adaptive)
    spatial, temporal = map(int, configuration.split("-")[1:])
    clip = torch.randn(2, 3, temporal, spatial, spatial)
    with torch.no_grad():
        expected = model.network.activate(configuration)([clip])
        for module in (
            fill_by_rule(model.extract(configuration)),
            create_model(**content["model_arguments"]).subnetwork(configuration).eval(),
        ):
            load_weights(module, read_weights(path), path)
            assert torch.allclose(module([clip.clone()]), expected, atol=1e-5)


def test_an_extracted_checkpoint_describes_itself(adaptive, convert, capsys):
    content = load_tensors(convert(adaptive, "--extract", "0.5-16-2"))
    assert content["configuration"] == "0.5-16-2" and content["class_names"] == ["right", "down"]
    shapes = {name: content["model_state"][f"{name}.weight"].shape[0] for name in content["channels"]}
    assert content["channels"] == shapes and shapes["head.projection"] == 2
    assert shapes["s1.pathway0_stem.conv"] < 12
    parameters = [t for key, t in content["model_state"].items() if not key.endswith(("mean", "var", "tracked"))]
    assert content["parameters"] == sum(tensor.numel() for tensor in parameters)
    largest = load_tensors(convert(adaptive, "--extract", "1-24-4"))
    assert 0 < content["gflops"] < largest["gflops"] / 4 and content["crop"] == 24
    printed = capsys.readouterr().out
    assert f"configuration 0.5-16-2, {content['gflops']:.4g} GFLOPs a view at crop 24" in printed


def test_an_adaptive_model_goes_out_at_full_width_with_its_own_statistics(adaptive, convert):
    exported = read_weights(convert(adaptive, "--to", "pytorchvideo"))
    network = mutual3d.load(adaptive).network
    state, _ = convert_state(exported, "pytorchvideo", network.arguments)
    plain = create_model(**network.arguments).eval()
    plain.load_state_dict(state)
    clip = torch.randn(2, 3, 4, 24, 24)
    with torch.no_grad():
        assert torch.allclose(plain([clip.clone()]), network([clip.clone()]), rtol=1e-4, atol=1e-4)


def test_a_space_without_the_full_width_has_no_full_network(tmp_path, convert):
    network = tiny_network(space=SearchSpace((0.5, 0.9), (24,), (4,)))
    save_tensors(tmp_path / "ours.pyth", {"model_state": network.state_dict(), "model_arguments": network.arguments})
    with pytest.raises(ValueError, match="ours.pyth' is 0.9 wide at most"):
        convert(tmp_path / "ours.pyth", "--to", "pyslowfast")


def test_a_configuration_that_was_not_calibrated_or_is_not_in_the_space(adaptive, convert):
    with pytest.raises(RuntimeError, match="0.7-16-2 was never calibrated"):
        convert(adaptive, "--extract", "0.7-16-2")
    with pytest.raises(ValueError, match="size 20 is not one of 16, 24"):
        convert(adaptive, "--extract", "0.5-20-2")


def test_another_architecture_is_refused_and_nothing_is_written(tmp_path, config, convert):
    zoo = write_zoo(tmp_path / "zoo.pyth", network_of(config("x3d")), "pyslowfast")
    with pytest.raises(ValueError, match="zoo.pyth' is a checkpoint of another architecture"):
        convert(zoo, "--format", "pyslowfast", "--cfg", config("slow"))
    assert not (tmp_path / "converted.pyth").exists()


@pytest.mark.parametrize("content", ["foreign", "static"])
def test_only_a_full_checkpoint_of_this_project_goes_out(tmp_path, adaptive, convert, content):
    path = tmp_path / "zoo.pyth"
    if content == "static":
        path = convert(adaptive, "--extract", "0.5-16-2", output="static.pyth")
    else:
        save_tensors(path, {"model_state": tiny_network().state_dict()})
    with pytest.raises(ValueError, match="pyth' is no full-width checkpoint of this project"):
        convert(path, "--to", "pyslowfast")


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("form, words", [("caffe2", "is not a pickle that"), ("pyslowfast", "is not a checkpoint that")])
def test_a_file_with_code_is_refused_and_not_executed(tmp_path, config, convert, form, words):
    if form == "caffe2":
        (tmp_path / "zoo").write_bytes(pickle.dumps({"blobs": {"conv1_w": Bomb(tmp_path / "sentinel")}}, 2))
    else:
        torch.save({"model_state": {"s1.pathway0_stem.conv.weight": Bomb(tmp_path / "sentinel")}}, tmp_path / "zoo")
    with pytest.raises(ValueError, match=f"zoo' {words} can be opened safely.*never executed"):
        convert(tmp_path / "zoo", "--format", form, "--cfg", config("slow"))
    assert not (tmp_path / "sentinel").exists() and not (tmp_path / "converted.pyth").exists()


def test_a_mistake_ends_in_one_line_without_a_traceback(tmp_path, config):
    (tmp_path / "zoo.pkl").write_bytes(b"no pickle")
    files = ["--from", tmp_path / "zoo.pkl", "--output", tmp_path / "x.pyth", "--cfg", config("slow")]
    command = [sys.executable, ROOT / "tools" / "convert_checkpoint.py", *files, "--format", "caffe2"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "error: '" in done.stderr and "zoo.pkl' is not a pickle that can be opened safely" in done.stderr


@pytest.mark.parametrize("form", ["pyslowfast", "caffe2"])
def test_a_damaged_file_is_named(tmp_path, config, convert, form):
    whole = write_zoo(tmp_path / "zoo.file", network_of(config("x3d")), form)
    whole.write_bytes(whole.read_bytes()[:5000])
    with pytest.raises(ValueError, match="zoo.file' is not a"):
        convert(whole, "--format", form, "--cfg", config("x3d"))


@pytest.mark.parametrize(
    "words, message",
    [
        (["--format", "caffe2"], "--format and --cfg go together"),
        (["--to", "pyslowfast", "--reset-head"], "--reset-head goes with --cfg"),
        (["--to", "caffe2"], "invalid choice"),
        ([], "give --cfg, the network to read the file into, or --to or --extract"),
        (["--to", "pyslowfast", "--extract", "1-24-4"], "not allowed with"),
    ],
)
def test_words_that_do_not_go_together(convert, capsys, words, message):
    with pytest.raises(SystemExit) as stopped:
        convert("zoo.pyth", *words)
    assert stopped.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize("change, words", [
    (lambda c: c.update(model_arguments=[1]), r"model_arguments is \[1\]: it must be the dict of create_model's arguments"),
    (lambda c: c["model_arguments"].pop("name"), "model_arguments lacks name"),
    (lambda c: c["model_arguments"].pop("num_classes"), "missing a required argument: 'num_classes'"),
    (lambda c: c["model_arguments"].update(depth_factor=1e6), "depth_factor is 1000000.0: give a number above 0 and at most 50"),
    (lambda c: c["model_arguments"].update(num_classes=10**10), "num_classes is 10000000000: give a whole number"),
    (lambda c: c["model_state"]["head.projection.bias"].fill_(float("nan")), "cannot be right.*\n.*head.projection.bias"),
    (lambda c: c.update(format=[1], model_arguments={}), "model_arguments lacks name and space"),
])  # fmt: skip
def test_a_checkpoint_that_cannot_be_right_is_named(tmp_path, convert, change, words):
    network = tiny_network()
    content = {"model_state": network.state_dict(), "model_arguments": network.arguments}
    change(content)
    save_tensors(tmp_path / "odd.pyth", content)
    with pytest.raises(ValueError, match=f"odd.pyth'.*{words}"):
        convert(tmp_path / "odd.pyth", "--to", "pyslowfast")


def test_names_of_wrappers_and_numbers_that_are_none_in_another_projects_file(tmp_path, config, convert):
    source = fill_by_rule(network_of(config("slow")))
    state = {f"module._orig_mod.{key}": value for key, value in source.state_dict().items()}
    save_tensors(tmp_path / "zoo.pyth", {"model_state": state})
    words = "--format", "pyslowfast", "--cfg", config("slow")
    back = read_weights(convert(tmp_path / "zoo.pyth", *words))
    assert all(torch.equal(back[key], tensor) for key, tensor in source.state_dict().items())
    state["module._orig_mod.head.projection.bias"][0] = float("inf")
    save_tensors(tmp_path / "zoo.pyth", {"model_state": state})
    with pytest.raises(ValueError, match="zoo.pyth' holds weights that cannot be right.*\n.*head.projection.bias"):
        convert(tmp_path / "zoo.pyth", *words)


def test_the_file_that_is_read_is_never_written(tmp_path, convert):
    network = tiny_network()
    path = tmp_path / "converted.pyth"
    save_tensors(path, {"model_state": network.state_dict(), "model_arguments": network.arguments})
    before = path.read_bytes()
    (tmp_path / "link.pyth").symlink_to(path)
    for source in (path, tmp_path / "link.pyth"):
        with pytest.raises(ValueError, match="converted.pyth', the file that --from reads: choose another name"):
            convert(source, "--to", "pyslowfast")
    assert path.read_bytes() == before
