"""The demo set in NYUDv2's form: what is drawn is what the maps say."""

import os

import numpy as np
import pytest
from PIL import Image
from scripts import load_script
from tiny import ROOT

from mutual3d.data.prepare.demo_coco import CLASS_NAMES, draw_picture
from mutual3d.data.prepare.demo_nyudv2 import MAP_CLASSES, draw_labelled, make_demo_nyudv2

COUNTS = {"num_train": 4, "num_val": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_demo_nyudv2(tmp_path_factory.mktemp("demo") / "data", **COUNTS, num_workers=2)


def bytes_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_maps_say_whose_a_pixel_is_and_leave_borders_and_crowds_out():
    seen = set()
    for index in range(40):
        picture = draw_picture("train", index, seed=3)
        image_HWC, map_HW = draw_labelled("train", index, seed=3)
        assert np.array_equal(image_HWC, picture.image_HWC) and map_HW.dtype == np.uint8
        counted, owners = map_HW > 0, np.zeros(map_HW.shape, int)
        assert 0.5 < counted.mean() < 1
        for number, (mask, label, is_crowd) in enumerate(zip(picture.masks, picture.classes, picture.crowds), start=1):
            owners[mask] = number
            assert set(np.unique(map_HW[mask])) <= ({0} if is_crowd else {0, 2 + label})
            seen |= set(np.unique(map_HW[mask]).tolist())
        assert not counted[picture.unnamed_HW].any()
        ground = (owners == 0) & ~picture.unnamed_HW
        assert set(np.unique(map_HW[ground])) <= {0, 1}
        # Nothing else is left out than crowds, what is hardly seen, and a pixel where owners change.
        changes = np.zeros(map_HW.shape, bool)
        changes[1:] |= owners[1:] != owners[:-1]
        changes[:, 1:] |= owners[:, 1:] != owners[:, :-1]
        in_crowd = np.any([np.zeros(map_HW.shape, bool), *(m for m, c in zip(picture.masks, picture.crowds) if c)], axis=0)
        assert np.array_equal(~counted, changes | in_crowd | picture.unnamed_HW)
    assert seen == {0, *range(2, 2 + len(CLASS_NAMES))}


def test_files_hold_the_drawn_pictures_and_their_maps(folder):
    assert (folder / "classes.txt").read_text().splitlines() == list(MAP_CLASSES)
    rows = (folder / "train.txt").read_text().splitlines()
    assert len(rows) == 4 and rows[0] == "RGB/train_00000.jpg Label/train_00000.png"
    for split, count in (("train", 4), ("val", 2)):
        for index in range(count):
            image_HWC, map_HW = draw_labelled(split, index)
            image, labels = (np.asarray(Image.open(folder / path)) for path in (f"RGB/{split}_{index:05d}.jpg", f"Label/{split}_{index:05d}.png"))
            assert np.array_equal(labels, map_HW) and np.abs(image.astype(int) - image_HWC).mean() < 8


def test_a_picture_depends_on_seed_split_and_index_alone():
    image, labels = draw_labelled("train", 3, seed=5)
    again, same = draw_labelled("train", 3, seed=5)
    assert np.array_equal(image, again) and np.array_equal(labels, same)
    for split, index, seed in (("val", 3, 5), ("train", 4, 5), ("train", 3, 6)):
        assert not np.array_equal(image, draw_labelled(split, index, seed)[0])


def test_a_complete_folder_is_reused_and_a_partial_one_completed(folder, tmp_path):
    made = make_demo_nyudv2(tmp_path / "data", **COUNTS, num_workers=1)
    whole = bytes_of(made)
    assert whole == bytes_of(folder)
    lost, kept = made / "Label/train_00001.png", made / "Label/train_00000.png"
    lost.unlink()
    os.utime(kept, (1, 1))
    make_demo_nyudv2(made, **COUNTS, num_workers=1)
    assert bytes_of(made) == whole and kept.stat().st_mtime == 1
    with pytest.raises(ValueError, match="demo set in NYUDv2's form made with other arguments"):
        make_demo_nyudv2(made, **COUNTS, seed=2)


def test_tool(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "datasets"))
    tool = load_script("datasets/make_demo_nyudv2.py")
    assert tool.main(["--output", str(tmp_path / "data"), "--num-train", "1", "--num-val", "1"]) == 0
    assert "1 train, 1 val pictures, 5 classes" in capsys.readouterr().out
