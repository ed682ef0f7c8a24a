"""Image sets by name, and the samples made of them."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import clip_loader
from PIL import Image
from torchvision import datasets

from mutual3d.data.build import build_dataset, find_class_names
from mutual3d.data.datasets.images import (
    IMAGE_SETS,
    ImageArray,
    ImageDataset,
    RandomShortSide,
    open_images,
    places_of_images,
    training_transform,
    usual_test_resize,
)
from mutual3d.data.datasets.kinetics import BadVideo
from mutual3d.data.sources import ONE_LABEL, SOURCES
from mutual3d.pipeline import load_config

CIFAR = Path(__file__).resolve().parents[3].parent / "shared/data/images/cifar10_10k_2k.npz"
EVERY_KIND = {
    "area": dict(relative_scales=[0.25, 1.0], color_jitter=0.4),
    "padding": dict(padding=4),
    "short side": dict(jitter_scales=[24, 40], inverse_uniform=True),
}


def write_image(path, shade, height=30, width=40):
    """A picture that is nowhere the same: red grows to the right, green downwards; blue is `shade`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.full((height, width, 3), shade, np.uint8)
    picture[..., 0] = np.linspace(0, 255, width).astype(np.uint8)
    picture[..., 1] = np.linspace(0, 255, height).astype(np.uint8)[:, None]
    Image.fromarray(picture).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    for split, count in (("train", 3), ("val", 2)):
        for label, name in enumerate(("ant", "bee")):
            for i in range(count):
                write_image(tmp_path / split / name / f"{i}.png", 100 * label + i)
    return tmp_path


def arrays(count=6, size=32):
    generator = np.random.default_rng(0)
    return ImageArray(generator.integers(0, 256, (count, size, size, 3), np.uint8), range(count), "abcdef"[:count])


def shade(sample):
    return sample.clips_VCTHW[0, 2].float().median().item()


# ---- Sets by name ----------------------------------------------------------------------------------------------------


def test_several_crops_of_an_image_are_drawn_each_for_itself():
    one, three = (ImageDataset(arrays(), crop_size=24, training=True, padding=4, num_training_crops=count) for count in (1, 3))
    clips = three[2, 1].clips_VCTHW
    assert clips.shape == (3, 3, 1, 24, 24) and torch.equal(clips, three[2, 1].clips_VCTHW)
    assert torch.equal(clips[:1], one[2, 1].clips_VCTHW) and not torch.equal(clips[0], clips[1])
    assert one.fingerprint() != three.fingerprint()
    assert ImageDataset(arrays(), crop_size=24, num_training_crops=3)[0, 1].clips_VCTHW.shape[0] == 1
    with pytest.raises(ValueError, match="num_training_crops is 0: give 1 or more"):
        ImageDataset(arrays(), crop_size=24, training=True, num_training_crops=0)


def test_the_config_knows_every_set():
    assert set(IMAGE_SETS) == {name for name, source in SOURCES.items() if source.is_image and source.task is ONE_LABEL}


def test_image_folder(folder):
    images = open_images("image_folder", folder, "val", num_classes=2)
    assert images.classes == ["ant", "bee"] and images.labels == [0, 0, 1, 1]
    assert [np.asarray(image)[0, 0, 2] for image, _ in images] == [0, 1, 100, 101]


def test_a_set_whose_files_were_changed_is_opened_again(tmp_path):
    """A process that lives for long, such as a notebook, sees the images that are there now."""
    for name in ("a/0", "b/1"):
        (tmp_path / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40)).save(tmp_path / "train" / f"{name}.png")
    words = ["TRAIN.DATASET", "image_folder", "TEST.DATASET", "image_folder", "DATA.NUM_FRAMES", "1", "TEST.NUM_ENSEMBLE_VIEWS", "1",
             "TEST.NUM_SPATIAL_CROPS", "1", "MODEL.MODEL_NAME", "MobileNetV2", "MODEL.NUM_CLASSES", "2", "DATA.PATH_TO_DATA_DIR", str(tmp_path)]  # fmt: skip
    cfg = load_config(None, words)
    first = build_dataset(cfg, "train", "train")
    assert len(first) == 2 and build_dataset(cfg, "train", "train").images is first.images
    Image.new("RGB", (40, 40)).save(tmp_path / "train" / "b" / "2.png")
    assert len(build_dataset(cfg, "train", "train")) == 3
    (tmp_path / "train" / "a").rename(tmp_path / "train" / "c")
    assert find_class_names(cfg) == ["b", "c"]


@pytest.mark.parametrize("name", IMAGE_SETS)
def test_places_of_a_set_are_where_it_is_read(name, tmp_path):
    """Also where nothing is there yet, which opening it says."""
    places = places_of_images(name, tmp_path, "train")
    assert (not places) == (name == "digits") and all(place == tmp_path or tmp_path in place.parents for place in places)


def test_image_folder_refuses_what_would_mislabel(folder):
    (folder / "val" / "bee").rename(folder / "val" / "wasp")
    with pytest.raises(ValueError, match="val' and '.*train' have other classes"):
        open_images("image_folder", folder, "val")


def test_image_folder_says_what_is_missing(folder):
    with pytest.raises(FileNotFoundError, match="no '.*test'.*a directory a class.*PATH_TO_DATA_DIR"):
        open_images("image_folder", folder, "test")
    (folder / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty' must hold one directory of images for each class"):
        open_images("image_folder", folder, "empty")
    with pytest.raises(ValueError, match="has 2 classes and MODEL.NUM_CLASSES is 1000"):
        open_images("image_folder", folder, "train", num_classes=1000)


def test_unknown_set_and_split(tmp_path):
    with pytest.raises(ValueError, match="'imagenet': choose among image_folder, cifar10"):
        open_images("imagenet", tmp_path, "train")
    with pytest.raises(ValueError, match="digits has no split 'valid': choose among train, val, test"):
        open_images("digits", "", "valid")


def write_npz(path, **changes):
    parts = {"x_train": np.arange(4 * 12, dtype=np.uint8).reshape(4, 2, 2, 3), "y_train": np.array([0, 1, 2, 1]),
             "x_test": np.full((1, 2, 2, 3), 9, np.uint8), "y_test": np.array([2]), "classes": np.array(["a", "b", "c"])}
    parts = {key: value for key, value in {**parts, **changes}.items() if value is not None}
    np.savez(path, **parts)
    return path


def test_npz(tmp_path):
    path = write_npz(tmp_path / "few.npz")
    train, test = (open_images("cifar10", path, split, num_classes=3) for split in ("train", "val"))
    assert (len(train), len(test), train.labels, train.classes) == (4, 1, [0, 1, 2, 1], ["a", "b", "c"])
    assert np.array_equal(np.asarray(train[1][0]), np.arange(12, 24).reshape(2, 2, 3))
    assert open_images("cifar100", write_npz(tmp_path / "nameless.npz", classes=None), "train").classes == ["0", "1", "2"]


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"y_train": None}, "few.npz' lacks y_train: it has x_train"),
        ({"x_train": np.zeros((4, 2, 2, 3))}, "x_train is float64 of shape .4, 2, 2, 3."),
        ({"y_train": np.arange(3)}, "y_train has shape .3,."),
        ({"y_train": np.array([0, 1, 2, 3])}, "labels from 0 to 3 and 3 classes"),
        ({"x_train": np.zeros((0, 2, 2, 3), np.uint8), "y_train": np.zeros(0, int)}, "no image in its split 'train'"),
    ],
)
def test_npz_that_is_wrong(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        open_images("cifar10", write_npz(tmp_path / "few.npz", **changes), "train")


def test_cifar_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="'cifar-10-batches-py' in '.*': unpack cifar-10-python.tar.gz there"):
        open_images("cifar10", tmp_path, "train")
    with pytest.raises(FileNotFoundError, match="none.npz"):
        open_images("cifar100", tmp_path / "none.npz", "train")


def test_cifar_of_torchvision(tmp_path, monkeypatch):
    """A file of the real form, let through as if its checksum were the real one's."""
    batches = tmp_path / "cifar-100-python"
    batches.mkdir()
    for name, count in (("train", 3), ("test", 1)):
        content = {"data": np.full((count, 3072), 7, np.uint8), "fine_labels": list(range(count))}
        (batches / name).write_bytes(pickle.dumps(content))
    (batches / "meta").write_bytes(pickle.dumps({"fine_label_names": ["apple", "bear", "can"]}))
    monkeypatch.setattr(datasets.cifar, "check_integrity", lambda path, md5: Path(path).is_file())
    images = open_images("cifar100", tmp_path, "train", num_classes=3)
    assert len(images) == 3 and images.classes[2] == "can" and images[2][1] == 2
    assert len(open_images("cifar100", tmp_path, "test")) == 1


def test_food101(tmp_path):
    base = tmp_path / "food-101"
    names = {"waffles": ["waffles/7"], "apple_pie": ["apple_pie/1", "apple_pie/2"]}
    (base / "meta").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="meta/train.json.*food-101.tar.gz"):
        open_images("food101", tmp_path, "train")
    (base / "meta" / "train.json").write_text(json.dumps(names))
    for name in (name for rows in names.values() for name in rows):
        write_image(base / "images" / f"{name}.jpg", 50)
    for root in (tmp_path, base):
        images = open_images("food101", root, "train", num_classes=2)
        assert images.classes == ["apple_pie", "waffles"] and images.labels == [0, 0, 1]
        assert images[2][0].size == (40, 30)


def test_indoor67(tmp_path):
    for name in ("bar/1.jpg", "gym/a b.jpg"):
        write_image(tmp_path / "Images" / name, 50)
    with pytest.raises(FileNotFoundError, match="TrainImages.txt.*beside Images"):
        open_images("indoor67", tmp_path, "train")
    (tmp_path / "TrainImages.txt").write_text("bar/1.jpg\n\n")
    (tmp_path / "TestImages.txt").write_text("gym/a b.jpg\r\n")
    train, test = (open_images("indoor67", tmp_path, split, num_classes=2) for split in ("train", "test"))
    assert train.labels == [0] and test.labels == [1] and test.classes == ["bar", "gym"]
    assert test[0][0].mode == "RGB"


def test_digits_are_the_same_every_time_and_their_parts_share_nothing():
    pytest.importorskip("sklearn")
    train, test = (open_images("digits", "", split, num_classes=10) for split in ("train", "test"))
    assert (len(train), len(test)) == (1437, 360) and set(test.labels) == set(range(10))
    assert open_images("digits", "", "val").fingerprint() == test.fingerprint() != train.fingerprint()
    pictures = [{image.tobytes() for image in part.images_NHWC} for part in (train, test)]
    assert not pictures[0] & pictures[1]
    image, label = train[0]
    assert label == 0 and image.size == (32, 32)
    # The first digit is a zero: ink around a hole, on black.
    grey = np.asarray(image)[..., 0]
    assert grey.max() > 200 and grey[16, 14] < 20 and grey[16, 8] > 100 and grey[16, 0] == 0


@pytest.mark.skipif(not CIFAR.is_file(), reason="the evaluation data is not here")
def test_real_cifar_images():
    train, test = (open_images("cifar10", CIFAR, split, num_classes=10) for split in ("train", "test"))
    assert (len(train), len(test)) == (10000, 2000) and "frog" in train.classes
    clips = ImageDataset(train, crop_size=32)[0, 5].clips_VCTHW
    assert np.array_equal(clips[0, :, 0].permute(1, 2, 0).numpy(), np.asarray(train[5][0]))


# ---- Samples ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_random_numbers_come_from_seed_epoch_and_index_alone(kind):
    def clip(seed=0, epoch=0, index=0):
        return ImageDataset(arrays(), crop_size=24, training=True, seed=seed, **EVERY_KIND[kind])[epoch, index].clips_VCTHW

    torch.manual_seed(5)
    first = clip()
    torch.manual_seed(6)
    assert torch.equal(first, clip())
    assert first.shape == (1, 3, 1, 24, 24) and first.dtype == torch.uint8
    assert not torch.equal(first, clip(epoch=1)) and not torch.equal(first, clip(seed=1))


def test_the_global_generators_are_left_alone(monkeypatch):
    dataset = ImageDataset(arrays(), crop_size=24, training=True)
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    dataset[0, 0]
    # Each torch.manual_seed reached the GPUs' generators; the sample did not.
    assert torch.equal(torch.rand(3), expected) and seeded == [5, 5]


def test_workers_give_what_one_process_gives():
    dataset = ImageDataset(arrays(), crop_size=24, training=True, **EVERY_KIND["area"])
    alone, workers = (
        list(clip_loader(dataset, 2, shuffle=True, num_workers=number).batches(epoch=3)) for number in (0, 2)
    )
    assert len(alone) == 3 and alone[0].clips_BVCTHW.shape == (2, 1, 3, 1, 24, 24)
    for one, other in zip(alone, workers):
        assert torch.equal(one.clips_BVCTHW, other.clips_BVCTHW) and torch.equal(one.labels, other.labels)


def test_evaluation_takes_the_centre_and_no_random_numbers(folder):
    images = open_images("image_folder", folder, "val")
    dataset = ImageDataset(images, crop_size=20, test_resize=30, **EVERY_KIND["area"])
    sample = dataset[0, 2]
    whole = np.asarray(images[2][0])
    assert np.array_equal(sample.clips_VCTHW[0, :, 0].permute(1, 2, 0).numpy(), whole[5:25, 10:30])
    assert (sample.label, sample.index, dataset.num_views, dataset.num_crops) == (1, 2, 1, 1)
    assert torch.equal(sample.clips_VCTHW, dataset[7, 2].clips_VCTHW)


def test_evaluation_resizes_to_the_crop_unless_told():
    clip = ImageDataset(arrays(size=64), crop_size=32)[0, 0].clips_VCTHW
    assert clip.shape[-2:] == (32, 32)
    assert [usual_test_resize(name, 224) for name in ("image_folder", "cifar10")] == [256, 224]
    with pytest.raises(ValueError, match="crop_size is 32 and test_resize 16"):
        ImageDataset(arrays(), crop_size=32, test_resize=16)


def places(size, crop_size, **augmentation):
    """Distinct crops of 200 draws, each as its numpy picture."""
    ramp = np.zeros((1, size, size, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(1, size + 1), np.arange(1, size + 1)[:, None]
    dataset = ImageDataset(ImageArray(ramp, [0], ["a"]), crop_size=crop_size, training=True, **augmentation)
    return [dataset[epoch, 0].clips_VCTHW[0, :, 0].numpy() for epoch in range(200)]


def test_padded_crops_shift_by_the_padding_at_most_and_have_black_borders():
    crops = places(16, 16, padding=2, flip=False)
    lefts = {int((crop[0] == 0).all(0)[:8].sum()) for crop in crops}
    rights = {int((crop[0] == 0).all(0)[8:].sum()) for crop in crops}
    assert lefts == rights == {0, 1, 2}
    assert len({crop.tobytes() for crop in crops}) == 25


def test_flips_mirror_half_of_the_images():
    crops = places(16, 16, flip=True)
    mirrored = sum(int(crop[0, 0, 0] > crop[0, 0, -1]) for crop in crops)
    assert len({crop.tobytes() for crop in crops}) == 2 and 70 < mirrored < 130
    assert len({crop.tobytes() for crop in places(16, 16, flip=False)}) == 1


def test_area_crops_show_the_share_that_was_asked_for():
    crops = places(64, 32, relative_scales=[0.25, 0.5], relative_aspects=[1, 1], flip=False)
    # Red counts the columns of the source: its range over the crop is the side of what was cut.
    sides = [float(crop[0].max()) - float(crop[0].min()) + 1 for crop in crops]
    assert 30 <= min(sides) < 35 and 42 < max(sides) <= 46.5
    default = places(64, 32, relative_scales=[0.3, 0.3], flip=False)
    ratios = [(np.ptp(crop[0].astype(float)) + 1) / (np.ptp(crop[1].astype(float)) + 1) for crop in default]
    assert 0.7 < min(ratios) < 0.85 and 1.2 < max(ratios) < 1.4


def test_colors_change_within_their_strength_and_places_do_not():
    dark, bright = places(16, 16, flip=False, color_jitter=0.0)[0], places(16, 16, flip=False, color_jitter=0.5)
    assert len({crop.tobytes() for crop in bright}) > 100
    assert all((np.diff(crop[0].astype(int), axis=1) >= 0).all() for crop in bright)
    # Brightness and contrast of 0.5 both: the brightest pixel stays under 1.5 x 1.5 of what it was.
    assert dark[0].max() < max(crop[0].max() for crop in bright) <= dark[0].max() * 2.25 + 1


@pytest.mark.parametrize("inverse", [False, True])
def test_short_sides_fill_their_range_and_never_fall_below_the_crop(inverse):
    sizes = [RandomShortSide(48, 96, inverse)(Image.new("RGB", (77, 49))).size for _ in range(300)]
    short = [min(size) for size in sizes]
    assert 48 <= min(short) < 52 and 90 < max(short) <= 96
    # Half of the draws lie below the middle of the range, or of its inverse.
    middle = 2 / (1 / 48 + 1 / 96) if inverse else 72
    assert 110 < sum(side < middle for side in short) < 190


def test_grey_and_transparent_images_become_rgb(tmp_path):
    for mode in ("L", "P", "RGBA", "CMYK"):
        path = tmp_path / "train" / "a" / ("x.jpg" if mode == "CMYK" else f"{mode}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, (8, 8)).save(path)
    dataset = ImageDataset(open_images("image_folder", tmp_path, "train"), crop_size=8)
    assert [dataset[0, i].clips_VCTHW.shape for i in range(4)] == [(1, 3, 1, 8, 8)] * 4


class Grey(torch.utils.data.Dataset):
    """A dataset of another's, whose images are grey and partly gone."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        if index:
            raise FileNotFoundError(2, "No such file", "gone.png")
        return Image.new("L", (9, 9), 3), 1


def test_any_map_style_dataset_can_be_wrapped():
    dataset = ImageDataset(Grey(), crop_size=8)
    assert dataset[0, 0].clips_VCTHW.unique().tolist() == [3]
    assert dataset[0, 1][:2] == BadVideo(1, "gone.png", "")[:2]


def test_unreadable_images_are_reported_and_never_replaced(folder):
    files = [folder / "val" / name for name in ("ant/0.png", "ant/1.png", "bee/0.png", "bee/1.png")]
    images = open_images("image_folder", folder, "val")
    files[0].write_bytes(files[0].read_bytes()[:90])
    files[1].write_bytes(b"")
    files[2].write_text("no image")
    (batch,) = clip_loader(ImageDataset(images, crop_size=16), 4, shuffle=False).batches()
    assert batch.indices.tolist() == [3] and batch.labels.tolist() == [1]
    assert [(bad.index, bad.path) for bad in batch.bad] == [(i, str(files[i])) for i in range(3)]
    for bad, words in zip(batch.bad, ("the image is damaged", "is empty", "it is not an image")):
        assert words in bad.cause
    files[3].unlink()
    assert "does not exist" in ImageDataset(images, crop_size=16)[0, 3].cause


def test_fingerprint_follows_the_images_and_how_they_are_cut(folder):
    def fingerprint(images, **options):
        return clip_loader(ImageDataset(images, **options), 2, shuffle=False).fingerprint

    images = arrays()
    same = fingerprint(arrays(), crop_size=24)
    assert fingerprint(images, crop_size=24) == same and "0x" not in same
    images.images_NHWC[3, 5, 5, 1] ^= 1
    files = open_images("image_folder", folder, "val")
    changed = [fingerprint(images, crop_size=24), fingerprint(files, crop_size=24), fingerprint(arrays(), crop_size=25)]
    changed += [fingerprint(arrays(), crop_size=24, training=True, **options) for options in EVERY_KIND.values()]
    files.labels[0] = 1
    changed.append(fingerprint(files, crop_size=24))
    assert len({same, *changed}) == 1 + len(changed)


@pytest.mark.parametrize(
    "augmentation, words",
    [
        (dict(relative_scales=[0.5]), "DATA.TRAIN_JITTER_SCALES_RELATIVE is .0.5.: give .min, max. shares"),
        (dict(relative_scales=[0.5, 1.5]), "TRAIN_JITTER_SCALES_RELATIVE"),
        (dict(relative_aspects=[0.5, 2]), "TRAIN_JITTER_SCALES_RELATIVE is ..:"),
        (dict(relative_scales=[0.5, 1], relative_aspects=[2, 1]), "DATA.TRAIN_JITTER_ASPECT_RELATIVE"),
        (dict(relative_scales=[0.5, 1], padding=4), "two kinds of crop"),
        (dict(padding=-1), "DATA.CROP_PADDING is -1"),
        (dict(color_jitter=-0.1), "DATA.COLOR_JITTER is -0.1"),
        (dict(jitter_scales=[16, 40]), "DATA.TRAIN_JITTER_SCALES .16, 40.*neither below the crop .32"),
    ],
)
def test_augmentations_that_mean_nothing(augmentation, words):
    with pytest.raises(ValueError, match=words):
        training_transform(32, **augmentation)
