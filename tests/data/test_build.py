"""From config keys to loaders."""

import collections
from pathlib import Path

import pytest
import torch
from fvcore.common.config import CfgNode
from videos import moving_frames, write_video

from mutual3d.data.build import build_calibration_loader, build_loader, evenly_spread, find_class_names, unused_classes
from mutual3d.data.prepare.demo_nyudv2 import make_demo_nyudv2
from mutual3d.pipeline import load_config


@pytest.fixture
def cfg(tmp_path):
    rows = [f"{write_video(tmp_path / f'{i}.mp4', moving_frames(24), gop=8).name} {i % 3}" for i in range(8)]
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.csv").write_text("\n".join(rows))
    return CfgNode(
        {
            "DATA": {
                "PATH_TO_DATA_DIR": str(tmp_path),
                "PATH_PREFIX": "",
                "CLASS_NAMES_PATH": "",
                "PATH_LABEL_SEPARATOR": " ",
                "NUM_FRAMES": 4,
                "SAMPLING_RATE": 2,
                "TARGET_FPS": 30,
                "TRAIN_JITTER_SCALES": [32, 40],
                "TRAIN_CROP_SIZE": 32,
                "TEST_CROP_SIZE": 40,
                "RANDOM_FLIP": True,
                "INV_UNIFORM_SAMPLE": False,
                "USE_OFFSET_SAMPLING": False,
                "DECODING_BACKEND": "torchvision",
                "TOLERATE_SHORT": False,
                "CACHE": "",
            },
            "AUG": {"ENABLE": False},
            "TEST": {"NUM_ENSEMBLE_VIEWS": 2, "NUM_SPATIAL_CROPS": 3, "BATCH_SIZE": 4},
            "TRAIN": {"BATCH_SIZE": 4, "DATASET": "kinetics"},
            "DATA_LOADER": {"NUM_WORKERS": 0, "PIN_MEMORY": True, "TIMEOUT": 300.0},
            "MODEL": {"NUM_CLASSES": 3},
            "RNG_SEED": 0,
            "NUM_GPUS": 0,
        }
    )


@pytest.mark.parametrize(
    "mode, shape",
    [
        ("train", (4, 1, 3, 4, 32, 32)),
        ("single_view", (4, 1, 3, 4, 40, 40)),
        ("multi_view", (1, 6, 3, 4, 40, 40)),
        ("train_augmentation_fixed", (4, 1, 3, 4, 32, 32)),
    ],
)
def test_modes(cfg, mode, shape):
    loader = build_loader(cfg, "val", mode)
    batches = list(loader.batches())
    assert len(batches) == len(loader) == 8 // shape[0] and batches[0].clips_BVCTHW.shape == shape
    assert (batches[0].indices.tolist() == [0, 1, 2, 3][: shape[0]]) == (mode != "train")


def test_batch_size_is_shared_by_the_ranks(cfg):
    assert len(next(build_loader(cfg, "train", "train", rank=1, world_size=2).batches()).labels) == 2
    with pytest.raises(ValueError, match="TRAIN.BATCH_SIZE is 4.*3 processes"):
        build_loader(cfg, "train", "train", world_size=3)
    with pytest.raises(ValueError, match="TEST.BATCH_SIZE is 4.*3 processes"):
        build_loader(cfg, "test", "multi_view", world_size=3)


@pytest.mark.parametrize("transform, size", [("train", 32), ("test", 40)])
def test_calibration_clips_are_the_same_every_time(cfg, transform, size):
    cfg.CALIBRATION = CfgNode({"TRANSFORM": transform, "SPLIT": "train", "NUM_CLIPS": 4, "BATCH_SIZE": 4})
    (first,), (again,) = (list(build_calibration_loader(cfg).batches()) for _ in range(2))
    assert torch.equal(first.clips_BVCTHW, again.clips_BVCTHW) and first.clips_BVCTHW.shape[-1] == size
    assert sorted(first.indices.tolist()) == [0, 2, 4, 6]


@pytest.mark.parametrize("transform", ["test", "train"])
def test_calibration_gathers_pictures_of_one_size(tmp_path, transform):
    """Whole pictures of two sizes, mixed in the list: batches are as large as they can be."""
    data = make_demo_nyudv2(tmp_path / "set", num_train=12, num_val=2, num_workers=1)
    words = ["DATA.PATH_TO_DATA_DIR", str(data), "CALIBRATION.TRANSFORM", transform, "CALIBRATION.NUM_CLIPS", "12", "CALIBRATION.BATCH_SIZE", "3"]
    loader = build_calibration_loader(load_config("Demo/NYUDv2", words))
    groups, batches = loader.dataset.groups, [batch.indices.tolist() for batch in loader.batches()]
    assert sorted(sum(batches, [])) == list(range(12))
    if transform == "train":
        assert groups is None and list(map(len, batches)) == [3] * 4
        return
    sizes = collections.Counter(groups)
    assert len(sizes) > 1 and len(batches) == sum(-(-count // 3) for count in sizes.values())
    assert all(len({groups[index] for index in batch}) == 1 for batch in batches)
    assert loader.mean_batch == 12 / len(batches)


def test_calibration_takes_all_videos_where_there_are_no_more(cfg):
    for num_clips in (0, 1000):
        cfg.CALIBRATION = CfgNode({"TRANSFORM": "test", "SPLIT": "train", "NUM_CLIPS": num_clips, "BATCH_SIZE": 3})
        ranks = [build_calibration_loader(cfg, rank=rank, world_size=2) for rank in range(2)]
        served = sum((batch.indices.tolist() for loader in ranks for batch in loader.batches()), [])
        assert sorted(served) == list(range(8))
    # A process that has the last batch alone, or none, does not take that for clips of several sizes.
    assert [build_calibration_loader(cfg, rank=rank, world_size=4).mean_batch for rank in range(4)] == [8 / 3] * 4


def test_several_views_of_the_centre(cfg):
    batch = next(build_loader(cfg, "val", "single_view", num_views=3).batches())
    assert batch.clips_BVCTHW.shape[1] == 3


def test_class_names(cfg):
    cfg.DATA.CLASS_NAMES_PATH = ""
    assert find_class_names(cfg) is None
    names = Path(cfg.DATA.PATH_TO_DATA_DIR) / "classes.txt"
    names.write_text("run\nwalk\nwave\n")
    assert find_class_names(cfg) == ["run", "walk", "wave"]
    names.write_text("run\nwalk\n")
    with pytest.raises(ValueError, match="classes.txt' names 2 classes and MODEL.NUM_CLASSES is 3"):
        find_class_names(cfg)


def test_evenly_spread_positions_are_distinct():
    for length in (1, 7, 100):
        for count in (1, 3, 99, 500):
            places = evenly_spread(length, count)
            assert len(set(places)) == min(length, count) and 0 <= min(places) and max(places) < length


def test_unknown_mode_split_and_label(cfg):
    with pytest.raises(ValueError, match="single_view"):
        build_loader(cfg, "val", "evaluate")
    with pytest.raises(FileNotFoundError, match="validation.csv"):
        build_loader(cfg, "validation", "single_view")
    cfg.MODEL.NUM_CLASSES = 2
    with pytest.raises(ValueError, match="NUM_CLASSES 2"):
        build_loader(cfg, "val", "single_view")


def test_a_forgotten_number_of_classes_is_said_with_the_labels_that_are_there(cfg, tmp_path):
    assert unused_classes(cfg, build_loader(cfg, "train", "train").dataset) == ""
    cfg.MODEL.NUM_CLASSES = 10
    told = unused_classes(cfg, build_loader(cfg, "train", "train").dataset)
    assert "MODEL.NUM_CLASSES is 10" in told and "are 0 to 2" in told and "7 outputs" in told and "set MODEL.NUM_CLASSES 3" in told
    # A list of names says that there are more classes than the list has labels.
    (tmp_path / "classes.txt").write_text("".join(f"class {i}\n" for i in range(10)))
    assert unused_classes(cfg, build_loader(cfg, "train", "train").dataset) == ""
