import copy
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from batches import MEAN, STD, batches_from, prepare
from tiny import NETWORK, SPACE, tiny_network
from videos import moving_frames, write_video

import mutual3d
from mutual3d.cost.axes import CostConditions, measure_costs
from mutual3d.cost.latency_key import LatencyKey
from mutual3d.data.loader import Batch
from mutual3d.data.video.reader import VideoError
from mutual3d.deploy import AdaptiveModel, Preprocessing, predict_video
from mutual3d.evaluation import calibrate
from mutual3d.evaluation.grid import build_table
from mutual3d.metrics.metrics import TopK
from mutual3d.models import create_model
from mutual3d.models.adaptive import OtherThreadError
from mutual3d.sampling import fit_clip, normalize_clip
from mutual3d.table.query_table import BudgetTooSmall
from mutual3d.utils.files import load_tensors, save_tensors

PREPROCESSING = Preprocessing(mean=MEAN, std=STD, num_frames=4, sampling_rate=2, target_fps=30, crop=24)


@pytest.fixture(autouse=True, scope="module")
def small_tensors():
    """One thread of torch's for each of ours: with tensors so small a second would only be waited for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """An adaptive.pyth of a tiny network whose accuracy grows with its cost."""
    torch.manual_seed(0)
    network = tiny_network()
    calibrate(network, batches_from, SPACE.corners(), prepare=prepare)
    metrics = {}
    for i, configuration in enumerate(SPACE.corners()):
        metrics[configuration] = TopK()
        labels = torch.tensor([0, 1] * 10) ^ (torch.arange(20) > 10 + i)
        metrics[configuration].update(torch.eye(2).repeat(10, 1), Batch(None, labels, None, []))
    conditions = CostConditions(24, torch.device("cpu"), MEAN, STD)
    costs = measure_costs(("gflops", "parameters"), network, SPACE.corners(), conditions)
    costs["latency_ms"] = {str(LatencyKey.here(torch.device("cpu"))): {c: 1.0 + i for i, c in enumerate(SPACE.corners())}}
    provenance = {"metric": "top1_acc", "split": "val", "num_views": 1, "crop": 24}
    table = build_table(network, metrics, costs, provenance)
    path = tmp_path_factory.mktemp("model") / "adaptive.pyth"
    AdaptiveModel(network, preprocessing=PREPROCESSING, table=table, class_names=["right", "down"]).save(path)
    return path


def test_the_file_gives_the_same_scores_at_every_configuration(path):
    model = mutual3d.load(path)
    clip = torch.randint(0, 256, (2, 3, 4, 24, 24), dtype=torch.uint8)
    with torch.no_grad():
        for configuration in SPACE.corners():
            scores = model.activate(configuration)(clip)
            fitted = fit_clip(normalize_clip(clip, MEAN, STD), configuration, SPACE)
            for fold_bn in (False, True):
                plain = model.extract(configuration, fold_bn=fold_bn)
                assert torch.allclose(scores, plain([fitted]).softmax(1), atol=1e-5)
            assert torch.allclose(scores, model(normalize_clip(clip, MEAN, STD)), atol=1e-6)


def test_text_chooses_a_configuration_and_a_wrong_one_lists_the_legal_values(path):
    model = mutual3d.load(path)
    assert model.activate("0.5-16-2").active == SPACE.smallest
    for text, message in (
        ("0.4-16-2", r"width 0.4 is outside the range \[0.5, 1\]"),
        ("0.5-20-2", "size 20 is not one of 16, 24"),
        ("0.5-16-3", "number of frames 3 is not one of 2, 4"),
        ("fast", "write width-pixels-frames"),
    ):
        with pytest.raises(ValueError, match=message):
            model.activate(text)
    assert model.active == SPACE.smallest


def test_a_budget_chooses_the_best_row_that_fits(path):
    model = mutual3d.load(path)
    row = model.set_budget(latency_ms=3.5)
    assert model.active == row.configuration and row.latency_ms[str(LatencyKey.here(torch.device("cpu")))] <= 3.5
    assert row == model.table.select(latency_ms=3.5)
    with pytest.raises(BudgetTooSmall):
        model.set_budget(gflops=1e-9)
    assert model.active == row.configuration


def test_a_configuration_without_statistics_refuses_to_run(path):
    model = mutual3d.load(path)
    with pytest.raises(RuntimeError, match="0.75-16-2 was never calibrated.*mutual3d run"):
        model.activate("0.75-16-2")(torch.zeros(1, 3, 4, 24, 24))


def test_other_files_are_refused_by_name(path, tmp_path):
    torch.save({"model_state": {}}, tmp_path / "c.pyth")
    with pytest.raises(ValueError, match="c.pyth' is not a deployable model"):
        mutual3d.load(tmp_path / "c.pyth")
    with pytest.raises(FileNotFoundError, match="nowhere.pyth"):
        mutual3d.load(tmp_path / "nowhere.pyth")
    (tmp_path / "half.pyth").write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match="half.pyth"):
        mutual3d.load(tmp_path / "half.pyth")


def test_predicting_a_video(path, tmp_path):
    model = mutual3d.load(path)
    video = write_video(tmp_path / "a clip.mp4", moving_frames(20))
    one, many = predict_video(model, video), predict_video(model, video, num_views=3)
    assert one.scores.sum() == pytest.approx(1) and many.scores.shape == (2,) and one.network_ms > 0
    assert [name for name, _ in one.top(5, model.class_names)] in (["right", "down"], ["down", "right"])
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(VideoError, match="text.mp4"):
        predict_video(model, tmp_path / "text.mp4")


# ---- calls, threads and processes -------------------------------------------------------------------------------------


def some_clip(batch=2, seed=0):
    return torch.randint(0, 256, (batch, 3, 4, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_a_call_names_its_configuration_and_leaves_what_is_active(path):
    model, clip = mutual3d.load(path), some_clip()
    for c in SPACE.corners():
        expected = mutual3d.load(path).activate(c)(clip)
        for scores in (model(clip, configuration=c), model(clip, configuration=str(c)), model.at(str(c))(clip)):
            assert torch.equal(scores, expected)
    assert model.active == SPACE.largest
    for wrong in ("0.5-20-2", "fast", 7, [1]):
        with pytest.raises(ValueError, match="size 20 is not one of 16, 24|write width-pixels-frames"):
            model(clip, configuration=wrong)
        with pytest.raises(ValueError, match="size 20 is not one of 16, 24|write width-pixels-frames"):
            model.at(wrong)


def test_a_view_has_no_weights_of_its_own(path):
    model = mutual3d.load(path)
    view = model.at("0.5-16-2")
    assert [p.data_ptr() for p in view.parameters()] == [p.data_ptr() for p in model.parameters()]
    expected = view(some_clip())
    with torch.no_grad():
        model.network.head.projection.weight.neg_()
    assert not torch.equal(view(some_clip()), expected)
    model.network.place(torch.device("cpu")).double()
    assert view(some_clip()).dtype == torch.float64


def box_and_image_models():
    torch.manual_seed(0)
    boxes = create_model("x3d", space=SPACE, num_classes=3, detection={"resolution": 3, "aligned": True}, **NETWORK)
    images = create_model(
        "wide_resnet", space={"width_range": [1.0, 1.0], "spatial_sizes": [24]}, num_classes=3, depth=10, widen_factor=1
    )
    still = Preprocessing(mean=MEAN, std=STD, num_frames=1, sampling_rate=1, target_fps=30, crop=24)
    return AdaptiveModel(boxes, preprocessing=PREPROCESSING), AdaptiveModel(images, preprocessing=still)


def test_eight_threads_of_clips_boxes_and_images_give_what_one_gives(path):
    model, (boxes_model, image_model) = mutual3d.load(path), box_and_image_models()
    boxes = torch.tensor([[0, 0.0, 0.0, 0.5, 1.0], [1, 0.5, 0.0, 1.0, 1.0]])
    jobs = []
    for i in range(48):
        c, clip = SPACE.corners()[i % 8], some_clip(seed=i)
        jobs.append(lambda c=c, clip=clip: model(clip, configuration=c))
        jobs.append(lambda c=c, clip=clip: model.at(c)(clip))
        jobs.append(lambda clip=clip: boxes_model(clip, boxes, configuration=SPACE.largest))
        jobs.append(lambda clip=clip: image_model(clip[:, :, 0], configuration="1-24"))
    expected = [job() for job in jobs]
    with ThreadPoolExecutor(8) as pool:
        outputs = list(pool.map(lambda job: job(), jobs))
    assert all(torch.equal(a, b) for a, b in zip(outputs, expected, strict=True))


def test_a_second_thread_may_call_and_not_activate_and_never_sees_a_half_switched_model(path):
    model, clip = mutual3d.load(path), some_clip()
    expected = {c: model.activate(c)(clip) for c in SPACE.corners()}

    def serve(_):
        return [model(clip) for _ in range(20)]

    with ThreadPoolExecutor(2) as pool:
        answers = pool.map(serve, range(2))
        for i in range(400):
            model.activate(SPACE.corners()[i % 8])
        scores = [score for answer in answers for score in answer]
        assert all(any(torch.equal(score, legal) for legal in expected.values()) for score in scores)
        for change in (lambda: model.activate("0.5-16-2"), lambda: model.set_budget(latency_ms=3.5)):
            with pytest.raises(OtherThreadError, match=r"model\(clip, configuration=.*model.at\("):
                pool.submit(change).result()
        model.release()
        assert pool.submit(lambda: model.set_budget(latency_ms=3.5)).result().configuration == model.active


def test_a_model_pickles_and_copies_whole(path):
    model, clip = mutual3d.load(path), some_clip()
    model.activate("0.5-16-2")
    expected, other = model(clip), model(clip, configuration="1-24-4")
    for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert twin.active == model.active and torch.equal(twin(clip), expected)
        assert torch.equal(twin(clip, configuration="1-24-4"), other) and twin.class_names == ["right", "down"]
        assert twin.set_budget(latency_ms=3.5) == model.table.select(latency_ms=3.5)
        with ThreadPoolExecutor(1) as pool:
            # Nobody activated the copy before but this thread, which hands it over.
            twin.release()
            assert pool.submit(lambda: twin.activate("1-24-4").active).result() == SPACE.largest


def test_predictions_compute_no_gradients_and_the_network_does(path):
    model, clip = mutual3d.load(path), some_clip()
    assert torch.is_grad_enabled() and not model(clip).requires_grad and not model.at("0.5-16-2")(clip).requires_grad
    assert model(clip).log().add(torch.ones((), requires_grad=True)).requires_grad
    fitted = model.network.fit_clip(normalize_clip(clip, MEAN, STD), "0.5-16-2")
    model.network(fitted, configuration="0.5-16-2").sum().backward()
    assert model.network.head.projection.weight.grad.abs().sum() > 0
    assert model.train()(clip).requires_grad


# ---- what is taken for a clip and for boxes ---------------------------------------------------------------------------


def test_arrays_and_other_floats_are_taken(path):
    model, clip = mutual3d.load(path), some_clip()
    assert torch.equal(model(clip.numpy()), model(clip)) and torch.equal(model(clip.numpy()[::-1]), model(clip.flip(0)))
    clip = normalize_clip(clip, MEAN, STD)
    for other, tolerance in ((clip.double(), 1e-6), (clip.half(), 1e-2), (clip.bfloat16(), 1e-1), (clip.numpy(), 1e-6)):
        scores = model(other)
        assert scores.dtype == torch.float32 and torch.allclose(scores, model(clip), atol=tolerance)
    assert mutual3d.load(path).half().network.head.projection.weight.dtype == torch.float16


@pytest.mark.parametrize("clip, words", [
    (some_clip().long(), r"the clip is of type int64: give uint8 pixels from 0 to 255 \(clip.to\(torch.uint8\)"),
    (some_clip().long().numpy(), "the clip is of type int64"),
    (some_clip() > 3, "the clip is of type bool"),
    (np.array([["a"]]), "the clip is an array of <U1: give a tensor or a numpy array of uint8 pixels"),
    ([1, 2], "the clip is a list: give a tensor or a numpy array"),
    (None, "the clip is a NoneType"),
    (some_clip()[0], r"the clip is \(3, 4, 24, 24\): give B, 3, 4, 24, 24"),
    (some_clip()[:0], r"the clip is \(0, 3, 4, 24, 24\): give B, 3, 4, 24, 24"),
    (torch.zeros(()), r"the clip is \(\): give B, 3, 4, 24, 24"),
])  # fmt: skip
def test_what_is_no_clip_is_refused_in_a_sentence(path, clip, words):
    with pytest.raises(ValueError, match=words):
        mutual3d.load(path)(clip)


@pytest.mark.parametrize("boxes, words", [
    (None, "this model classifies boxes: give them"),
    (torch.zeros(2, 4), r"the boxes are float32 \(2, 4\): give floats N, 5"),
    (torch.zeros(2, 5, dtype=torch.int64), r"the boxes are int64 \(2, 5\): give floats N, 5"),
    ([[0, 0, 0, 1, 1]], "the boxes is a list: give a tensor or a numpy array of floats N, 5"),
    (torch.tensor([[2, 0, 0, 1, 1.0]]), "a box is of clip 2, and there are clips 0 to 1"),
    (torch.tensor([[-1, 0, 0, 1, 1.0]]), "a box is of clip -1"),
    (torch.tensor([[float("nan"), 0, 0, 1, 1.0]]), "a box is of clip nan"),
    (torch.tensor([[0, 10.0, 10, 24, 24]]), r"the sides of the boxes reach 24: give them normalised, in \[0, 1\] of the image"),
    (torch.tensor([[0, float("nan"), 0, 1, 1]]), "the sides of the boxes reach nan"),
])  # fmt: skip
def test_what_are_no_boxes_is_refused_in_a_sentence(boxes, words):
    model, _ = box_and_image_models()
    with pytest.raises(ValueError, match=words):
        model(some_clip(), boxes)


def test_boxes_for_a_model_of_clips_are_refused_and_arrays_are_boxes(path):
    with pytest.raises(ValueError, match="this model classifies clips: leave the boxes out"):
        mutual3d.load(path)(some_clip(), torch.zeros(1, 5))
    model, boxes = box_and_image_models()[0], torch.tensor([[1, 0.2, 0, 0.7, 1.0]])
    assert torch.equal(model(some_clip(), boxes.numpy()), model(some_clip(), boxes))
    assert model(some_clip(), boxes[:0]).shape == (0, 3)


# ---- files that cannot be right ---------------------------------------------------------------------------------------


def flip(values, key, change):
    """Change the first number of a tensor."""
    values[key] = values[key].clone()
    values[key].flatten()[0] = change


def first_statistics(content):
    return next(iter(content["statistics"].values()))


PAIRS = ()
for _ in range(60):
    PAIRS = (PAIRS, PAIRS)
WEIGHT = "head.projection.weight"
DAMAGES = {
    "nan weight": (lambda c: flip(c["model_state"], WEIGHT, float("nan")), f"holds weights that cannot be right.*\n.*{WEIGHT}"),
    "infinite weight": (lambda c: flip(c["model_state"], "head.lin_5.weight", float("inf")), "cannot be right.*\n.*lin_5.weight .not finite"),
    "missing weight": (lambda c: c["model_state"].pop(WEIGHT), f"another network.*\n.*missing in the file: {WEIGHT}"),
    "extra weight": (lambda c: c["model_state"].update(x=torch.ones(2)), "another network.*\n.*unknown to this network: x"),
    "weight of text": (lambda c: c["model_state"].update({WEIGHT: "text"}), f"entries that are no weights.*\n.*{WEIGHT}"),
    "state a list": (lambda c: c.update(model_state=[1]), "holds no weights: the state dict is a list"),
    "state None": (lambda c: c.update(model_state=None), "holds no weights: the state dict is a NoneType"),
    "arguments a list": (lambda c: c.update(model_arguments=[1]), r"model_arguments is \[1\]: it must be the dict"),
    "arguments lack": (lambda c: c["model_arguments"].pop("num_classes"), "model_arguments .*missing.* 'num_classes'"),
    "deep": (lambda c: c["model_arguments"].update(depth_factor=1e6), "depth_factor is 1000000.0: give a number above 0"),
    "wide": (lambda c: c["model_arguments"].update(num_classes=10**10), "num_classes is 10000000000: give a whole number"),
    "other network": (lambda c: c["model_arguments"].update(dim_c5=64), "is a checkpoint of another network"),
    "nan statistic": (lambda c: flip(first_statistics(c)["mean"], "head.conv_5_bn", float("nan")),
                      "entry statistics: .*mean: norm 'head.conv_5_bn' has values that are not finite"),
    "negative variance": (lambda c: flip(first_statistics(c)["variance"], "head.conv_5_bn", -1.0),
                          "entry statistics: .*variance: norm 'head.conv_5_bn' has values that are not finite and 0 or more"),
    "short statistic": (lambda c: first_statistics(c)["mean"].update({"head.conv_5_bn": torch.ones(3)}),
                        r"entry statistics: .*'head.conv_5_bn' has the shape \(3,\)"),
    "missing norm": (lambda c: first_statistics(c)["mean"].pop("head.conv_5_bn"), "entry statistics: .*'head.conv_5_bn' is missing"),
    "statistics without mean": (lambda c: first_statistics(c).pop("mean"), "entry statistics: .*a dict of 'mean' and 'variance'"),
    "statistics of text": (lambda c: first_statistics(c).update(mean="text"), "entry statistics: .*norms' names to float tensors"),
    "statistics None": (lambda c: c.update(statistics=None), "entry statistics: it is a NoneType"),
    "statistics of no configuration": (lambda c: c["statistics"].update(fast=first_statistics(c)), "entry statistics: 'fast' is not"),
    "std 0": (lambda c: c["preprocessing"].update(std=(0.2, 0, 0.2)), "entry preprocessing: std is .*above 0"),
    "std negative": (lambda c: c["preprocessing"].update(std=(0.2, 0.2, -1)), "entry preprocessing: std is .*above 0"),
    "std short": (lambda c: c["preprocessing"].update(std=(0.2, 0.2)), "entry preprocessing: mean has 3 numbers and std 2"),
    "mean nan": (lambda c: c["preprocessing"].update(mean=(0.2, float("nan"), 0)), "entry preprocessing: mean is .*finite numbers"),
    "mean text": (lambda c: c["preprocessing"].update(mean="abc"), "entry preprocessing: mean is 'abc': give finite numbers"),
    "activation": (lambda c: c["preprocessing"].update(activation="relu"), "activation is 'relu': choose among softmax, sigmoid"),
    "ensemble": (lambda c: c["preprocessing"].update(ensemble="mean"), "ensemble is 'mean': choose among sum, max"),
    "crop": (lambda c: c["preprocessing"].update(crop=10**9), "entry preprocessing: crop is 1000000000: give a whole number"),
    "crop text": (lambda c: c["preprocessing"].update(crop="24"), "entry preprocessing: crop is '24': give a whole number"),
    "fps": (lambda c: c["preprocessing"].update(target_fps=0), "entry preprocessing: target_fps is 0: give frames a second"),
    "frames": (lambda c: c["preprocessing"].update(num_frames=8), "num_frames is 8, and the network takes 4 frames"),
    "preprocessing lacks": (lambda c: c["preprocessing"].pop("crop"), "entry preprocessing: it has .*it must have mean, std"),
    "preprocessing has more": (lambda c: c["preprocessing"].update(hue=1), "entry preprocessing: it has .*hue.*it must have"),
    "preprocessing None": (lambda c: c.update(preprocessing=None), "entry preprocessing: it is a NoneType"),
    "names short": (lambda c: c.update(class_names=["right"]), "entry class_names: class_names has 1 names, .* 2 classes"),
    "names text": (lambda c: c.update(class_names="ab"), "entry class_names: class_names is a str"),
    "names numbers": (lambda c: c.update(class_names=[0, 1]), "entry class_names: .*a list of text"),
    "table text": (lambda c: c.update(query_table="text"), "entry query_table: "),
    "table empty": (lambda c: c.update(query_table={}), "entry query_table: "),
    "table of another space": (lambda c: c["query_table"]["rows"][0].update(configuration="0.5-20-2"), "entry query_table: .*size 20"),
    "pairs of pairs": (lambda c: c.update(class_names=PAIRS), "unfolds to"),
    "more than it holds": (lambda c: c["model_state"].update({WEIGHT: torch.ones(()).expand(10**6, 2048)}), "unfolds to"),
    "format": (lambda c: c.update(format=torch.ones(2)), "is not a deployable model"),
    "extra entry": (lambda c: c.update(colour=1), "has the unknown colour: an adaptive.pyth has format, model_arguments"),
    **{f"no {name}": (lambda c, name=name: c.pop(name), f"lacks {name}: an adaptive.pyth has format")
       for name in ("model_arguments", "model_state", "statistics", "query_table", "preprocessing", "class_names")},
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_a_file_that_cannot_be_right_is_refused_by_name_entry_and_fix(path, tmp_path, name):
    change, words = DAMAGES[name]
    content = load_tensors(path)
    change(content)
    save_tensors(tmp_path / "odd.pyth", content)
    start = time.perf_counter()
    with pytest.raises(ValueError, match=f"odd.pyth'.*{words}"):
        mutual3d.load(tmp_path / "odd.pyth")
    assert time.perf_counter() - start < 10


CLIPS = Path(__file__).resolve().parents[2] / "../shared/data/clips"


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the real clips are not there")
def test_every_real_clip_decodes_and_predicts(path):
    model = mutual3d.load(path)
    videos = sorted(video for video in CLIPS.rglob("*") if video.suffix in (".mp4", ".avi", ".mkv"))
    assert len(videos) >= 15
    for video in videos:
        prediction = predict_video(model, video, num_views=2)
        assert prediction.scores.sum() == pytest.approx(1, abs=1e-4), video.name
