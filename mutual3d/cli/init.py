"""From a folder of class folders, or a list, to everything that `mutual3d run` needs.

    mutual3d init my_videos/ --out my_run
    mutual3d run --cfg my_run/config.yaml

It writes train.csv, val.csv and test.csv, classes.txt and config.yaml, whose sizes, frames, batch, rate and epochs fit the
videos, this machine and the minutes that the run may take. To see what to write for --group: in a folder of
walk/anna_1.mp4 and run/anna_2.mp4, --group '([a-z]+)_[0-9]+.mp4' keeps each person's videos in one list.
"""

import argparse
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mutual3d.data.prepare.class_folders import (
    LabelledVideos,
    groups_of,
    missing_classes,
    read_labelled_videos,
    split_videos,
    with_background,
    write_split_lists,
)  # fmt: skip
from mutual3d.data.video.stills import has_image_name
from mutual3d.pipeline import load_config
from mutual3d.pipeline.recipe import CHOICES, VideoCounts, describe_recipe, fit_recipe, network_of_checkpoint
from mutual3d.pipeline.survey import Survey, survey_videos
from mutual3d.utils import distributed
from mutual3d.utils.command_line import command_parser, path_argument, positive_argument
from mutual3d.utils.files import atomic_write, ensure_directory
from mutual3d.utils.text import printable

# Below this, one video of the validation set is more than two points of accuracy.
_FEW_VIDEOS = 50
# Above this, decoding costs more than a small network, and small copies pay within the first epochs.
_LARGE_SHORT_SIDE = 480
# To 256 pixels of the short side, whichever it is.
SMALL_COPY = """ffmpeg -i IN.mp4 -vf "scale='if(gt(iw,ih),-2,256)':'if(gt(iw,ih),256,-2)'" -an OUT.mp4"""
_WRITTEN = ("config.yaml", "train.csv", "val.csv", "test.csv", "classes.txt")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; SystemExit, after a line that says why, for one that cannot be."""
    parser = command_parser("init", __doc__)
    parser.add_argument("videos", type=path_argument, help="a folder with a folder of videos for each class, or a list `path label` or `path start end label`")
    parser.add_argument("--out", required=True, type=path_argument, help="folder for lists, config, and what the run writes")
    parser.add_argument("--minutes", type=positive_argument, default=20.0, help="how long the run may take (default: 20)")
    parser.add_argument("--group", metavar="REGEX",
                        help="videos in whose paths this matches the same text (its first group) share a split: a person, a source")  # fmt: skip
    parser.add_argument("--background", metavar="CLASS", help="name of a class for what lies between the stretches of a list")
    parser.add_argument("--seed", type=_seed, default=0, help="seed of the split (default: 0)")
    parser.add_argument("--separator", default=" ", help="what stands between path and label, where VIDEOS is a list (default: a space)")
    parser.add_argument("--weights", type=path_argument, help="start from the network in a checkpoint or adaptive.pyth, an X3D, whatever its classes are")
    parser.add_argument("--cpu", action="store_true", help="plan for the CPU even where there is a GPU")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with these words, by default those of the command line."""
    options = parse(arguments)
    output = ensure_directory(options.out)
    config = output / "config.yaml"
    _check_output(output)
    choices = CHOICES if options.weights is None else (network_of_checkpoint(options.weights),)
    videos = _read_videos(options.videos, options.separator)
    if options.background:
        videos = with_background(videos, options.background)
    splits = split_videos(videos.labels, groups_of(videos, options.group), options.seed)
    survey = survey_videos(videos.paths, options.seed, videos.seconds)
    device = distributed.choose_device(0 if options.cpu else 1)
    counts = VideoCounts(len(splits["train"]), len(splits["val"]), len(splits["test"]), classes=len(videos.classes))
    recipe = fit_recipe(
        survey, videos=counts, minutes=options.minutes, device=device, num_workers=_workers(device.type), choices=choices
    )
    text = describe_recipe(
        recipe, survey, data=str(output.absolute()), output=str(output.absolute() / "out"), num_classes=counts.classes,
        num_train=counts.train, weights=options.weights and str(Path(options.weights).expanduser().absolute()),
    )  # fmt: skip
    write_split_lists(output, videos, splits)
    with atomic_write(config) as temporary:
        temporary.write_text(text, encoding="utf-8")
    load_config(config)
    _tell(videos, splits, survey)
    print(
        f"{config}: X3D for {recipe.network.num_frames} frames of {recipe.network.crop} pixels, {recipe.max_epoch} epochs, about "
        f"{recipe.seconds / 60:.1f} minutes with calibration, grid and test on {device}\nnow: mutual3d run --cfg {shlex.quote(str(config))}"
    )


def _seed(text: str) -> int:
    """The type of --seed: what generators of random numbers take."""
    if not (text.isascii() and text.isdigit() and len(text) < 11 and int(text) < 2**32):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {2**32 - 1}")
    return int(text)


def _check_output(output: Path) -> None:
    """ValueError where the lists or the run would mix with another run's."""
    for name in _WRITTEN:
        if (output / name).exists():
            raise ValueError(
                f"'{output / name}' is there: choose another --out, or delete what an earlier init left ({', '.join(_WRITTEN)}) to "
                "plan anew"
            )
    ran = (output / "stdout.log", output / "out" / "stdout.log", output / "out" / "checkpoints")
    found = next((path for path in ran if path.exists()), None)
    if found is not None:
        raise ValueError(f"'{found.parent}' holds another run, which this one would go on with: choose another --out")


def _read_videos(source: str, separator: str) -> LabelledVideos:
    """As `read_labelled_videos`; of a folder of images it says what to do with them."""
    try:
        return read_labelled_videos(source, separator)
    except (ValueError, OSError) as error:
        image = next(filter(has_image_name, Path(source).rglob("*")), None) if Path(source).is_dir() else None
        if image is None or "there are no videos" not in str(error):
            raise
        raise ValueError(
            f"'{source}' holds images, such as '{image.name}', and no videos, which init plans for: networks of images train with "
            "the configs CIFAR/..., ImageNet/... and Methods/... (mutual3d --configs lists them)"
        ) from None


def _workers(device: str) -> int:
    """Two cores have none to spare for a worker; beside a GPU they are what feeds it."""
    cores = os.cpu_count() or 1
    return min(8, cores) if device == "cuda" else max(0, min(4, cores - 2))


def _tell(videos: LabelledVideos, splits: dict[str, list[int]], survey: Survey) -> None:
    for bad in survey.bad:
        print(f"cannot read {printable(bad.path)}: {printable(bad.cause)}")
    counts = Counter(videos.labels)
    print(
        f"{len(videos.paths)} videos of {len(videos.classes)} classes ({min(counts.values())} to {max(counts.values())} each): "
        + ", ".join(f"{split} {len(positions)}" for split, positions in splits.items())
    )
    for split, names in missing_classes(videos, splits).items():
        print(f"{split} has no video of {', '.join(map(printable, names[:5]))}{' ...' if len(names) > 5 else ''}: too few videos")
    if len(splits["val"]) < _FEW_VIDEOS:
        count = len(splits["val"])
        print(f"val is a coarse ruler: one of its {count} videos is {100 / count:.1f} points of accuracy")
    if survey.short_side > _LARGE_SHORT_SIDE:
        print(
            f"the videos are large to decode (short side {survey.short_side}): small copies make every epoch faster, for each "
            "video: " + SMALL_COPY
        )
