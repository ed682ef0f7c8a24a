"""NYUDv2 in its public forms, in little: lists and folders, maps as PNG and .mat files, and the samples made of them."""

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from mutual3d.data.build import build_dataset
from mutual3d.data.datasets.dataset import BadVideo
from mutual3d.data.loader import ClipLoader
from mutual3d.pipeline import load_config
from mutual3d.tasks.segmentation import IGNORED
from mutual3d.tasks.segmentation.dataset import MapDataset
from mutual3d.tasks.segmentation.maps import NYUDV2_40, MappedPicture, find_pictures, read_map

HEIGHT, WIDTH = 24, 32


def numbers(seed=0, height=HEIGHT, width=WIDTH, classes=40, block=4):
    """A map as its file has it, 0 being unlabelled: squares of `block` pixels."""
    blocks = np.random.default_rng(seed).integers(0, classes + 1, (height // block, width // block))
    return np.kron(blocks, np.ones((block, block), int)).astype(np.uint8)


def write_picture(path, raw_HW):
    """Grey that is five times the label of each pixel, so that a picture says what its map must be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.repeat(5 * raw_HW[..., None], 3, axis=2)).save(path)


def write_map(path, raw_HW):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mat":
        scipy.io.savemat(path, {"segmentation": raw_HW})
    else:
        Image.fromarray(raw_HW).save(path)


def write_set(root, names=("0", "1", "2"), ending=".png"):
    for seed, name in enumerate(names):
        write_picture(root / "RGB" / f"{name}.png", numbers(seed))
        write_map(root / "Label" / f"{name}{ending}", numbers(seed))
    return root


def dataset(root, split="train", **arguments):
    return MapDataset(find_pictures(root, split), **{"num_classes": 40, "crop_size": 16, **arguments})


def test_a_list_of_pairs(tmp_path):
    write_set(tmp_path)
    (tmp_path / "train.txt").write_text("RGB/0.png Label/0.png\n\nRGB/2.png\tLabel/2.png\n")
    expected = [MappedPicture(str(tmp_path / "RGB" / f"{n}.png"), str(tmp_path / "Label" / f"{n}.png")) for n in (0, 2)]
    assert find_pictures(tmp_path, "train") == expected


@pytest.mark.parametrize("ending", [".png", ".mat"])
def test_a_list_of_names(tmp_path, ending):
    write_set(tmp_path, ending=ending)
    (tmp_path / "test.txt").write_text("1\n0\n")
    assert [picture.label for picture in find_pictures(tmp_path, "test")] == [str(tmp_path / "Label" / f"{n}{ending}") for n in (1, 0)]
    # The set has two parts: nothing else is there to validate on.
    assert find_pictures(tmp_path, "val") == find_pictures(tmp_path, "test")


def test_folders_without_a_list(tmp_path):
    for split, names in (("train", "ab"), ("test", "c")):
        for name in names:
            write_picture(tmp_path / "images" / split / f"{name}.jpg", numbers())
            write_map(tmp_path / "labels" / split / f"{name}.png", numbers())
    (tmp_path / "images" / "train" / ".hidden").write_text("")
    assert [picture.image[-5:] for picture in find_pictures(tmp_path, "train")] == ["a.jpg", "b.jpg"]
    assert len(find_pictures(tmp_path, "val")) == 1
    (tmp_path / "labels" / "train" / "a.png").unlink()
    with pytest.raises(ValueError, match="there is no map 'train/a' in Label/ or labels/"):
        find_pictures(tmp_path, "train")


def test_a_list_that_was_changed_is_read_again(tmp_path):
    write_set(tmp_path)
    (tmp_path / "train.txt").write_text("0\n")
    cfg = load_config("Demo/NYUDv2", ["DATA.PATH_TO_DATA_DIR", str(tmp_path)])
    assert len(build_dataset(cfg, "train", "train")) == 1
    (tmp_path / "train.txt").write_text("0\n1\n")
    assert len(build_dataset(cfg, "train", "train")) == 2
    (tmp_path / "RGB" / "1.png").rename(tmp_path / "RGB" / "7.png")
    with pytest.raises(ValueError, match="line 2: there is no picture '1'"):
        build_dataset(cfg, "train", "train")


def test_two_files_of_one_name_are_no_choice(tmp_path):
    write_set(tmp_path)
    (tmp_path / "train.txt").write_text("0\n")
    write_map(tmp_path / "Label" / "0.tif", numbers())
    with pytest.raises(ValueError, match="0.png' and '.*0.tif' are two files of one name: remove one of them"):
        find_pictures(tmp_path, "train")


def test_what_a_list_gets_wrong_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no '.*train.txt', and no picture in '.*images/train'.*datasets/NYUDv2.md"):
        find_pictures(tmp_path, "train")
    write_set(tmp_path)
    for text, words in (
        ("RGB/0.png Label/0.png 3\n", "line 1: 'RGB/0.png Label/0.png 3' is no row"),
        ("0\n7\n", "line 2: there is no picture '7' in RGB/ or images/"),
        ("\n", "train.txt' lists no picture"),
    ):
        (tmp_path / "train.txt").write_text(text)
        with pytest.raises(ValueError, match=words):
            find_pictures(tmp_path, "train")


@pytest.mark.parametrize("ending", [".png", ".mat"])
def test_labels_count_from_0_and_0_does_not_count(tmp_path, ending):
    raw = numbers()
    write_map(tmp_path / f"map{ending}", raw)
    found = read_map(tmp_path / f"map{ending}", 40)
    assert found.dtype == np.uint8 and (found[raw == 0] == IGNORED).all()
    assert np.array_equal(found[raw > 0], raw[raw > 0] - 1)


def test_numbers_of_a_palette_and_of_16_bits_are_labels(tmp_path):
    raw = numbers()
    palette = Image.fromarray(raw, "P")
    palette.putpalette([255 - i // 3 for i in range(768)])
    palette.save(tmp_path / "palette.png")
    Image.fromarray(raw.astype(np.uint16)).save(tmp_path / "deep.png")
    for name in ("palette", "deep"):
        assert np.array_equal(read_map(tmp_path / f"{name}.png", 40)[raw > 0], raw[raw > 0] - 1)


def test_a_map_that_is_none_says_why(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "colours.png")
    write_map(tmp_path / "more.png", np.full((4, 4), 41, np.uint8))
    Image.fromarray(np.full((4, 4), 7, np.uint8)).save(tmp_path / "nearly.jpg")
    (tmp_path / "damaged.png").write_bytes(b"PNG")
    (tmp_path / "damaged.mat").write_bytes(b"MAT")
    scipy.io.savemat(tmp_path / "other.mat", {"depths": np.zeros((4, 4))})
    scipy.io.savemat(tmp_path / "floats.mat", {"segmentation": np.full((4, 4), 0.5)})
    for name, words in {
        "nearly.jpg": "a JPEG file, which may keep numbers nearly as they were", "colours.png": "image of colours .RGB.: save the maps as PNG", "more.png": "has the label 41: legal are 1 to 40",
        "damaged.png": "not an image", "damaged.mat": "no .mat file that scipy reads", "other.mat": "no entry 'segmentation' .there are: depths",
        "floats.mat": "a whole number for each pixel", "missing.mat": "no such file", "missing.png": "missing.png",
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=words):
            read_map(tmp_path / name, 40)


def test_evaluation_gives_the_whole_picture_and_the_map_as_it_is(tmp_path):
    write_set(tmp_path)
    (tmp_path / "test.txt").write_text("0\n1\n2\n")
    samples = dataset(tmp_path, "test")
    sample = samples[5, 1]
    assert sample.clips_VCTHW.dtype == torch.uint8 and sample.clips_VCTHW.shape == (1, 3, 1, 16, 21)
    assert sample.label.shape == (HEIGHT, WIDTH) and torch.equal(sample.label, torch.from_numpy(read_map(samples.pictures[1].label, 40)))
    assert torch.equal(sample.clips_VCTHW, samples[0, 1].clips_VCTHW)
    assert samples.groups == [(WIDTH, HEIGHT)] * 3 and dataset(tmp_path, "test", training=True).groups is None


EVERY_CROP = {
    "short side": dict(jitter_scales=[48, 140]), "area": dict(relative_scales=[0.3, 1.0], color_jitter=0.0), "padding": dict(padding=14),
}  # fmt: skip


@pytest.mark.parametrize("kind", EVERY_CROP)
def test_training_cuts_picture_and_map_alike(tmp_path, kind):
    """The picture says what its map must be: but near where two squares meet, grey is five times the label, and black where there is none."""
    for seed in range(3):
        raw = numbers(seed, 96, 128, block=24)
        write_picture(tmp_path / "RGB" / f"{seed}.png", raw)
        write_map(tmp_path / "Label" / f"{seed}.png", raw)
    (tmp_path / "train.txt").write_text("0\n1\n2\n")
    samples = dataset(tmp_path, training=True, crop_size=48, **EVERY_CROP[kind])
    seen, padded = set(), 0
    for epoch in range(12):
        sample = samples[epoch, epoch % 3]
        image, labels = sample.clips_VCTHW[0, 0, 0], sample.label
        assert image.shape == labels.shape == (48, 48) and labels.dtype == torch.uint8
        said = torch.where(labels == IGNORED, 0, labels.int() + 1)
        around = said.unfold(0, 5, 1).unfold(1, 5, 1).flatten(2)
        is_inside = (around == around[..., :1]).all(-1)
        assert is_inside.float().mean() > 0.3
        assert ((image.int() - 5 * said)[2:-2, 2:-2][is_inside].abs() <= 1).all()
        padded += int((labels[0] == IGNORED).all())
        seen.add(tuple(labels.flatten().tolist()))
        again = samples[epoch, epoch % 3]
        assert torch.equal(again.clips_VCTHW, sample.clips_VCTHW) and torch.equal(again.label, labels)
    assert len(seen) == 12 and (padded > 0) == (kind == "padding")


def test_half_of_the_pictures_are_mirrored_with_their_maps(tmp_path):
    write_set(tmp_path, names=("0",))
    (tmp_path / "train.txt").write_text("0\n")
    whole = dataset(tmp_path, training=True, crop_size=HEIGHT, relative_scales=[1.0, 1.0], relative_aspects=[WIDTH / HEIGHT] * 2)
    maps = {tuple(whole[epoch, 0].label.flatten().tolist()) for epoch in range(12)}
    mirrored = {tuple(torch.tensor(each).view(HEIGHT, HEIGHT).flip(1).flatten().tolist()) for each in maps}
    assert len(maps) == 2 and maps == mirrored
    assert len({tuple(dataset(tmp_path, training=True, flip=False, jitter_scales=[HEIGHT, HEIGHT], crop_size=HEIGHT)[0, 0].label.flatten().tolist())}) == 1


def test_a_picture_and_a_map_of_other_sizes_are_one_bad_sample(tmp_path):
    write_set(tmp_path)
    (tmp_path / "train.txt").write_text("0\n1\n")
    write_map(tmp_path / "Label" / "1.png", numbers(height=20))
    samples = dataset(tmp_path)
    bad = samples[0, 1]
    assert isinstance(bad, BadVideo) and bad.path.endswith("Label/1.png") and "32 x 20 and its picture 32 x 24" in bad.cause
    (tmp_path / "RGB" / "0.png").write_bytes(b"")
    assert isinstance(samples[0, 0], BadVideo) and dataset(tmp_path).groups == [None, (WIDTH, HEIGHT)]


def test_batches_hold_pictures_of_one_size_and_their_maps(tmp_path):
    write_set(tmp_path)
    for name in "34":
        write_picture(tmp_path / "RGB" / f"{name}.png", numbers(width=40))
        write_map(tmp_path / "Label" / f"{name}.png", numbers(width=40))
    (tmp_path / "test.txt").write_text("0\n1\n3\n4\n2\n")
    batches = list(ClipLoader(dataset(tmp_path, "test"), 4, shuffle=False))
    assert [tuple(batch.labels.shape) for batch in batches] == [(2, 24, 32), (2, 24, 40), (1, 24, 32)]
    assert all(batch.labels.dtype == torch.uint8 for batch in batches)
    (tmp_path / "train.txt").write_text("0\n1\n3\n4\n2\n")
    (batch,) = ClipLoader(dataset(tmp_path, training=True), 5, shuffle=True)
    assert batch.clips_BVCTHW.shape == (5, 1, 3, 1, 16, 16) and batch.labels.shape == (5, 16, 16)


def test_the_fingerprint_changes_with_pictures_maps_and_arguments(tmp_path):
    write_set(tmp_path)
    (tmp_path / "train.txt").write_text("0\n1\n")
    found = {dataset(tmp_path).fingerprint() for _ in range(2)}
    found |= {dataset(tmp_path, **change).fingerprint() for change in ({"num_classes": 41}, {"crop_size": 17}, {"seed": 1}, {"training": True})}
    found.add(dataset(tmp_path, training=True, flip=False).fingerprint())
    write_map(tmp_path / "Label" / "1.png", numbers(seed=9, classes=3))
    found.add(dataset(tmp_path).fingerprint())
    (tmp_path / "train.txt").write_text("0\n2\n")
    found.add(dataset(tmp_path).fingerprint())
    assert len(found) == 8


@pytest.mark.parametrize("arguments, words", [({"num_classes": 255}, "maps have 1 to 254 classes"), ({"crop_size": 0}, "crop_size is 0"), ({"seed": -1}, "seed -1")])
def test_arguments_that_mean_nothing_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        MapDataset([], **{"num_classes": 3, "crop_size": 8, **arguments})


def test_the_forty_classes():
    assert len(NYUDV2_40) == len(set(NYUDV2_40)) == 40 and NYUDV2_40[0] == "wall" and NYUDV2_40[-1] == "other prop"


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"MIXUP.ENABLE": True}, "MIXUP.ENABLE is True: with TRAIN.DATASET nyudv2 it must be False"),
        ({"AUG.ENABLE": True}, "AUG.ENABLE is True: with TRAIN.DATASET nyudv2 it must be False"),
        ({"MODEL.LOSS_FUNC": "cross_entropy"}, "with TRAIN.DATASET nyudv2 it must be pixel_cross_entropy"),
        ({"TEST.SAVE_RESULTS_PATH": "scores.pyth"}, "TEST.SAVE_RESULTS_PATH is 'scores.pyth': with TRAIN.DATASET nyudv2"),
    ],
)
def test_settings_that_do_not_go_with_maps_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        load_config("NYUDv2/RS_REFINENET_50", [str(word) for pair in changes.items() for word in pair])
