import sys
from pathlib import Path

import pytest
import torch
from tiny import SPACE, tiny_network
from videos import moving_frames, write_video

import mutual3d
from mutual3d.data.reader import VideoError
from mutual3d.data.loader import Batch
from mutual3d.deploy import AdaptiveModel, Preprocessing, predict_video
from mutual3d.evaluation import BudgetTooSmall, TopK, calibrate
from mutual3d.evaluation.grid import build_table, count_costs
from mutual3d.sampling import fit_clip, normalize_clip

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation"))
from test_calibration import MEAN, STD, batches_from, prepare  # noqa: E402 isort: skip

PREPROCESSING = Preprocessing(mean=MEAN, std=STD, num_frames=4, sampling_rate=2, target_fps=30, crop=24)


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
    latencies = {"cpu-fp32-b1-t2": {c: 1.0 + i for i, c in enumerate(SPACE.corners())}}
    provenance = {"metric": "top1_acc", "split": "val", "num_views": 1, "crop": 24}
    table = build_table(network, metrics, count_costs(network, SPACE.corners(), 24), latencies, provenance)
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
    assert model.active == row.configuration and row.latency_ms["cpu-fp32-b1-t2"] <= 3.5
    assert row == model.table.select(latency_ms=3.5)
    with pytest.raises(BudgetTooSmall):
        model.set_budget(gflops=1e-9)
    assert model.active == row.configuration


def test_a_configuration_without_statistics_refuses_to_run(path):
    model = mutual3d.load(path)
    with pytest.raises(RuntimeError, match="0.75-16-2 was never calibrated.*run_net.py"):
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


CLIPS = Path(__file__).resolve().parents[2] / "../shared/data/clips"


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the real clips are not there")
def test_every_real_clip_decodes_and_predicts(path):
    model = mutual3d.load(path)
    videos = sorted(video for video in CLIPS.rglob("*") if video.suffix in (".mp4", ".avi", ".mkv"))
    assert len(videos) >= 15
    for video in videos:
        prediction = predict_video(model, video, num_views=2)
        assert prediction.scores.sum() == pytest.approx(1, abs=1e-4), video.name
