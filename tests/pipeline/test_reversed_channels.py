"""DATA.REVERSE_INPUT_CHANNEL: a network that sees BGR gives flipped clips the scores that one of RGB gives the clips."""

import json

import pytest
import torch
from networks import calibrate_at_random, fill_by_rule
from tiny import overrides

import mutual3d
from mutual3d.data.build import gives_bgr
from mutual3d.deploy import AdaptiveModel
from mutual3d.deploy.export import export_network
from mutual3d.pipeline import load_config
from mutual3d.pipeline.build import from_config
from mutual3d.pipeline.workspace import Workspace
from mutual3d.sampling import normalize_clip

CPU = torch.device("cpu")
# Of each colour its own, so that normalising before or after turning round is not the same.
NORMALISING = {"DATA.MEAN": [0.4, 0.45, 0.5], "DATA.STD": [0.2, 0.225, 0.25], "MODEL.DROPOUT_RATE": 0.0}


@pytest.fixture
def workspaces(tmp_path):
    """The same network in a run whose network sees BGR, and in one of RGB that is told mean and std the other way round."""
    plans = {}
    for reverse, turn in ((True, 1), (False, -1)):
        values = {name: value[::turn] if isinstance(value, list) else value for name, value in NORMALISING.items()}
        cfg = load_config(None, overrides("data", tmp_path / str(reverse), **values, **{"DATA.REVERSE_INPUT_CHANNEL": reverse}))
        plans[reverse] = from_config(cfg)
    return [Workspace(plans[reverse], CPU) for reverse in (True, False)]


def clips():
    """Reddish ones."""
    noise = torch.randint(0, 256, (4, 3, 4, 24, 24), generator=torch.Generator().manual_seed(0))
    return (noise * torch.tensor([1.0, 0.5, 0.1]).view(3, 1, 1, 1)).to(torch.uint8)


def test_training_and_evaluation(workspaces):
    clip_BCTHW, labels = clips(), torch.tensor([0, 1, 1, 0])
    prepared, losses, gradients = [], [], []
    for run, given in zip(workspaces, (clip_BCTHW, clip_BCTHW.flip(1))):
        prepared.append(run.prepare(given))
        losses.append(run.plan.training.make_step(run.model.train(), CPU)(given, labels, 0).losses)
        gradients.append([parameter.grad for parameter in run.model.parameters()])
    assert torch.equal(*prepared)
    assert losses[0] == losses[1] and all(map(torch.equal, *gradients))
    assert not torch.equal(workspaces[1].prepare(clip_BCTHW), prepared[0])


def test_prediction_and_export(workspaces, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    smallest = workspaces[0].model.space.smallest
    models = []
    for number, run in enumerate(workspaces):
        network = calibrate_at_random(fill_by_rule(run.model).eval(), [smallest])
        path = tmp_path / f"{number}.pyth"
        AdaptiveModel(network, preprocessing=run.preprocessing, class_names=["right", "down"]).save(path)
        models.append(mutual3d.load(path))
    scores = models[0](clips(), configuration=smallest)
    torch.testing.assert_close(scores, models[1](clips().flip(1), configuration=smallest), rtol=0, atol=1e-6)
    assert (scores - models[1](clips(), configuration=smallest)).abs().max() > 5e-4
    # Floats, which are normalised already, are RGB as well.
    cut = models[0].preprocessing
    normalised = normalize_clip(clips(), cut.mean, cut.std)
    torch.testing.assert_close(models[0](normalised, configuration=smallest), scores, rtol=0, atol=1e-6)

    export_network(models[0], smallest, tmp_path / "net.onnx", repeats=1)
    session = runtime.InferenceSession(tmp_path / "net.onnx")
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["reverse_channels"]) is True and json.loads(told["mean"]) == NORMALISING["DATA.MEAN"]
    (found,) = session.run(["scores"], {"clip": clips().numpy()})
    torch.testing.assert_close(torch.from_numpy(found), scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name, is_bgr", [("kinetics", True), ("ptvkinetics", True), ("ssv2", False), ("ptvssv2", False)])
def test_what_pyslowfast_reads_as_bgr_is_not_turned_round(name, is_bgr):
    cfg = load_config(None, ["TRAIN.DATASET", name, "TEST.DATASET", name, "DATA.RANDOM_FLIP", "False", "DATA.REVERSE_INPUT_CHANNEL", "True"])
    assert gives_bgr(cfg) == is_bgr


@pytest.mark.parametrize(
    "keys, kind, inflate",
    [([], None, False), (["TRAIN.CHECKPOINT_TYPE", "caffe2"], "caffe2", False), (["TRAIN.CHECKPOINT_INFLATE", "True"], None, True)],
)
def test_what_a_checkpoint_is_said_to_be_reaches_whoever_loads_it(keys, kind, inflate):
    plan = from_config(load_config(None, ["TRAIN.CHECKPOINT_FILE_PATH", "zoo.pkl", *keys])).training
    assert (plan.weights_kind, plan.inflate) == (kind, inflate)
