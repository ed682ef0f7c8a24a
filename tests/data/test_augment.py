"""RandAugment and erasing: the same in all frames, from the seed alone, and in the data sets of videos and images."""

import dataclasses

import pytest
import torch
from tiny import overrides, write_set

from mutual3d.data.build import build_dataset
from mutual3d.data.clips.augment import AUTO_AUGMENT, ClipAugmentation, RandAugmentation, RandomErasing
from mutual3d.data.sources.facts import clip_augmentation
from mutual3d.pipeline import load_config


def still_clips(views=2, frames=4, side=40):
    """Clips whose frames are all one image, in the layout of decoded ones."""
    image = torch.randint(0, 256, (views, 1, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return image.expand(views, frames, side, side, 3).contiguous().permute(0, 4, 1, 2, 3)


def same_frames(clips_VCTHW):
    return bool((clips_VCTHW == clips_VCTHW[:, :, :1]).all())


ALWAYS = RandAugmentation(num_ops=2, magnitude=9.0, magnitude_std=0.5, probability=1.0)


@pytest.mark.parametrize(
    "how", [dict(rand_augment=ALWAYS), dict(erasing=RandomErasing(1.0, "const")), dict(erasing=RandomErasing(1.0, "rand")),
            *(dict(auto_augment=policy) for policy in AUTO_AUGMENT), dict(cutout=16)]  # fmt: skip
)
def test_every_frame_of_a_clip_is_augmented_alike_and_by_the_seed_alone(how):
    augment, torch_state = ClipAugmentation(**how), torch.get_rng_state()
    changed = 0
    for seed in range(20):
        first = augment(still_clips(), seed)
        assert first.dtype == torch.uint8 and first.shape == (2, 3, 4, 40, 40) and same_frames(first)
        assert torch.equal(first, augment(still_clips(), seed))
        changed += not torch.equal(first, still_clips())
    # Operations may be the identity, or a rectangle may not fit; most of twenty are neither.
    assert changed >= 15
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert not torch.equal(augment(still_clips(), 1), augment(still_clips(), 2))


def test_a_clip_keeps_its_layout_and_two_views_are_augmented_on_their_own():
    clips = ClipAugmentation(rand_augment=ALWAYS)(still_clips(), 3)
    assert clips.permute(0, 2, 3, 4, 1).is_contiguous()
    twins = still_clips(1).expand(2, -1, -1, -1, -1).permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3)
    assert any(not torch.equal(*ClipAugmentation(rand_augment=ALWAYS)(twins.clone(), seed)) for seed in range(5))


def test_what_is_erased_is_one_rectangle_of_the_mode():
    for seed in range(10):
        grey = torch.full((1, 3, 4, 40, 40), 7, dtype=torch.uint8)
        const = ClipAugmentation(erasing=RandomErasing(1.0, "const"))(grey.clone(), seed)
        erased = (const != 7)[0, 0, 0]
        assert torch.equal(const[0, :, 0][:, erased].unique(), torch.tensor([115], dtype=torch.uint8))  # 255 * 0.45
        rows, columns = erased.any(1).nonzero().flatten(), erased.any(0).nonzero().flatten()
        assert int(erased.sum()) == len(rows) * len(columns) and 0.01 < erased.float().mean() < 0.36
        pixel = ClipAugmentation(erasing=RandomErasing(1.0, "pixel"))(grey.clone(), seed)
        changed = (pixel != 7)[0].any(0)
        assert not (changed & ~erased).any() and changed[:, erased].float().mean() > 0.9 and not same_frames(pixel)
    assert torch.equal(ClipAugmentation(erasing=RandomErasing(0.0))(grey.clone(), 0), grey)


@pytest.mark.parametrize("side", [16, 7])
def test_cutout_is_a_square_of_the_mean_colour_that_the_border_may_cut(side):
    areas = set()
    for seed in range(40):
        grey = torch.full((1, 3, 2, 40, 40), 7, dtype=torch.uint8)
        clips = ClipAugmentation(cutout=side)(grey, seed)
        cut = (clips != 7)[0, 0, 0]
        assert torch.equal(clips[0, :, 0][:, cut].unique(), torch.tensor([115], dtype=torch.uint8))  # 255 * 0.45
        rows, columns = cut.any(1).nonzero().flatten(), cut.any(0).nonzero().flatten()
        assert int(cut.sum()) == len(rows) * len(columns) and max(len(rows), len(columns)) <= side
        # Less than the whole side only where the square meets the border.
        assert all(len(line) == side or line[0] == 0 or line[-1] == 39 for line in (rows, columns))
        areas.add(int(cut.sum()))
    assert max(areas) == side**2 and len(areas) > 1


def test_another_policy_and_a_side_below_0_are_refused():
    for wrong in (dict(auto_augment="autoaugment-mnist"), dict(cutout=-1)):
        with pytest.raises(ValueError, match="autoaugment-imagenet, autoaugment-cifar10.*0 or more pixels"):
            ClipAugmentation(**wrong)


def test_a_config_chooses_policy_and_square():
    words = {"AUG.ENABLE": True, "AUG.AA_TYPE": "autoaugment-cifar10", "AUG.RE_PROB": 0.0, "AUG.CUTOUT": 16}
    assert clip_augmentation(load_config(None, overrides("", "out", **words))) == ClipAugmentation(auto_augment="autoaugment-cifar10", cutout=16)


def test_nothing_happens_with_the_identitys_settings():
    never = ClipAugmentation(rand_augment=dataclasses.replace(ALWAYS, probability=0.0))
    assert torch.equal(never(still_clips(), 0), still_clips())


def test_timms_words_are_parsed_and_others_refused():
    assert RandAugmentation.parse("rand-m9-mstd0.5-inc1") == RandAugmentation(2, 9.0, 0.5, 0.5)
    assert RandAugmentation.parse("rand-m7-n4-mstd0.5-inc1") == RandAugmentation(4, 7.0, 0.5, 0.5)
    assert RandAugmentation.parse("rand-m5-p1") == RandAugmentation(2, 5.0, 0.0, 1.0)
    for words in ("augmix-m3", "rand", "rand-m9-inc0", "rand-m11", "rand-m9-n0", "m9"):
        with pytest.raises(ValueError, match="AUG.AA_TYPE"):
            RandAugmentation.parse(words)
    with pytest.raises(ValueError, match="const, rand, pixel"):
        RandomErasing(0.5, "black")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set") / "videos", num_videos=4)


def _video_sets(data, **changes):
    cfg = load_config(None, overrides(data, "out", **changes))
    return cfg, build_dataset(cfg, "train", "train"), build_dataset(cfg, "val", "single_view")


def test_training_clips_of_videos_are_augmented_and_no_others(data):
    _, plain, plain_test = _video_sets(data)
    cfg, augmented, test = _video_sets(data, **{"AUG.ENABLE": True, "AUG.RE_PROB": 1.0})
    for epoch, index in ((0, 0), (1, 3)):
        clip = augmented[epoch, index].clips_VCTHW
        assert torch.equal(clip, augmented[epoch, index].clips_VCTHW)
        assert not torch.equal(clip, plain[epoch, index].clips_VCTHW)
        assert torch.equal(test[epoch, index].clips_VCTHW, plain_test[epoch, index].clips_VCTHW)
    assert not torch.equal(augmented[0, 0].clips_VCTHW, augmented[1, 0].clips_VCTHW)
    assert augmented.fingerprint() != plain.fingerprint() and test.fingerprint() == plain_test.fingerprint()
    other = _video_sets(data, **{"AUG.ENABLE": True, "AUG.RE_PROB": 1.0, "AUG.AA_TYPE": "rand-m3"})[1]
    assert other.fingerprint() != augmented.fingerprint()


def test_images_are_augmented_too():
    words = {"TRAIN.DATASET": "digits", "TEST.DATASET": "digits", "DATA.NUM_FRAMES": 1, "MUTUAL.TEMPORAL_SIZES": [1], "MODEL.NUM_CLASSES": 10,
             "TEST.NUM_ENSEMBLE_VIEWS": 1, "TEST.NUM_SPATIAL_CROPS": 1}  # fmt: skip
    plain = build_dataset(load_config(None, overrides("", "out", **words)), "train", "train")
    augmented = build_dataset(load_config(None, overrides("", "out", **words, **{"AUG.ENABLE": True, "AUG.RE_PROB": 1.0})), "train", "train")
    pairs = [(plain[0, i].clips_VCTHW, augmented[0, i].clips_VCTHW) for i in range(6)]
    assert all(a.shape == b.shape and b.dtype == torch.uint8 for a, b in pairs)
    assert sum(not torch.equal(a, b) for a, b in pairs) >= 5
    assert torch.equal(augmented[2, 5].clips_VCTHW, augmented[2, 5].clips_VCTHW)
    assert augmented.fingerprint() != plain.fingerprint()


def test_boxes_cannot_be_augmented_and_unknown_words_are_refused_when_the_config_is_loaded():
    with pytest.raises(ValueError, match="AUG.AA_TYPE is 'trivial': give words of RandAugment"):
        load_config(None, overrides("data", "out", **{"AUG.ENABLE": True, "AUG.AA_TYPE": "trivial"}))
    ava = {"TRAIN.DATASET": "ava", "TEST.DATASET": "ava", "DETECTION.ENABLE": True, "MODEL.HEAD_ACT": "sigmoid", "MODEL.LOSS_FUNC": "bce"}
    with pytest.raises(ValueError, match="(?s)AUG.ENABLE is True: .*boxes.*MIXUP.ENABLE is True: clips with boxes"):
        load_config(None, overrides("data", "out", **ava, **{"AUG.ENABLE": True, "MIXUP.ENABLE": True}))
