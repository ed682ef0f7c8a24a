"""The contract of data sets: their fingerprints, and that no failure of a sample leaves them."""

import dataclasses
import importlib.util
import inspect
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from ava_set import FIRST_SECOND, FPS, write_ava_set
from clips import ava_dataset, clip_loader, video_dataset
from PIL import Image
from tiny import ROOT
from videos import moving_frames, write_video

from mutual3d.data.clips.augment import ClipAugmentation, RandAugmentation
from mutual3d.data.datasets import dataset as dataset_module
from mutual3d.data.datasets.ava.annotations import read_ava_frames, read_keyframes, read_reference
from mutual3d.data.datasets.ava.dataset import AvaDataset
from mutual3d.data.datasets.charades import TimedVideo, read_charades
from mutual3d.data.datasets.dataset import BadVideo, ClipDataset, Sample, read_sample, stat_files
from mutual3d.data.datasets.images import ImageArray, ImageDataset, ImageFiles
from mutual3d.data.datasets.kinetics import VideoDataset
from mutual3d.data.prepare.extraction import write_frame_rows, write_image
from mutual3d.utils.fingerprint import fingerprint

CLIP = dict(num_frames=4, sampling_rate=2, crop_size=32, jitter_scales=(32, 40))


# ---- The data sets of the project: a way to make each, in a folder, of arguments that may differ ---------------------------


def videos_of(folder, labels=(0, 1), **changes):
    names = [folder / f"{i}.mp4" for i in range(2)]
    for name in names:
        if not name.is_file():
            write_video(name, moving_frames(6))
    return video_dataset(list(zip(map(str, names), labels)), **{**CLIP, **changes})


def timed_videos_of(folder, end=2.0, num_classes=5, **changes):
    videos_of(folder)
    videos = [TimedVideo(str(folder / f"{i}.mp4"), ((i, 0.0, end),), num_classes) for i in range(2)]
    return video_dataset(videos, **{**CLIP, **changes})


def frame_lists_of(folder, labels="1", count=12, fps=24, **changes):
    rows = []
    for k, image in enumerate(moving_frames(count)):
        path = f"V/{k}.jpg"
        (folder / "V").mkdir(exist_ok=True)
        if not (folder / path).is_file():
            write_image(folder / path, image)
        rows.append(("V", 0, k, path, labels if k == count - 2 else "3"))
    write_frame_rows(folder / "train.csv", rows)
    return video_dataset(read_charades(folder / "train.csv", num_classes=5, fps=fps), **{**CLIP, **changes})


def keyframes_of(folder, old="", new="", excluded="wide,0902", **changes):
    if not (folder / "list.csv").is_file():
        write_ava_set(folder)
    truth = folder / "changed.csv"
    truth.write_text((folder / "truth.csv").read_text().replace(old, new))
    (folder / "excluded.csv").write_text(excluded)
    frames = read_ava_frames([folder / "list.csv"], folder / "frames", fps=FPS, first_second=FIRST_SECOND)
    reference = read_reference(truth, folder / "excluded.csv", folder / "labels.pbtxt", num_classes=4)
    keyframes = read_keyframes(frames, ground_truth=[truth], num_classes=4)
    return ava_dataset(frames, keyframes, reference=reference, **{**CLIP, "sampling_rate": 1, "target_fps": FPS, **changes})


def pictures(count):
    return np.random.default_rng(0).integers(0, 256, (count, 36, 36, 3), np.uint8)


def image_files_of(folder, labels=(0, 1, 0), classes="ab", **changes):
    names = [folder / f"{i}.png" for i in range(3)]
    for name, picture in zip(names, pictures(3)):
        if not name.is_file():
            Image.fromarray(picture).save(name)
    return ImageDataset(ImageFiles(names, labels, classes), **{"crop_size": 32, **changes})


def image_array_of(folder, place=None, labels=None, classes="ab", **changes):
    images = pictures(2000)  # numpy prints three dots in the place of most of these
    if place is not None:
        images[place] ^= 1
    labels = np.arange(2000) % 2 if labels is None else labels
    return ImageDataset(ImageArray(images, labels, classes), **{"crop_size": 32, **changes})


def labels_with_one_changed(count):
    labels = np.arange(count) % 2
    labels[count // 2] ^= 1
    return labels


# How clips are cut: each of these is another set of samples.
CUTS = [
    dict(num_frames=5), dict(sampling_rate=3), dict(crop_size=30), dict(target_fps=25), dict(num_views=2), dict(num_crops=3),
    dict(offset_sampling=True), dict(tolerate_short=True), dict(training=True), dict(training=True, seed=1), dict(training=True, flip=False),
    dict(training=True, inverse_uniform=True), dict(training=True, jitter_scales=(32, 41)),
    dict(training=True, augmentation=ClipAugmentation(RandAugmentation())),
]  # fmt: skip
# Another decoder may give other pictures.
if importlib.util.find_spec("decord"):
    CUTS.append(dict(backend="decord"))
BOX_CUTS = [cut for cut in CUTS if not {"num_views", "num_crops", "offset_sampling", "tolerate_short", "backend", "augmentation"} & cut.keys()]
IMAGE_CUTS = [
    dict(crop_size=30), dict(test_resize=34), dict(training=True), dict(training=True, seed=1), dict(training=True, padding=4),
    dict(training=True, flip=False), dict(training=True, color_jitter=0.1), dict(training=True, relative_scales=(0.5, 1)),
]  # fmt: skip
CASES = {
    "videos": (videos_of, [dict(labels=(0, 2)), *CUTS], "1.mp4"),
    "timed videos": (timed_videos_of, [dict(end=2.5), dict(num_classes=6), *CUTS], "1.mp4"),
    "frame lists": (frame_lists_of, [dict(labels="2"), dict(count=11), dict(fps=25), *CUTS], "V/7.jpg"),
    "keyframes": (
        keyframes_of,
        [dict(old="0.25", new="0.26"), dict(old="0.75,2,7", new="0.75,4,7"), dict(excluded=""), *BOX_CUTS],
        "frames/wide/wide_000007.jpg",
    ),
    "image files": (image_files_of, [dict(labels=(0, 1, 1)), dict(classes="ac"), *IMAGE_CUTS], "1.png"),
    "image array": (
        image_array_of,
        [dict(place=(1000, 5, 5, 1)), dict(labels=labels_with_one_changed(2000)), dict(classes="ac"), *IMAGE_CUTS],
        None,
    ),
}


@pytest.mark.parametrize("make, changes, file", CASES.values(), ids=CASES)
def test_fingerprints_change_with_each_label_box_file_and_cut(make, changes, file, tmp_path):
    def told(**arguments):
        return clip_loader(make(tmp_path, **arguments), 1, shuffle=False).fingerprint

    same = told()
    assert told() == same
    others = [told(**change) for change in changes]
    assert len({same, *others}) == 1 + len(changes)
    if file is None:
        return
    path = tmp_path / file
    content, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    assert told() == same
    os.utime(path, ns=(times[0], times[1] + 1))  # replaced by one of the same size, a nanosecond later
    touched = told()
    path.write_bytes(content + b"0")  # of the same time, and longer
    os.utime(path, ns=times)
    longer = told()
    path.unlink()
    assert len({same, touched, longer, told()}) == 4
    path.write_bytes(content)
    os.utime(path, ns=times)
    assert told() == same


@pytest.mark.parametrize("kind, content", [(VideoDataset, {"videos"}), (AvaDataset, {"frames", "annotations", "reference"})])
def test_no_argument_of_a_data_set_is_left_out_of_the_cases(kind, content):
    """A new argument has a case above, so that its fingerprint cannot forget it; caches have tests of theirs."""
    parameters = [parameter for name, parameter in inspect.signature(kind).parameters.items() if name not in content]
    arguments = set()
    for parameter in parameters:
        is_group = dataclasses.is_dataclass(parameter.annotation)
        arguments |= {field.name for field in dataclasses.fields(parameter.annotation)} if is_group else {parameter.name}
    assert {"num_frames", "flip", "crop_size", "seed"} <= arguments
    assert arguments <= {name for cut in CUTS for name in cut} | {"backend", "cache"}


def test_fingerprints_change_with_the_order_and_the_batches(tmp_path):
    data = videos_of(tmp_path)
    loaders = [dict(shuffle=False), dict(shuffle=False, indices=[1, 0]), dict(shuffle=True), dict(shuffle=True, seed=1)]
    told = {clip_loader(data, 1, **arguments).fingerprint for arguments in loaders}
    assert len(told) == 4 and clip_loader(data, 2, shuffle=False).fingerprint not in told


def test_fingerprints_are_the_same_in_every_process(tmp_path):
    program = "import sys; from pathlib import Path; from test_dataset import CASES\n"
    program += "for make, _, _ in CASES.values(): print(make(Path(sys.argv[1])).fingerprint())"
    ours = []
    for make, _, _ in CASES.values():
        ours.append(make(tmp_path).fingerprint())
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "tests/data/datasets")))
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "7"}
    words = [sys.executable, "-c", program, str(tmp_path)]
    assert subprocess.run(words, capture_output=True, text=True, env=environment, check=True).stdout.split() == ours


# ---- Data sets of others ---------------------------------------------------------------------------------------------------


class Plain(torch.utils.data.Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, key):
        return Sample(torch.zeros(1, 3, 1, 4, 4, dtype=torch.uint8), 0, key[1])


def test_a_data_set_that_states_no_fingerprint_is_refused():
    class Silent(ClipDataset):
        pass

    with pytest.raises(TypeError, match="Plain is no data set of clips: derive it from mutual3d.data.datasets.dataset.ClipDataset"):
        clip_loader(Plain(), 1, shuffle=False)
    with pytest.raises(TypeError, match=r"Silent does not say when its content changes: write fingerprint\(self\) -> str"):
        clip_loader(Silent(), 1, shuffle=False)
    with pytest.raises(TypeError, match="Plain does not say when .* mutual3d.data.datasets.images.ImageSet and write fingerprint"):
        ImageDataset(Plain(), crop_size=8).fingerprint()
    with pytest.raises(TypeError, match="str is no .*ListedVideo: write its methods open, label_of, content and"):
        video_dataset(["a.mp4"], **CLIP)


class Broken(ClipDataset):
    def __init__(self, error=None):
        self.error = error

    def __len__(self):
        return 1

    def __getitem__(self, key):
        raise self.error

    def fingerprint(self):
        return fingerprint()


@pytest.mark.parametrize(
    "error, words",
    [
        (MemoryError(), "MemoryError (in test_dataset.py, line "),
        (ValueError("two\nlines"), "ValueError: two lines (in "),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), "UnicodeDecodeError: "),
        (RecursionError("deep"), "RecursionError: deep"),
    ],
)
def test_whatever_fails_is_a_bad_video_with_its_cause(error, words):
    bad = read_sample(Broken(error), 0, 0)
    assert isinstance(bad, BadVideo) and bad[:2] == (0, "sample 0") and bad.cause.startswith(words)


def test_foreign_errors_of_every_data_set_are_bad_videos_with_their_paths(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise MemoryError

    names = {"videos": str(tmp_path / "0.mp4"), "image files": str(tmp_path / "0.png"), "keyframes": "video 'wide', second 901"}
    sets = {kind: CASES[kind][0](tmp_path) for kind in names}
    monkeypatch.setattr("mutual3d.data.datasets.kinetics.open_video", fail)
    monkeypatch.setattr("mutual3d.data.datasets.images.read_image", fail)
    monkeypatch.setattr("mutual3d.data.video.frame_list_reader.FrameListReader.frames", fail)
    for kind, data in sets.items():
        bad = read_sample(data, 0, 0)
        assert bad.path == names[kind] and bad.cause.startswith("MemoryError")


# ---- Looking at files ------------------------------------------------------------------------------------------------------


def test_files_are_looked_at_in_order_by_one_thread_or_many(tmp_path, monkeypatch):
    paths = [str(tmp_path / str(i)) for i in range(30)]
    for i, path in enumerate(paths):
        if i % 7:
            (tmp_path / str(i)).write_bytes(b"x" * i)
    monkeypatch.setattr(dataset_module, "_CHUNK", 4)
    quick = stat_files([*paths, "a\0b"])
    assert quick[:, 0].tolist() == [i if i % 7 else -1 for i in range(30)] + [-1] and quick[1, 1] == os.stat(paths[1]).st_mtime_ns
    monkeypatch.setattr(dataset_module, "_SLOW_SECONDS", 0.0)
    assert np.array_equal(quick[:30], stat_files(paths)) and stat_files([]).shape == (0, 2)


def test_many_threads_look_at_slow_files(monkeypatch):
    monkeypatch.setattr(dataset_module, "_CHUNK", 2)
    monkeypatch.setattr(dataset_module, "state_of", lambda path: time.sleep(0.02) or (len(path), 0))
    start = time.monotonic()
    assert len(stat_files(["x"] * 100)) == 100
    assert time.monotonic() - start < 1
