"""Samples around keyframes: the clip, and boxes that go where the picture goes."""

import numpy as np
import pytest
import torch
from ava_set import BOXES, FIRST_SECOND, FPS, path_of, write_ava_set
from clips import ava_dataset, clip_loader

from mutual3d.data.clips.transforms import RandomCrop, TrainingCrop, random_crop
from mutual3d.data.datasets.ava.annotations import read_ava_frames, read_keyframes, read_reference
from mutual3d.data.datasets.ava.dataset import keyframe_clip
from mutual3d.data.datasets.kinetics import BadVideo
from mutual3d.data.video.frame_list_reader import FrameListReader

CLIP = dict(num_frames=4, sampling_rate=1, target_fps=FPS, crop_size=32, jitter_scales=(32, 48))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_ava_set(tmp_path_factory.mktemp("ava"))


def dataset(folder, **changes):
    frames = read_ava_frames([folder / "list.csv"], folder / "frames", fps=FPS, first_second=FIRST_SECOND)
    keyframes = read_keyframes(frames, ground_truth=[folder / "truth.csv"], num_classes=4)
    return ava_dataset(frames, keyframes, **{**CLIP, **changes})


def bright_box(image_HWC):
    """Of the white pixels: x1, y1, x2, y2 in pixels; None without one."""
    rows, columns = (image_HWC.float().mean(2) > 150).nonzero(as_tuple=True)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else None


@pytest.mark.parametrize("centre, clip", [(60, [52, 56, 60, 64]), (2, [0, 0, 2, 6]), (99, [91, 95, 99, 99])])
def test_a_clip_spans_half_its_length_to_each_side_and_repeats_the_ends(centre, clip):
    assert keyframe_clip(centre, 100, num_frames=4, stride=4) == clip


@pytest.mark.parametrize(
    "num_frames, stride, first, last", [(8, 8, -32, 24), (32, 2, -32, 30), (16, 5, -40, 35), (3, 3, -4, 2)]
)
def test_published_clips(num_frames, stride, first, last):
    clip = keyframe_clip(1000, 27030, num_frames=num_frames, stride=stride)
    assert clip == list(range(1000 + first, 1000 + last + 1, stride)) and len(clip) == num_frames


def test_fractional_strides_keep_their_rate():
    """A stride of 3 at 30 frames a second, in frames extracted at 10 and at 25."""
    assert keyframe_clip(100, 200, num_frames=8, stride=3 * 10 / 30) == list(range(96, 104))
    clip = keyframe_clip(100, 200, num_frames=8, stride=3 * 25 / 30)
    assert clip[4] == 100 and set(np.diff(clip)) == {2, 3} and clip[-1] - clip[0] == 18


def test_evaluation_shows_the_whole_frame_with_all_boxes(folder):
    data = dataset(folder, crop_size=24)
    assert len(data) == 3 and data.keyframes == list(BOXES) and data.groups == ["wide", "wide", "tall"]
    for index, key in enumerate(data.keyframes):
        sample = data[0, index]
        assert sample.clips_VCTHW.shape == (1, 3, 4, *((24, 40) if key[0] == "wide" else (40, 24)))
        assert sample.clips_VCTHW.dtype == torch.uint8 and sample.index == index
        torch.testing.assert_close(sample.boxes, torch.tensor([BOXES[key]]))
        assert torch.equal(sample.boxes, sample.origins) and torch.equal(sample.clips_VCTHW, data[5, index].clips_VCTHW)
    assert data[0, 0].label.tolist() == [[1, 0, 1, 0]]


def test_the_keyframe_stands_in_the_middle_of_the_clip(folder):
    data = dataset(folder, num_frames=2, sampling_rate=2)
    frame = int(data[0, 1].clips_VCTHW[0, 0, 1, 1, 1])  # grey levels count frames, two a frame
    assert abs(frame - 2 * (902 - FIRST_SECOND) * FPS) <= 2


@pytest.mark.parametrize("index", range(3))
def test_training_boxes_are_where_the_picture_shows_them(folder, index):
    data = dataset(folder, training=True)
    compared = 0
    for epoch in range(30):
        sample = data[epoch, index]
        assert sample.clips_VCTHW.shape == (1, 3, 4, 32, 32) and len(sample.boxes) == len(sample.label) == 1
        seen = bright_box(sample.clips_VCTHW[0, :, 2].permute(1, 2, 0))
        if seen is not None:
            assert (sample.boxes[0] * 32 - torch.tensor(seen)).abs().max() <= 1.5
            compared += 1
        torch.testing.assert_close(sample.origins, torch.tensor([BOXES[data.keyframes[index]]]))
    assert compared > 20


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("height, width", [(60, 100), (100, 60), (37, 53)])
def test_boxes_follow_the_pixels_of_any_crop(height, width, flip):
    frame = np.zeros((height, width, 3), np.uint8)
    box = torch.tensor([[round(0.3 * width) / width, round(0.4 * height) / height, 0.5, 0.75]])
    pixels = [round(value) for value in (box[0] * torch.tensor([width, height] * 2)).tolist()]
    frame[pixels[1] : pixels[3], pixels[0] : pixels[2]] = 255
    generator = np.random.default_rng(0)
    for _ in range(40):
        crop = random_crop(generator, 64, TrainingCrop((64, 100)))._replace(flip=flip)
        seen, moved = bright_box(crop(frame)), crop.view_boxes(box, height, width)[0] * 64
        if seen is not None:
            assert (moved - torch.tensor(seen)).abs().max() <= 2.5  # interpolation blurs an edge by a source pixel


def test_a_mirrored_box_is_the_mirrored_one():
    boxes = torch.tensor([[0.1, 0.2, 0.4, 0.6], [0.5, 0.5, 0.9, 0.9]])
    plain, mirrored = (RandomCrop(32, 40, 0.3, 0.6, flip).view_boxes(boxes, 50, 70) for flip in (False, True))
    torch.testing.assert_close(mirrored[:, [0, 2]], 1 - plain[:, [2, 0]])
    assert torch.equal(mirrored[:, [1, 3]], plain[:, [1, 3]])


def test_boxes_are_clipped_to_the_crop():
    left_half = RandomCrop(50, 50, 0.0, 0.0, False)  # of a frame of 50 x 100
    boxes = left_half.view_boxes(torch.tensor([[0.4, 0.2, 0.8, 0.6], [0.6, 0.2, 0.8, 0.6]]), 50, 100)
    torch.testing.assert_close(boxes, torch.tensor([[0.8, 0.2, 1.0, 0.6], [1.0, 0.2, 1.0, 0.6]]))


def test_boxes_outside_the_crop_are_left_out_with_their_labels(folder, tmp_path):
    frames = read_ava_frames([folder / "list.csv"], folder / "frames", fps=FPS, first_second=FIRST_SECOND)
    both = tmp_path / "truth.csv"
    both.write_text("wide,901,0.0,0.1,0.1,0.3,1,0\nwide,901,0.9,0.1,1.0,0.3,2,0\n")
    data = ava_dataset(frames, read_keyframes(frames, ground_truth=[both], num_classes=4), **CLIP, training=True)
    counts = set()
    for epoch in range(40):
        sample = data[epoch, 0]
        counts.add(len(sample.boxes))
        assert (sample.boxes[:, 2:] > sample.boxes[:, :2]).all() and sample.boxes.min() >= 0 and sample.boxes.max() <= 1
        assert [label.argmax().item() for label in sample.label] == [int(x1 > 0.5) for x1 in sample.origins[:, 0]]
    # The frame is 80 wide and the crop at most 48 of it: never both, and never none.
    assert counts == {1}


@pytest.mark.parametrize("height, width", [(48, 80), (80, 48), (200, 30), (33, 47)])
def test_a_crop_without_a_box_is_moved_no_further_than_needed(height, width):
    generator = np.random.default_rng(0)
    for _ in range(200):
        crop = random_crop(generator, 32, TrainingCrop((32, 60)))
        x, y = generator.random(2) * 0.9
        box = torch.tensor([[x, y, x + 0.1, y + 0.1]], dtype=torch.float32)
        moved = crop.moved_to(box[0], height, width)
        x1, y1, x2, y2 = moved.view_boxes(box, height, width)[0].tolist()
        assert x2 > x1 and y2 > y1 and moved[:2] == crop[:2]
        assert moved.box(height, width)[2:] == crop.box(height, width)[2:]
        top, left, box_height, box_width = crop.box(height, width)
        centre_x, centre_y = (x + 0.05) * width, (y + 0.05) * height
        if left + 1 < centre_x < left + box_width - 1 and top + 1 < centre_y < top + box_height - 1:
            assert moved.box(height, width) == crop.box(height, width)


def test_a_box_thinner_than_a_pixel_still_makes_a_sample(folder, tmp_path):
    """A crop begins and ends with whole pixels, and so can miss such a box even where it is moved to it."""
    frames = read_ava_frames([folder / "list.csv"], folder / "frames", fps=FPS, first_second=FIRST_SECOND)
    thin = tmp_path / "truth.csv"
    thin.write_text("wide,901,0.0611,0.4,0.0621,0.6,1,0\n")
    arguments = {**CLIP, "num_frames": 1, "jitter_scales": (32, 32), "training": True}
    data = ava_dataset(frames, read_keyframes(frames, ground_truth=[thin], num_classes=4), **arguments)
    samples = [data[epoch, 0] for epoch in range(12)]
    assert all(sample.label.tolist() == [[1, 0, 0, 0]] and len(sample.boxes) == 1 for sample in samples)
    assert any(sample.boxes[0, 0] == sample.boxes[0, 2] for sample in samples)


def test_samples_depend_on_seed_epoch_and_index_alone(folder):
    data, again = dataset(folder, training=True, seed=3), dataset(folder, training=True, seed=3)
    first = data[0, 1]
    data[1, 0]
    for name in ("clips_VCTHW", "boxes", "origins", "label"):
        assert torch.equal(getattr(first, name), getattr(again[0, 1], name))
    for other in (data[1, 1], dataset(folder, training=True, seed=4)[0, 1]):
        assert not torch.equal(first.clips_VCTHW, other.clips_VCTHW)


def test_flipping_mirrors_half_of_the_samples_and_nothing_else(folder):
    mirrored, plain = (dataset(folder, training=True, flip=flip) for flip in (True, False))
    flips = 0
    for epoch in range(20):
        boxes, others = mirrored[epoch, 0].boxes, plain[epoch, 0].boxes
        if not torch.equal(boxes, others):
            torch.testing.assert_close(boxes[:, [2, 0]], 1 - others[:, [0, 2]])
            flips += 1
    assert 3 <= flips <= 17


def test_a_stride_is_counted_at_the_rate_that_it_refers_to(folder):
    frames = [dataset(folder, num_frames=2, target_fps=fps)[0, 1].clips_VCTHW[0, 0, :, 1, 1].int() for fps in (FPS, FPS / 3)]
    steps = [(second - first).item() / 2 for first, second in frames]  # grey levels count frames, two a frame
    assert abs(steps[0] - 1) <= 0.5 and abs(steps[1] - 3) <= 0.5


def test_only_the_frames_of_the_clip_are_opened(folder, monkeypatch):
    opened = []
    read = FrameListReader.frames
    monkeypatch.setattr(FrameListReader, "frames", lambda self, i: opened.append((self.num_frames, len(i))) or read(self, i))
    dataset(folder)[0, 0]
    assert opened == [(4, 4)]


def test_a_missing_or_damaged_frame_is_recorded(tmp_path):
    folder = write_ava_set(tmp_path)
    gone, damaged = (folder / "frames" / path_of(*frame) for frame in (("wide", FPS), ("tall", 3 * FPS)))
    gone.unlink()
    damaged.write_bytes(damaged.read_bytes()[:200])
    data = dataset(folder)
    assert isinstance(data[0, 0], BadVideo) and data[0, 0].path == str(gone) and data[0, 0].index == 0
    assert data[0, 2].path == str(damaged) and not isinstance(data[0, 1], BadVideo)
    (batch,) = [batch for batch in clip_loader(data, 2, shuffle=False) if len(batch.indices) == 1]
    assert batch.indices.tolist() == [1] and len(batch.bad) == 1 and batch.boxes[:, 0].tolist() == [0]


def test_batches_join_boxes_and_never_mix_videos(folder):
    batches = list(clip_loader(dataset(folder), 8, shuffle=False))
    assert [batch.indices.tolist() for batch in batches] == [[0, 1], [2]]
    assert batches[0].boxes[:, 0].tolist() == [0, 1] and batches[0].labels.shape == (2, 4)
    torch.testing.assert_close(batches[0].origins, torch.tensor([BOXES["wide", 901], BOXES["wide", 902]]))
    (training,) = clip_loader(dataset(folder, training=True), 3, shuffle=True)
    assert training.clips_BVCTHW.shape == (3, 1, 3, 4, 32, 32) and sorted(training.boxes[:, 0].tolist()) == [0, 1, 2]


def test_fingerprints_tell_runs_apart_in_few_words(folder):
    def fingerprint(**changes):
        return clip_loader(dataset(folder, **changes), 1, shuffle=False).fingerprint

    assert fingerprint() == fingerprint() != fingerprint(crop_size=40)
    assert len(fingerprint()) < 2000


def test_evaluation_finds_what_to_compare_with(folder):
    reference = read_reference(folder / "truth.csv", folder / "excluded.csv", folder / "labels.pbtxt", num_classes=4)
    data = dataset(folder, reference=reference)
    assert data.ground_truth.keys() == BOXES.keys() and data.excluded == {("wide", 902)}
    assert data.classes == [(1, "stand (still)"), (3, "sit")] and (data.num_views, data.num_crops) == (1, 1)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(num_frames=0), "num_frames is 0"),
        (dict(sampling_rate=0), "sampling_rate is 0"),
        (dict(crop_size=0), "crop_size"),
        (dict(training=True, jitter_scales=(16, 20)), "TRAIN_JITTER_SCALES"),
        (dict(seed=-1), "RNG_SEED"),
    ],
)
def test_wrong_arguments(folder, arguments, words):
    with pytest.raises(ValueError, match=words):
        dataset(folder, **arguments)
