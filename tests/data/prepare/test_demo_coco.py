"""The generated set in COCO's form: what is drawn is what is annotated."""

import numpy as np
import pytest
from PIL import Image

from mutual3d.data.prepare.demo_coco import CATEGORY_IDS, CLASS_NAMES, SHAPES, draw_picture, make_demo_coco
from mutual3d.tasks.detection.coco import read_instances
from mutual3d.utils.files import read_json


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return make_demo_coco(tmp_path_factory.mktemp("coco"), num_train=16, num_val=8, num_workers=1)


@pytest.mark.parametrize("split, count", [("train", 16), ("val", 8)])
def test_files_and_annotations_are_those_of_the_pictures(directory, split, count):
    found = read_instances(directory / "annotations" / f"instances_{split}.json", directory / split, num_classes=len(CLASS_NAMES))
    assert len(found) == count and found.class_names == CLASS_NAMES and found.category_ids == CATEGORY_IDS
    for index in range(count):
        drawn, own = draw_picture(split, index), found.objects_of(index)
        assert drawn.image_HWC.shape[:2] == SHAPES[index % 4] == tuple(found.sizes_N2[index])
        pixels = np.asarray(Image.open(found.image_paths[index])).astype(int)
        assert np.abs(pixels - drawn.image_HWC).mean() < 6
        assert np.array_equal(found.decoded(own, index), np.array(drawn.masks))
        assert found.classes_M[own].tolist() == drawn.classes and found.crowds_M[own].tolist() == drawn.crowds
        for mask, (x1, y1, x2, y2) in zip(drawn.masks, found.boxes_inside(own, index).astype(int)):
            assert mask[y1:y2, x1:x2].sum() == mask.sum() and mask[y1].any() and mask[:, x2 - 1].any()


def test_masks_do_not_overlap_and_pictures_differ():
    pictures = [draw_picture("train", index) for index in range(40)]
    assert all(np.sum(picture.masks, axis=0).max() == 1 for picture in pictures)
    assert len({picture.image_HWC.tobytes() for picture in pictures}) == 40
    assert {label for picture in pictures for label in picture.classes} == set(range(4))
    assert any(any(picture.crowds) for picture in pictures)
    assert not np.array_equal(draw_picture("train", 0, 1).image_HWC, pictures[0].image_HWC)
    assert not np.array_equal(draw_picture("val", 0).image_HWC, pictures[0].image_HWC)


def test_a_folder_is_completed_and_another_ones_is_refused(directory):
    path = directory / "train" / "00003.jpg"
    before, kept = path.read_bytes(), (directory / "train" / "00004.jpg").stat().st_mtime_ns
    path.unlink()
    make_demo_coco(directory, num_train=16, num_val=8, num_workers=2)
    assert path.read_bytes() == before and (directory / "train" / "00004.jpg").stat().st_mtime_ns == kept
    assert len(read_json(directory / "annotations" / "instances_train.json")["images"]) == 16
    with pytest.raises(ValueError, match="demo set in COCO's form"):
        make_demo_coco(directory, num_train=17, num_val=8, num_workers=1)
    with pytest.raises(ValueError, match="num_val=0"):
        make_demo_coco(directory, num_train=16, num_val=0)
