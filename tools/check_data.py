"""Find what is wrong with a data set before training does.

    python tools/check_data.py --csv train.csv --output bad.csv
    python tools/check_data.py --csv train.csv --format charades --num-classes 157 --path-prefix frames
    python tools/check_data.py --csv frame_lists/val.csv --format ava --path-prefix frames \\
        --ground-truth ava_val_v2.2.csv --detected ava_val_predicted_boxes.csv

Prints each bad file or row with its cause and a summary. Exit status: 0 when all is well, 1 when some videos are not
readable or some rows of AVA's annotations are wrong, 2 when the list itself is wrong.
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from mutual3d.data.charades import is_official_csv, read_charades
from mutual3d.data.check import check_videos
from mutual3d.data.decode import BACKENDS
from mutual3d.data.frame_list_reader import is_frame_list
from mutual3d.data.kinetics import read_video_list, write_bad_videos, write_table

FORMATS = ("kinetics", "charades", "ava")
_CHARADES_CLASSES = 157


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", required=True, help="list of videos, or of their frames")
    parser.add_argument("--format", choices=FORMATS, help="default: what the csv's first line looks like")
    parser.add_argument("--path-prefix", default="", help="folder of the relative paths; default: the csv's own folder")
    parser.add_argument("--separator", default=" ", help="what separates path and label; default: a space")
    parser.add_argument("--num-classes", type=int, help="check that labels are below this number")
    parser.add_argument("--backend", default="pyav", choices=BACKENDS, help="decoder")
    parser.add_argument("--full", action="store_true", help="decode every frame, not only first, middle and last")
    parser.add_argument("--output", help="write what is wrong to this csv (index, path, cause; AVA: place, cause)")
    parser.add_argument("--num-workers", type=int, default=0, help="decoding processes beside this one")
    ava = parser.add_argument_group("AVA")
    ava.add_argument("--ground-truth", nargs="*", default=[], help="csv files of boxes that people drew")
    ava.add_argument("--detected", nargs="*", default=[], help="csv files of boxes that a detector found")
    ava.add_argument("--label-map", help="pbtxt of the evaluated classes")
    ava.add_argument("--excluded", help="csv of the timestamps that do not count")
    ava.add_argument("--fps", type=float, default=30, help="frames a second; default: %(default)s")
    ava.add_argument("--first-second", type=int, default=900, help="what frame 0 shows; default: %(default)s")
    return parser.parse_args(arguments)


def main(arguments=None):
    args = parse_arguments(arguments)
    try:
        form = args.format or guess_format(args)
        return check_ava_set(args) if form == "ava" else check_video_list(args, read_list(args, form))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def guess_format(args):
    """By the csv's first line; a frame list is AVA's when a file of boxes is named beside it."""
    if args.ground_truth or args.detected or args.label_map or args.excluded:
        return "ava"
    try:
        return "charades" if is_frame_list(args.csv) or is_official_csv(args.csv) else "kinetics"
    except FileNotFoundError:
        return "kinetics"  # whose reader says what is missing


def read_list(args, form):
    if form == "kinetics":
        return read_video_list(args.csv, args.path_prefix, args.separator, args.num_classes)
    return read_charades(
        args.csv,
        num_classes=args.num_classes or _CHARADES_CLASSES,
        path_prefix=args.path_prefix,
        separator=args.separator,
    )


def check_video_list(args, videos):
    bad_videos = []
    progress = tqdm(check_videos(videos, args.backend, args.num_workers, args.full), total=len(videos), unit="video")
    for bad in filter(None, progress):
        bad_videos.append(bad)
        tqdm.write(f"{bad.path}: {bad.cause}")
    print(f"{len(videos)} videos checked, {len(bad_videos)} bad")
    if args.output:
        write_bad_videos(args.output, bad_videos)
    return 1 if bad_videos else 0


def check_ava_set(args):
    # Imported where it is needed: the other forms do without AVA's code.
    from mutual3d.data.ava_check import check_ava

    problems = []
    for place, cause in check_ava(
        frame_dir=args.path_prefix or Path(args.csv).parent,
        frame_lists=[args.csv],
        ground_truth=args.ground_truth,
        detected=args.detected,
        label_map=args.label_map,
        excluded=args.excluded,
        fps=args.fps,
        first_second=args.first_second,
        full=args.full,
        **({"num_classes": args.num_classes} if args.num_classes else {}),
    ):
        problems.append((place, cause))
        tqdm.write(f"{place}: {cause}")
    print(f"'{args.csv}' checked, {len(problems)} problems")
    if args.output:
        write_table(args.output, ("place", "cause"), problems)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
