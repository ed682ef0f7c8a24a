import numpy as np
import pytest
import torch
from coco_set import content, write_coco
from PIL import Image

from mutual3d.data.datasets.dataset import BadVideo
from mutual3d.data.loader import ClipLoader, Reading
from mutual3d.tasks.detection.coco import read_instances
from mutual3d.tasks.detection.dataset import GREY, CocoDataset


@pytest.fixture
def instances(tmp_path):
    return read_instances(*write_coco(tmp_path))


@pytest.mark.parametrize(
    "short, long, views", [(40, 100, [[40, 60], [60, 40]]), (80, 120, [[80, 120], [120, 80]]), (80, 90, [[60, 90], [90, 60]]), (20, 30, [[20, 30], [30, 20]])]
)
def test_images_keep_their_aspect_within_both_limits(instances, short, long, views):
    dataset = CocoDataset(instances, short, long)
    assert dataset.views_N2[:2].tolist() == views
    for index in range(len(dataset)):
        sample = dataset[0, index]
        assert list(sample.clips_VCTHW.shape) == [1, 3, 1, *dataset.views_N2[dataset.images[index]]]
        assert sample.label["masks"].shape[1:] == sample.clips_VCTHW.shape[3:]


def test_boxes_and_masks_follow_the_image(instances):
    plain, double = (CocoDataset(instances, short, 200)[0, 0] for short in (40, 80))
    assert np.array_equal(plain.label["masks"].numpy(), instances.decoded([0, 1], 0))
    torch.testing.assert_close(plain.label["boxes"], torch.tensor([[10, 5, 30, 20], [40.5, 20.25, 60, 39.75]]))
    torch.testing.assert_close(double.label["boxes"], 2 * plain.label["boxes"])
    assert plain.label["labels"].tolist() == double.label["labels"].tolist() == [1, 0]
    (first, _) = double.label["masks"]
    assert first[10:40, 20:60].all() and first.sum() == 30 * 40


def test_evaluation_has_every_image_and_batches_of_one_size(instances):
    dataset = CocoDataset(instances, 40, 100)
    assert dataset.images == [0, 2, 1] and dataset.groups == [(40, 60), (40, 60), (60, 40)]
    batches = list(ClipLoader(dataset, 3, shuffle=False))
    assert [tuple(batch.clips_BVCTHW.shape) for batch in batches] == [(2, 1, 3, 1, 40, 60), (1, 1, 3, 1, 60, 40)]


def test_training_learns_from_no_crowd_and_fills_batches_up(instances):
    dataset = CocoDataset(instances, 40, 100, training=True, flip=False)
    # The third image has no object, and one of the second's is a crowd.
    assert dataset.images == [0, 1] and dataset.groups is None
    assert [dataset[0, index].label["labels"].tolist() for index in (0, 1)] == [[1, 0], [0]]
    (batch,) = ClipLoader(dataset, 2, shuffle=True).batches()
    clips, labels = batch.clips_BVCTHW[:, 0, :, 0], batch.labels
    assert tuple(clips.shape) == (2, 3, 60, 60) and clips.permute(0, 2, 3, 1).is_contiguous()
    assert len(labels) == 2
    for clip, own, index in zip(clips, labels.samples, batch.indices.tolist()):
        height, width = own["masks"].shape[1:]
        assert own["canvas"].tolist() == [60, 60]
        assert torch.equal(clip[:, :height, :width], dataset[0, index].clips_VCTHW[0, :, 0])
        assert (clip[:, height:] == GREY).all() and (clip[:, :, width:] == GREY).all()


def test_workers_give_the_same_batches(instances):
    dataset = CocoDataset(instances, 40, 100, training=True, seed=2)
    loaders = [ClipLoader(dataset, 2, shuffle=True, reading=Reading(number, 60.0)) for number in (0, 1)]
    ((here,), (there,)) = (list(loader.batches(epoch=3)) for loader in loaders)
    assert torch.equal(here.clips_BVCTHW, there.clips_BVCTHW)
    for one, other in zip(here.labels.samples, there.labels.samples):
        assert one.keys() == other.keys() == {"boxes", "labels", "masks", "canvas"}
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_half_of_the_images_of_training_are_mirrored_by_their_key_alone(instances):
    plain = CocoDataset(instances, 40, 100, training=True, flip=False)[0, 0]
    dataset = CocoDataset(instances, 40, 100, training=True, seed=5)
    mirrored = 0
    for epoch in range(40):
        sample, again = dataset[epoch, 0], dataset[epoch, 0]
        assert torch.equal(sample.clips_VCTHW, again.clips_VCTHW) and torch.equal(sample.label["boxes"], again.label["boxes"])
        if not torch.equal(sample.clips_VCTHW, plain.clips_VCTHW):
            mirrored += 1
            assert torch.equal(sample.clips_VCTHW.flip(-1), plain.clips_VCTHW)
            assert torch.equal(sample.label["masks"].flip(-1), plain.label["masks"])
            torch.testing.assert_close(sample.label["boxes"][:, 0], 60 - plain.label["boxes"][:, 2])
    assert 10 < mirrored < 30


def test_an_image_of_another_size_than_its_entry_says_is_bad(instances, tmp_path):
    Image.new("RGB", (60, 41)).save(tmp_path / "images" / "a.jpg")
    bad = CocoDataset(instances, 40, 100)[0, 0]
    assert isinstance(bad, BadVideo) and bad.path.endswith("a.jpg") and "60 x 41 pixels, and '" in bad.cause and "says 60 x 40" in bad.cause
    (tmp_path / "images" / "a.jpg").write_bytes(b"no image")
    assert "it is not an image" in CocoDataset(instances, 40, 100)[0, 0].cause


def test_arguments_and_sets_that_mean_nothing_are_refused(instances, tmp_path):
    with pytest.raises(ValueError, match="the short side is 60 and COCO.MAX_LONG_SIDE 50"):
        CocoDataset(instances, 60, 50)
    made = content()
    made["annotations"] = made["annotations"][2:3]
    crowd = read_instances(*write_coco(tmp_path / "crowd", made))
    with pytest.raises(ValueError, match="has no image with an object that is no crowd"):
        CocoDataset(crowd, 40, 100, training=True)
    assert len(CocoDataset(crowd, 40, 100)) == 3


def test_each_argument_is_in_the_fingerprint(instances):
    made = [CocoDataset(instances, 40, 100), CocoDataset(instances, 41, 100), CocoDataset(instances, 40, 99), CocoDataset(instances, 40, 100, seed=1),
            CocoDataset(instances, 40, 100, training=True), CocoDataset(instances, 40, 100, training=True, flip=False)]  # fmt: skip
    assert len({dataset.fingerprint() for dataset in made}) == len(made)
    assert CocoDataset(instances, 40, 100).fingerprint() == made[0].fingerprint()
