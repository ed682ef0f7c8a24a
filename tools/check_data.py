"""Find the unreadable videos of a list: python tools/check_data.py --csv train.csv --output bad.csv

Prints each bad file with its cause and a summary. Exit status: 0 when all videos are readable, 1 when some are not,
2 when the list itself is wrong.
"""

import argparse
import sys

from tqdm import tqdm

from mutual3d.data.check import check_videos
from mutual3d.data.decode import BACKENDS
from mutual3d.data.kinetics import read_video_list, write_bad_videos


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", required=True, help="list of videos, one row 'path label' each")
    parser.add_argument("--path-prefix", default="", help="folder of the relative paths; default: the csv's own folder")
    parser.add_argument("--separator", default=" ", help="what separates path and label; default: a space")
    parser.add_argument("--num-classes", type=int, help="check that labels are below this number")
    parser.add_argument("--backend", default="pyav", choices=BACKENDS, help="decoder")
    parser.add_argument("--full", action="store_true", help="decode every frame, not only first, middle and last")
    parser.add_argument("--output", help="write the bad videos to this csv (index, path, cause)")
    parser.add_argument("--num-workers", type=int, default=0, help="decoding processes beside this one")
    return parser.parse_args(arguments)


def main(arguments=None):
    args = parse_arguments(arguments)
    try:
        videos = read_video_list(args.csv, args.path_prefix, args.separator, args.num_classes)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    bad_videos = []
    progress = tqdm(check_videos(videos, args.backend, args.num_workers, args.full), total=len(videos), unit="video")
    for bad in filter(None, progress):
        bad_videos.append(bad)
        tqdm.write(f"{bad.path}: {bad.cause}")
    print(f"{len(videos)} videos checked, {len(bad_videos)} bad")
    if args.output:
        write_bad_videos(args.output, bad_videos)
    return 1 if bad_videos else 0


if __name__ == "__main__":
    sys.exit(main())
