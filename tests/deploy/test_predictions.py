import functools

import pytest
import torch
from PIL import Image
from torchvision.models import detection
from videos import moving_frames, write_video

from mutual3d.deploy import AdaptiveModel, Preprocessing, detect, predict_boxes, predict_video
from mutual3d.models import create_model

SIZES = {"width_range": [1.0, 1.0], "spatial_sizes": [24]}
VIDEO = Preprocessing((0.45,) * 3, (0.225,) * 3, num_frames=4, sampling_rate=2, target_fps=30, crop=24, activation="sigmoid")


def box_model():
    torch.manual_seed(0)
    network = create_model(
        "x3d", space={**SIZES, "temporal_sizes": [4]}, num_classes=3, width_factor=1.0, depth_factor=0.5, dim_c5=32,
        detection={"resolution": 3, "aligned": True},
    )  # fmt: skip
    return AdaptiveModel(network, preprocessing=VIDEO)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "wide.mp4"
    write_video(path, moving_frames(30, 32, 48))
    return path


def test_boxes_are_scored_in_the_whole_frame_around_their_second(video):
    model, boxes = box_model(), torch.tensor([[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]])
    scores = predict_boxes(model, video, {0.2: boxes, 0.9: boxes[:1]})
    assert scores[0.2].shape == (2, 3) and scores[0.9].shape == (1, 3)
    assert not torch.allclose(scores[0.2][0], scores[0.2][1]) and not torch.allclose(scores[0.2][:1], scores[0.9])
    with pytest.raises(ValueError, match="wide.mp4' ends at second 1.00: it has no second 5"):
        predict_boxes(model, video, {5: boxes})
    with pytest.raises(ValueError, match="this model classifies boxes: give them"):
        model(torch.zeros(1, 3, 4, 24, 36))


def test_an_image_is_scored_as_the_grid_saw_it(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(moving_frames(1, 40, 60)[0]).save(path)
    torch.manual_seed(0)
    network = create_model("wide_resnet", space=SIZES, num_classes=3, depth=10, widen_factor=1)
    size = Preprocessing((0.45,) * 3, (0.225,) * 3, num_frames=1, sampling_rate=1, target_fps=30, crop=24, resize=28)
    model = AdaptiveModel(network, preprocessing=size)
    scores = predict_video(model, path).scores
    image = Image.open(path).convert("RGB").resize((42, 28), Image.BILINEAR).crop((9, 2, 33, 26))
    expected = model(torch.tensor(list(image.tobytes()), dtype=torch.uint8).view(24, 24, 3).permute(2, 0, 1)[None])
    assert torch.allclose(scores, expected[0], atol=1e-3)


def test_people_are_found_by_torchvisions_detector_and_its_file_is_checked(video, tmp_path, monkeypatch):
    small = functools.partial(detection.fasterrcnn_resnet50_fpn, min_size=64, max_size=96, box_score_thresh=0.0)
    monkeypatch.setattr(detect, "fasterrcnn_resnet50_fpn", small)
    torch.manual_seed(0)
    path = tmp_path / "detector.pth"
    state = small(weights=None, weights_backbone=None).state_dict()
    state["roi_heads.box_predictor.cls_score.bias"][1] = 9.0  # sees people everywhere
    torch.save(state, path)
    found = detect.detect_people(detect.load_detector(path), video, every=0.5, threshold=0.0)
    assert found and all(0 <= second < 1 for second in found)
    for boxes, scores in found.values():
        assert boxes.shape == (len(scores), 4) and (boxes >= 0).all() and (boxes <= 1).all()
    torch.save({"weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="does not hold the weights of torchvision's fasterrcnn_resnet50_fpn"):
        detect.load_detector(path)
    with pytest.raises(FileNotFoundError, match="nothing.pth"):
        detect.load_detector(tmp_path / "nothing.pth")
