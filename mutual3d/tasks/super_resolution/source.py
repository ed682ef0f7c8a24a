"""The data sets of super-resolution by their words of TRAIN.DATASET, and what a config needs for them (datasets/DIV2K.md)."""

import functools
from collections.abc import Callable

from fvcore.common.config import CfgNode

from mutual3d.data.datasets.check import Checked, CheckFlag, CheckOptions, ListToCheck, SetCheck, check_samples
from mutual3d.data.datasets.lists import user_path
from mutual3d.data.sources.facts import ONE_VIEW, Mistakes, Source, Task, is_training, read_once, register_dataset
from mutual3d.models.wdsr import SuperResolutionNetwork

from .dataset import SuperResolutionDataset
from .pairs import ImagePairs, div2k_folders, open_div2k
from .photographs import open_photographs

# From a config and the name of a split to its pairs.
FindPairs = Callable[[CfgNode, str], ImagePairs]

# A label is an image: nothing that would change the small one alone. Scores are images of many sizes, which no file of scores holds.
LARGER_IMAGE = Task(
    "psnr", ("l1", "l2"),
    {
        "MODEL.NUM_CLASSES": 3, "MODEL.HEAD_ACT": "none", "DATA.MULTI_LABEL": False, "DETECTION.ENABLE": False, "AUG.ENABLE": False,
        "MIXUP.ENABLE": False, "DATA.REVERSE_INPUT_CHANNEL": False, "DATA.NUM_FRAMES": 1, "TEST.SAVE_RESULTS_PATH": "", **ONE_VIEW,
    },
    gives=SuperResolutionNetwork.gives,
)  # fmt: skip


def _div2k(cfg: CfgNode, split: str) -> ImagePairs:
    arguments = (str(user_path(cfg.DATA.PATH_TO_DATA_DIR)), split, cfg.SUPER_RESOLUTION.SCALE)
    return read_once(div2k_folders(*arguments), functools.partial(open_div2k, *arguments))


def _photographs(cfg: CfgNode, split: str) -> ImagePairs:
    return open_photographs(split, cfg.SUPER_RESOLUTION.SCALE)


def _open(find: FindPairs, cfg: CfgNode, split: str, mode: str, num_views: int) -> SuperResolutionDataset:
    return SuperResolutionDataset(
        find(cfg, split), crop_size=cfg.DATA.TRAIN_CROP_SIZE, training=is_training(mode), flip=cfg.DATA.RANDOM_FLIP,
        patches_per_image=cfg.SUPER_RESOLUTION.PATCHES_PER_IMAGE, seed=cfg.RNG_SEED,
    )  # fmt: skip


def _check_config(cfg: CfgNode) -> Mistakes:
    """What would change the small image and not the large one."""
    if cfg.MUTUAL.ENABLE and len(cfg.MUTUAL.SPATIAL_SIZES) > 1:
        yield (
            ("MUTUAL.SPATIAL_SIZES", "TRAIN.DATASET"),
            f"MUTUAL.SPATIAL_SIZES is {cfg.MUTUAL.SPATIAL_SIZES}: with TRAIN.DATASET {cfg.TRAIN.DATASET} it must have one size, that of "
            "DATA.TRAIN_CROP_SIZE: an image that was shrunk is another question",
        )


def _no_names(cfg: CfgNode) -> None:
    """Images have no classes."""
    return None


def _check(given: ListToCheck, how: CheckOptions) -> Checked:
    """`given.csv`: the folder of the set and the split, as in /data/DIV2K/train."""
    path = user_path(given.csv)
    return check_samples(SuperResolutionDataset(open_div2k(path.parent, path.name, given.own["scale"]), crop_size=1), how)


_SCALE = CheckFlag("scale", "how many times larger the sides of the large images are; default: 2", int, 2)
_SETS: dict[str, tuple[FindPairs, SetCheck | None]] = {
    "div2k": (_div2k, SetCheck(_check, flags=(_SCALE,))),
    "photographs": (_photographs, None),
}
for _word, (_find, _checking) in _SETS.items():
    register_dataset(
        Source(
            functools.partial(_open, _find), LARGER_IMAGE, is_image=True, test_split="val", class_names=_no_names,
            check_config=_check_config, check_files=_checking,
        ),
        _word,
    )  # fmt: skip
