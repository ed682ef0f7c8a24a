"""Heat compared with boxes: boxes of a frame in what the network sees of it, and what is counted of images with annotations."""

import explain
import localization
import numpy as np
import pytest
import torch
from PIL import Image
from served import CLASSES, make_model


def test_boxes_move_between_the_frame_and_the_square_in_its_middle():
    boxes = torch.tensor([[10 / 60, 0.0, 30 / 60, 0.5], [0.0, 0.0, 0.1, 1.0], [45 / 60, 0.25, 1.0, 0.75]])
    seen = explain.to_view(boxes, (40, 60), 1.0)
    assert torch.allclose(seen, torch.tensor([[0.0, 0.0, 0.5, 0.5], [35 / 40, 0.25, 1.0, 0.75]]))
    assert explain.from_view(seen[0].tolist(), (40, 60), 1.0) == pytest.approx(boxes[0].tolist())
    half = explain.to_view(boxes[:1], (40, 60), 0.5)
    assert torch.allclose(half, torch.tensor([[0.0, 0.0, 0.5, 0.5]]))
    assert explain.from_view(half[0].tolist(), (40, 60), 0.5) == pytest.approx([20 / 60, 0.25, 30 / 60, 0.5])


def test_images_with_annotations_are_counted_by_size(tmp_path):
    model = make_model("images")
    for number, box in enumerate(([0, 0, 6, 6], [0, 0, 24, 24])):
        (tmp_path / "val").mkdir(exist_ok=True)
        Image.fromarray(np.full((24, 24, 3), 50 * number, np.uint8)).save(tmp_path / "val" / f"{number}.png")
        (tmp_path / f"{number}.xml").write_text(localization.annotation(CLASSES[number], box))
    files = list(explain.images(tmp_path / "val", tmp_path, model.class_names))
    assert [(each.path.name, each.class_name) for each in files] == [("0.png", "jump"), ("1.png", "run")]
    rows = explain.compare(model, files, None, ["last", "layer2"])
    assert [(str(row["configuration"]), row["features"], row["method"]) for row in rows] == [
        ("0.5-32", "last", "cam"), ("1-48", "last", "cam"), ("0.5-32", "layer2", "layer_cam"), ("1-48", "layer2", "layer_cam"),
    ]  # fmt: skip
    assert all((row["frames"], row["small"], row["large"]) == (2, 1, 1) for row in rows)
    assert float(rows[0]["area_of_boxes"]) <= 1 and 0 <= float(rows[1]["localization_all"]) <= 100


def test_shapes_lie_in_their_boxes():
    for name in localization.SHAPES:
        image, (left, top, right, bottom) = localization.draw(name, np.random.default_rng(1))
        assert image.shape == (24, 24, 3) and 0 <= left < right <= 24 and 0 <= top < bottom <= 24
        # The colour of a shape is lighter or darker than any ground.
        down, across = np.nonzero((image.min(2) > 195) | (image.max(2) < 60))
        assert (down >= top - 1).all() and (down < bottom + 1).all() and (across >= left - 1).all() and (across < right + 1).all() and len(down)


def test_boxes_of_videos_are_found_wherever_lists_and_boxes_lie(tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/val.csv").write_text(f"{tmp_path}/videos/a.mp4 1\n../videos/b.mp4 0\n")
    (tmp_path / "boxes.csv").write_text("videos/a.mp4,3,0,0,0.5,1\n" + f"{tmp_path}/videos/b.mp4,0,0.5,0,1,1\n")
    for boxes_name in (tmp_path / "boxes.csv", "../boxes.csv"):
        found = [(each.path.name, each.class_name, each.boxes) for each in explain.listed_videos(tmp_path / "lists", "val.csv", boxes_name)]
        assert found == [("a.mp4", 1, {3: [(0, 0, 0.5, 1)]}), ("b.mp4", 0, {0: [(0.5, 0, 1, 1)]})]
