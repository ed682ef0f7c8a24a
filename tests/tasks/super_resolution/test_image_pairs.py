"""Folders of DIV2K's form, in little; the photographs; and samples of both."""

import os
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from published import write_div2k

from mutual3d.cli import check_data
from mutual3d.data.datasets.dataset import BadVideo, read_sample
from mutual3d.data.loader import ClipLoader
from mutual3d.data.video.reader import VideoError
from mutual3d.tasks.super_resolution.dataset import SuperResolutionDataset
from mutual3d.tasks.super_resolution.pairs import ImagePair, PairArrays, make_pair, open_div2k, resize_bicubic
from mutual3d.tasks.super_resolution.photographs import open_photographs


@pytest.fixture
def div2k(tmp_path):
    return write_div2k(tmp_path / "DIV2K")


def random_image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


# ---- Pairs -----------------------------------------------------------------------------------------------------------


def test_pairs_are_the_files_of_one_scene(div2k):
    pairs = open_div2k(div2k, "val", 2)
    assert [os.path.basename(pair.high) for pair in pairs.pairs] == ["0801.png", "0802.png", "0803.png"]
    for index, name in enumerate(("0801", "0802", "0803")):
        low, high = pairs.read(index)
        assert np.array_equal(low, np.asarray(Image.open(div2k / f"DIV2K_valid_LR_bicubic/X2/{name}x2.png")))
        assert np.array_equal(high, np.asarray(Image.open(div2k / f"DIV2K_valid_HR/{name}.png")))
        assert pairs.low_size(index) == (low.shape[1], low.shape[0]) == (high.shape[1] // 2, high.shape[0] // 2)
    assert len(open_div2k(div2k, "train", 2)) == 3


def test_images_without_a_partner_are_named(div2k):
    (div2k / "DIV2K_train_HR/0002.png").unlink()
    (div2k / "DIV2K_train_LR_bicubic/X2/0001x2.png").unlink()
    with pytest.raises(ValueError, match=r"(?s)DIV2K_train_HR/0001.png'.*X2/0002x2.png': no partner in .* unpack both archives whole"):
        open_div2k(div2k, "train", 2)


def test_sizes_that_do_not_fit_are_named(div2k):
    path = div2k / "DIV2K_train_LR_bicubic/X2/0003x2.png"
    Image.fromarray(random_image(40, 31)).save(path)
    message = r"0003x2.png': it has 31 x 40 pixels and '.*DIV2K_train_HR/0003.png' has 64 x 80, which must be 62 x 80"
    with pytest.raises(ValueError, match=message):
        open_div2k(div2k, "train", 2)


def test_what_is_not_there_is_said(div2k, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder '.*X3': unpack the set .* DATA.PATH_TO_DATA_DIR"):
        open_div2k(div2k, "train", 3)
    with pytest.raises(FileNotFoundError, match="DIV2K_train_HR"):
        open_div2k(tmp_path / "none", "train", 2)
    with pytest.raises(ValueError, match="DIV2K has no split 'test' with both sizes: choose among train, val"):
        open_div2k(div2k, "test", 2)
    for folder in ("DIV2K_train_HR", "DIV2K_train_LR_bicubic/X2"):
        for path in (div2k / folder).iterdir():
            path.unlink()
    with pytest.raises(ValueError, match="hold no image"):
        open_div2k(div2k, "train", 2)


def test_two_images_of_one_name_and_a_file_that_is_none_are_refused(div2k):
    path = div2k / "DIV2K_valid_HR/0801.png"
    path.with_suffix(".jpg").write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="are two images of one name"):
        open_div2k(div2k, "val", 2)
    path.with_suffix(".jpg").unlink()
    path.write_text("no image")
    with pytest.raises(VideoError, match="0801.png': it is not an image"):
        open_div2k(div2k, "val", 2)


def test_a_file_that_changed_since_it_was_listed_is_one_bad_sample(div2k):
    dataset = SuperResolutionDataset(open_div2k(div2k, "val", 2), crop_size=8)
    path = div2k / "DIV2K_valid_LR_bicubic/X2/0802x2.png"
    Image.fromarray(random_image(30, 48)).save(path)
    found = read_sample(dataset, 0, 1)
    assert isinstance(found, BadVideo) and found.path == str(path) and "must be 96 x 60" in found.cause
    path.write_bytes(path.read_bytes()[:200])
    assert "damaged" in read_sample(dataset, 0, 1).cause


def test_check_data_reads_every_file(div2k, capsys):
    words = ["--format", "div2k", "--csv", str(div2k / "train"), "--num-workers", "0"]
    assert check_data.main(words) == 0 and "3 samples checked, 0 bad" in capsys.readouterr().out
    path = div2k / "DIV2K_train_HR/0001.png"
    path.write_bytes(path.read_bytes()[:300])
    assert check_data.main(words) == 1 and "0001.png" in capsys.readouterr().out
    assert check_data.main([*words, "--scale", "4"]) == 2


def test_small_images_are_made_by_antialiased_bicubic_interpolation():
    """Keys' kernel with a = -0.5, twice as wide as for enlarging, by hand at a place inside."""
    image = random_image(40, 41)
    low, high = make_pair(image, 2)
    assert low.shape == (20, 20, 3) and np.array_equal(high, image[:, :40])

    def kernel(x):
        x = abs(x)
        return 1.5 * x**3 - 2.5 * x**2 + 1 if x < 1 else -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0

    weights = np.array([kernel((tap + 0.5 - 21) / 2) for tap in range(17, 25)])
    weights /= weights.sum()
    expected = np.einsum("i,j,ijc->c", weights, weights, high[17:25, 17:25].astype(float))
    assert np.abs(low[10, 10] - expected.clip(0, 255)).max() <= 1.5
    assert resize_bicubic(low, (40, 40)).shape == high.shape


def test_fingerprints_change_with_pixels_names_scale_and_files(div2k):
    images = [random_image(20, 20)]
    prints = {PairArrays(images, ["a"], 2).fingerprint(), PairArrays(images, ["b"], 2).fingerprint(), PairArrays(images, ["a"], 4).fingerprint()}
    changed = images[0].copy()
    changed[0, 0, 0] ^= 1
    prints.add(PairArrays([changed], ["a"], 2).fingerprint())
    before = open_div2k(div2k, "val", 2)
    assert before.fingerprint() == open_div2k(div2k, "val", 2).fingerprint()
    prints.add(before.fingerprint())
    os.utime(div2k / "DIV2K_valid_HR/0801.png", ns=(1, 1))
    prints.add(before.fingerprint())
    assert len(prints) == 6


# ---- Samples ---------------------------------------------------------------------------------------------------------


def coordinates(height=20, width=24, scale=2):
    """A pair whose pixels say where they are: red the row, green the column, blue which sub-pixel."""
    rows, columns = np.mgrid[:height, :width]
    low = np.stack([rows, columns, 0 * rows], -1).astype(np.uint8)
    fine_rows, fine_columns = np.mgrid[: height * scale, : width * scale]
    subpixel = fine_rows % scale * scale + fine_columns % scale
    return ImagePair(low, np.stack([fine_rows // scale, fine_columns // scale, subpixel], -1).astype(np.uint8))


class OnePair(PairArrays):
    def __init__(self, pair, scale=2):
        self.scale, self.names, self._pairs = scale, ["one"], [pair]


def test_patches_show_the_same_place_in_both_sizes_turned_alike():
    dataset = SuperResolutionDataset(OnePair(coordinates()), crop_size=6, training=True, patches_per_image=400, seed=3)
    turns, places = set(), set()
    for index in range(len(dataset)):
        low, high = dataset[0, index].clips_VCTHW[0, :, 0], dataset[0, index].label
        assert low.shape == (3, 6, 6) and high.shape == (3, 12, 12) and low.dtype == high.dtype == torch.uint8
        for row in (0, 1):
            for column in (0, 1):
                assert torch.equal(high[:2, row::2, column::2], low[:2])
        # The order of the sub-pixels says how the patch was turned: its place within the image grows in the same directions.
        turns.add(tuple(high[2, :2, :2].flatten().tolist()))
        places.add((low[0].min().item(), low[1].min().item()))
        transposed = bool((low[0, 0] != low[0, 0, 0]).any())
        assert abs(int(high[2, 0, 0]) - int(high[2, 0, 1])) == (2 if transposed else 1)
    assert len(turns) == 8
    assert {top for top, _ in places} == set(range(15)) and {left for _, left in places} == set(range(19))


def test_samples_depend_on_seed_epoch_and_index_alone():
    def sample(epoch, index, seed=0, **options):
        options = {"flip": True, **options}
        dataset = SuperResolutionDataset(OnePair(coordinates()), crop_size=6, training=True, patches_per_image=9, seed=seed, **options)
        return dataset[epoch, index].clips_VCTHW

    assert torch.equal(sample(1, 4), sample(1, 4))
    assert len({tuple(sample(*key).flatten().tolist()) for key in ((0, 4), (1, 4), (0, 5), (0, 4, 1))}) == 4
    upright = sample(0, 4, flip=False)[0, :, 0]
    assert upright[0, 1, 0] > upright[0, 0, 0] and upright[1, 0, 1] > upright[1, 0, 0]


def test_evaluation_gives_whole_images_and_batches_of_one_size(div2k):
    dataset = SuperResolutionDataset(open_div2k(div2k, "val", 2), crop_size=8, patches_per_image=7)
    batches = list(ClipLoader(dataset, 4, shuffle=False))
    assert [tuple(batch.clips_BVCTHW.shape) for batch in batches] == [(2, 1, 3, 1, 32, 48), (1, 1, 3, 1, 40, 32)]
    assert [tuple(batch.labels.shape) for batch in batches] == [(2, 3, 64, 96), (1, 3, 80, 64)]
    assert [batch.indices.tolist() for batch in batches] == [[0, 1], [2]]
    assert all(batch.labels.dtype == torch.uint8 for batch in batches)


def test_training_batches_mix_images_of_every_size(div2k):
    dataset = SuperResolutionDataset(open_div2k(div2k, "train", 2), crop_size=16, training=True, patches_per_image=4)
    (batch,) = ClipLoader(dataset, 12, shuffle=True)
    assert batch.clips_BVCTHW.shape == (12, 1, 3, 1, 16, 16) and batch.labels.shape == (12, 3, 32, 32)
    assert sorted(batch.indices.tolist()) == list(range(12))
    assert [os.path.basename(dataset.name_of(index)) for index in (0, 3, 4, 11)] == ["0001x2.png", "0001x2.png", "0002x2.png", "0003x2.png"]


def test_an_image_smaller_than_a_patch_is_refused_in_training_alone(div2k):
    pairs = open_div2k(div2k, "train", 2)
    with pytest.raises(ValueError, match=r"0001x2.png' has 48 x 32 pixels and a patch 40 x 40: .* lower DATA.TRAIN_CROP_SIZE to at most 32"):
        SuperResolutionDataset(pairs, crop_size=40, training=True)
    assert len(SuperResolutionDataset(pairs, crop_size=40)) == 3


def test_the_fingerprint_of_samples_changes_with_how_patches_are_cut():
    pairs = OnePair(coordinates())
    cuts = ({}, {"crop_size": 5}, {"flip": False}, {"patches_per_image": 3}, {"seed": 2}, {"training": False})
    prints = {SuperResolutionDataset(pairs, **{"crop_size": 6, "training": True, **cut}).fingerprint() for cut in cuts}
    assert len(prints) == len(cuts)
    whole = [SuperResolutionDataset(pairs, crop_size=size, seed=seed).fingerprint() for size, seed in ((6, 0), (5, 2))]
    assert whole[0] == whole[1]


# ---- Photographs -----------------------------------------------------------------------------------------------------


def test_photographs_are_in_the_packages_that_are_installed(monkeypatch):
    sizes = {}
    for split in ("train", "val"):
        pairs = open_photographs(split, 2)
        for index in range(len(pairs)):
            low, high = pairs.read(index)
            assert high.shape == (2 * low.shape[0], 2 * low.shape[1], 3) and high.dtype == np.uint8 and high.std() > 20
            sizes[pairs.name_of(index)] = pairs.low_size(index)
    assert len(sizes) == 9 and sizes["china.jpg"] == sizes["flower.jpg"] == (320, 213) and sizes["chelsea.png"] == (225, 150)
    assert len(SuperResolutionDataset(open_photographs("train", 2), crop_size=48, training=True, patches_per_image=3)) == 21


def test_without_scikit_image_the_extra_is_named(monkeypatch):
    for name in ("skimage", "skimage.data"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=r"photographs needs scikit-image: pip install -e .\[photographs\]"):
        open_photographs.__wrapped__("val", 2)
    with pytest.raises(ValueError, match="no split 'test': choose among train, val"):
        open_photographs("test", 2)
