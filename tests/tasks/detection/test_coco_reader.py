import contextlib
import io
import json

import numpy as np
import pytest
from coco_set import content, write_coco
from pycocotools.coco import COCO

from mutual3d.tasks.detection.coco import read_instances


def test_images_classes_and_objects_are_those_of_the_file(tmp_path):
    path, folder = write_coco(tmp_path)
    found = read_instances(path, folder, num_classes=2)
    assert found.class_names == ("person", "dog") and found.category_ids == (1, 18)
    assert found.image_paths == [str(folder / name) for name in ("a.jpg", "b.jpg", "c.jpg")]
    assert found.image_ids.tolist() == [7, 3, 9] and found.sizes_N2.tolist() == [[40, 60], [60, 40], [40, 60]]
    assert [list(found.objects_of(image)) for image in range(3)] == [[0, 1], [2, 3], []]
    assert found.classes_M.tolist() == [1, 0, 0, 0] and found.crowds_M.tolist() == [False, False, True, False]
    np.testing.assert_allclose(found.boxes_inside([0, 1], 0), [[10, 5, 30, 20], [40.5, 20.25, 60, 39.75]])
    # Where a file has no area it is the mask's.
    assert found.areas_M[0] == 300 and found.areas_M[1] == found.decoded([1], 0).sum()


def test_masks_are_those_of_pycocotools(tmp_path):
    path, folder = write_coco(tmp_path)
    found = read_instances(path, folder)
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = COCO(str(path))
    for number, annotation in enumerate(content()["annotations"]):
        image = found.image_ids.tolist().index(annotation["image_id"])
        assert np.array_equal(found.decoded([number], image)[0], theirs.annToMask(theirs.anns[annotation["id"]]))
    assert found.decoded([], 2).shape == (0, 40, 60)


def test_every_change_has_another_fingerprint(tmp_path):
    path, folder = write_coco(tmp_path)
    first = read_instances(path, folder).fingerprint()
    assert read_instances(path, folder).fingerprint() == first
    seen = {first}
    for change in (
        lambda made: made["annotations"][0].update(bbox=[10, 5, 20, 14]), lambda made: made["annotations"][0].update(category_id=1),
        lambda made: made["annotations"][0]["segmentation"][0].__setitem__(0, 12), lambda made: made["annotations"].pop(),
        lambda made: made["annotations"][1].update(iscrowd=1), lambda made: made["images"].pop(),
        lambda made: made["categories"][0].update(name="cat"),
    ):  # fmt: skip
        made = content()
        change(made)
        path.write_text(json.dumps(made))
        seen.add(read_instances(path, folder).fingerprint())
    (folder / "a.jpg").write_bytes((folder / "c.jpg").read_bytes() + b" ")
    path.write_text(json.dumps(content()))
    seen.add(read_instances(path, folder).fingerprint())
    assert len(seen) == 9


def test_a_box_that_is_rounded_beyond_the_border_is_cut_off_there(tmp_path, caplog):
    made = content()
    made["annotations"][0].update(bbox=[-3.0, 5, 20, 15])
    path, folder = write_coco(tmp_path, made)
    with caplog.at_level("INFO", "mutual3d"):
        found = read_instances(path, folder)
    assert found.boxes_inside([0], 0).tolist() == [[0, 5, 17, 20]] and "1 boxes reach beyond their images" in caplog.text


def in_annotation(**values):
    return lambda made: made["annotations"][0].update(values)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda made: made.pop("annotations"), "has no list of annotations: give a file in the form of COCO's"),
        (lambda made: made["images"][0].update(file_name="z.jpg"), r"1 of the 3 images that it lists are not in '.*images', such as '.*z.jpg'"),
        (lambda made: made["images"][1].update(id=7), r"image 1 \(id 7\): another image has the same id"),
        (lambda made: made["images"][1].update(height=0), r"image 1 \(id 3\): its height is 0; give whole pixels from 1"),
        (lambda made: made["images"][0].pop("id"), "image 0: it is .*; give it an id"),
        (lambda made: made["images"].clear() or made["annotations"].clear(), "lists no image"),
        (lambda made: made["categories"][0].update(id=1), r"category 1 \(id 1\): the id is that of 'dog' too"),
        (lambda made: made["categories"][0].pop("name"), "category 0 .*give it an id, a whole number, and a name"),
        (in_annotation(image_id=8), r"annotation 0 \(id 0\): its image_id is 8, and no image of the file has that id"),
        (in_annotation(image_id=[7]), r"its image_id is \[7\], and no image"),
        (in_annotation(category_id=2), "its category_id is 2, and no category of the file has that id"),
        (in_annotation(iscrowd=2), "its iscrowd is 2; give 0 or 1"),
        (in_annotation(bbox=[1, 2, 3]), r"its bbox is \[1, 2, 3\]; give x, y, width and height"),
        (in_annotation(bbox=[1, 2, -3, 4]), r"its bbox is \[1, 2, -3, 4\]"),
        (in_annotation(bbox=[70, 5, 20, 15]), r"its bbox \[70, 5, 20, 15\] .* is outside its image, which is 60 x 40 pixels"),
        (in_annotation(area=-1), "its area is -1; give a number of pixels"),
        (in_annotation(segmentation=[[1, 2, 3, 4]]), r"a polygon of its segmentation is \[1, 2, 3, 4\]; give x, y"),
        (in_annotation(segmentation=[[1, 2, 3, 4, 5, "6"]]), "a polygon of its segmentation is"),
        # pycocotools would walk along these edges for minutes, and makes a wrong outline of numbers that overflow.
        (in_annotation(segmentation=[[1e9, 1, 5, 5, 9, 1]]), "a polygon of its segmentation is .* in pixels"),
        (in_annotation(segmentation=[[1e300, 1, 5, 5, 9, 1]]), "a polygon of its segmentation is .* in pixels"),
        (in_annotation(bbox=[10**400, 5, 20, 15]), "give x, y, width and height in pixels"),
        (in_annotation(area=1e20), r"its area is 1e\+20; give a number of pixels"),
        (lambda made: made["images"][2].update(id=10**30), "give it an id, a whole number"),
        (in_annotation(segmentation=[]), r"its segmentation is \[\]; give polygons, or run lengths"),
        (in_annotation(segmentation={"size": [60, 40], "counts": [2400]}), r"has the size \[60, 40\], and its image is \[40, 60\]"),
        (in_annotation(segmentation={"size": [40, 60], "counts": [5, 6]}), "the run lengths of its segmentation are not those of 40 x 60 pixels"),
        (in_annotation(segmentation={"size": [40, 60], "counts": "n0"}), "the counts of its segmentation, 'n0', are no run lengths"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_entry(change, message, tmp_path):
    made = content()
    change(made)
    path, folder = write_coco(tmp_path, made)
    with pytest.raises(ValueError, match=message) as told:
        read_instances(path, folder)
    assert str(path) in str(told.value)


def test_damaged_and_missing_files_are_named(tmp_path):
    path, folder = write_coco(tmp_path)
    with pytest.raises(ValueError, match="has 2 categories and MODEL.NUM_CLASSES is 80: set it to 2"):
        read_instances(path, folder, num_classes=80)
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match="instances_val.json' is not valid JSON"):
        read_instances(path, folder)
    path.write_text("[]")
    with pytest.raises(ValueError, match="has no list of images, annotations, categories"):
        read_instances(path, folder)
    with pytest.raises(FileNotFoundError, match="there is no file '.*instances_train.json': give .*datasets.COCO.md"):
        read_instances(tmp_path / "instances_train.json", folder)
