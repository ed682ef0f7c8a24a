"""Find what is wrong with a data set before training does.

    mutual3d check-data --csv train.csv --output bad.csv
    mutual3d check-data --csv train.csv --format charades --num-classes 157 --path-prefix frames
    mutual3d check-data --csv frame_lists/val.csv --format ava --path-prefix frames \\
        --ground-truth ava_val_v2.2.csv --detected ava_val_predicted_boxes.csv

Prints each bad file or row with its cause and a summary. Exit status: 0 when all is well, 1 when some videos are not
readable or some rows of AVA's annotations are wrong, 2 when the list itself is wrong. Files are decoded in processes of
their own: one that crashes its decoder, or that no decoder ends with, is bad, and the others are checked all the same.
"""

import argparse
import contextlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from mutual3d.data.datasets.charades import FramesVideo, TimedVideo, is_official_csv, read_charades
from mutual3d.data.datasets.check import check_videos, find_contradictions
from mutual3d.data.datasets.dataset import BadVideo
from mutual3d.data.datasets.kinetics import Video, read_video_list, write_table
from mutual3d.data.datasets.lists import user_path
from mutual3d.data.video.decode import BACKENDS
from mutual3d.data.video.frame_list_reader import is_frame_list
from mutual3d.data.workers.pool import WorkerError
from mutual3d.utils.command_line import check_output_argument, command_parser, path_argument, print_error
from mutual3d.utils.text import printable

FORMATS = ("kinetics", "charades", "ava")
_CHARADES_CLASSES = 157


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser("check-data", __doc__)
    parser.add_argument("--csv", required=True, type=path_argument, help="list of videos, or of their frames")
    parser.add_argument("--format", choices=FORMATS, help="default: what the csv's first line looks like")
    parser.add_argument("--path-prefix", type=path_argument, help="folder of the relative paths; default: the csv's own folder")
    parser.add_argument("--separator", default=" ", help="what separates path and label; default: a space")
    parser.add_argument("--num-classes", type=_whole_from(1), help="check that labels are below this number")
    parser.add_argument("--backend", default="pyav", choices=BACKENDS, help="decoder")
    parser.add_argument("--full", action="store_true", help="decode every frame, not only first, middle and last")
    parser.add_argument(
        "--output", type=path_argument,
        help="write what is wrong to this csv (index, path, cause; AVA: place, cause); an apostrophe stands before what a "
        "spreadsheet would take for a formula",
    )
    parser.add_argument(
        "--num-workers", type=_whole_from(0), default=1,
        help="decoding processes beside this one; 0 decodes in this one, which a crash of the decoder ends; default: 1",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=_number_from(0), default=300,
        help="seconds for one video (AVA: one image) until it counts as bad; 0 waits for ever; default: %(default)s",
    )  # fmt: skip
    ava = parser.add_argument_group("AVA")
    ava.add_argument("--ground-truth", nargs="*", type=path_argument, default=[], help="csv files of boxes that people drew")
    ava.add_argument("--detected", nargs="*", type=path_argument, default=[], help="csv files of boxes that a detector found")
    ava.add_argument("--label-map", type=path_argument, help="pbtxt of the evaluated classes")
    ava.add_argument("--excluded", type=path_argument, help="csv of the timestamps that do not count")
    ava.add_argument("--fps", type=_number_from(0, above=True), default=30, help="frames a second; default: %(default)s")
    ava.add_argument("--first-second", type=int, default=900, help="what frame 0 shows; default: %(default)s")
    parsed = parser.parse_args(arguments)
    inputs = [parsed.csv, *parsed.ground_truth, *parsed.detected, parsed.label_map, parsed.excluded]
    check_output_argument(parser, "--output", parsed.output, inputs)
    return parsed


def _whole_from(low: int) -> Callable[[str], int]:
    """A type of argument: a whole number, `low` or more."""

    def whole(text: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", text) or int(text) < low:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, {low} or more")
        return int(text)

    return whole


def _number_from(low: float, above: bool = False) -> Callable[[str], float]:
    """A type of argument: a finite number, `low` or more; with `above` more than `low`."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (low < value if above else low <= value) or value == math.inf:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number {'above' if above else 'of at least'} {low}")
        return value

    return number


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse_arguments(arguments)
    try:
        check_output(args.output)
        form = args.format or guess_format(args)
        return check_ava_set(args) if form == "ava" else check_video_list(args, read_list(args, form))
    except (OSError, ValueError, ImportError, WorkerError) as error:
        print_error(error)
        return 2


def check_output(path: str | None) -> None:
    """OSError, before the hours of checking, where the csv could not be written at their end."""
    if path is not None and Path(path).is_dir():
        raise IsADirectoryError(f"--output '{path}' is a folder: name a csv file in it")
    if path is not None and not Path(path).absolute().parent.is_dir():
        raise FileNotFoundError(f"--output '{path}': there is no folder '{Path(path).parent}'; create it, or name another one")


def guess_format(args: argparse.Namespace) -> str:
    """By the csv's first line; a frame list is AVA's when a file of boxes is named beside it."""
    if args.ground_truth or args.detected or args.label_map or args.excluded:
        return "ava"
    if not user_path(args.csv).is_file():
        return "kinetics"  # whose reader says what is missing; opening a pipe would wait for ever
    return "charades" if is_frame_list(args.csv) or is_official_csv(args.csv) else "kinetics"


def read_list(args: argparse.Namespace, form: str) -> list[Video] | list[TimedVideo] | list[FramesVideo]:
    if form == "kinetics":
        return read_video_list(args.csv, args.path_prefix, args.separator, args.num_classes)
    return read_charades(
        args.csv,
        num_classes=args.num_classes or _CHARADES_CLASSES,
        path_prefix=args.path_prefix,
        separator=args.separator,
    )


def check_video_list(args: argparse.Namespace, videos: Sequence[Video] | Sequence[TimedVideo] | Sequence[FramesVideo]) -> int:
    bad_videos = find_contradictions(videos)
    for bad in bad_videos:
        tell(bad.path, bad.cause)
    checked = check_videos(videos, args.backend, args.num_workers, args.full, args.timeout)
    with table_of(args.output, BadVideo._fields, bad_videos):
        for bad in filter(None, tqdm(checked, total=len(videos), unit="video")):
            bad_videos.append(bad)
            tell(bad.path, bad.cause)
    print(f"{len(videos)} videos checked, {len(bad_videos)} bad")
    return 1 if bad_videos else 0


@contextlib.contextmanager
def table_of(output: str | None, header: Sequence[str], rows: Iterable[Sequence]) -> Iterator[None]:
    """Write a csv of `rows` at the end of the block, of what there is of them when it is interrupted too."""
    try:
        yield
    finally:
        if output:
            write_table(output, header, rows)


def tell(place: str, cause: str) -> None:
    tqdm.write(printable(f"{place}: {cause}"))


def check_ava_set(args: argparse.Namespace) -> int:
    # Imported where it is needed: the other forms do without AVA's code.
    from mutual3d.data.datasets.ava.check import check_ava

    found = check_ava(
        frame_dir=args.path_prefix or Path(args.csv).parent,
        frame_lists=[args.csv],
        ground_truth=args.ground_truth,
        detected=args.detected,
        label_map=args.label_map,
        excluded=args.excluded,
        fps=args.fps,
        first_second=args.first_second,
        full=args.full,
        num_workers=args.num_workers,
        timeout=args.timeout,
        **({"num_classes": args.num_classes} if args.num_classes else {}),
    )
    problems = []
    with table_of(args.output, ("place", "cause"), problems):
        for place, cause in found:
            problems.append((place, cause))
            tell(place, cause)
    print(printable(f"'{args.csv}' checked, {len(problems)} problems"))
    return 1 if problems else 0
