"""Extract the frames of videos to JPEG files, and list them.

    python datasets/extract_frames.py --videos /data/charades/videos --output /data/charades/frames --fps 24

The same command goes on where a killed one stopped. Exit status: 0 when every video was extracted, 1 when some are
unreadable (they are named), 2 when the arguments are wrong.
"""

import argparse
import sys
from pathlib import Path

from mutual3d.data.datasets.lists import existing_file, read_table
from mutual3d.data.prepare.extraction import PATIENCE, Layout, extract_frames, list_videos, write_frame_list
from mutual3d.data.workers.pool import WorkerError
from mutual3d.utils.command_line import (
    check_output_argument,
    count_argument,
    path_argument,
    positive_argument,
    print_error,
    run_command,
)
from mutual3d.utils.files import ensure_directory, read_json
from mutual3d.utils.text import printable

_HEADERS = ("id", "video", "video_id", "original_vido_id", "original_video_id")


def main(arguments=None):
    args = parse_arguments(arguments)
    layout = Layout(args.fps, args.start, args.end, args.first_number, args.pattern, args.quality)
    try:
        if args.frame_list:
            check_writable(Path(args.frame_list))
        videos = list_videos(args.videos)
        if args.only:
            videos = select_videos(videos, args.only)
        counts, bad = extract_frames(videos, args.output, layout, args.num_workers, args.timeout)
        if args.frame_list:
            write_frame_list(args.frame_list, counts, layout)
    except (ValueError, OSError, WorkerError) as error:
        print_error(error)
        return 2
    for error in bad:
        print(printable(error), file=sys.stderr)
    print(f"{printable(args.output)}: {sum(counts.values())} frames of {len(counts)} videos, {len(bad)} videos unreadable")
    return 1 if bad else 0


def check_writable(path: Path) -> None:
    """Raise OSError, before hours of work, where the list of frames could not be written after them."""
    if path.is_dir():
        raise IsADirectoryError(f"--frame-list '{path}' is a directory: name a file in it")
    ensure_directory(path.parent)


def select_videos(videos, list_path):
    """Those whose names stand in the first column of a file; names without a video are told on stderr."""
    names = dict.fromkeys(Path(name).stem for name in read_names(list_path))
    found = [video for video in videos if video.stem in names]
    missing = list(names.keys() - {video.stem for video in found})
    if missing:
        print(f"{len(missing)} names of '{list_path}' have no video, e.g. '{min(missing)}'", file=sys.stderr)
    if not found:
        raise ValueError(f"no name in the first column of '{list_path}' is that of a video, e.g. '{videos[0].stem}'")
    return found


def read_names(list_path):
    """The first column of a csv, or the `id` of each entry of a json list, as Something-Something v2 has it."""
    list_path = existing_file(list_path, "list of names", "write the name of a video, or its file, in the first column of each row")
    if list_path.suffix == ".json":
        content = read_json(list_path)
        if not isinstance(content, list) or not all(isinstance(entry, dict) and "id" in entry for entry in content):
            raise ValueError(f"'{list_path}' is no list of videos: each entry must be a dict with an 'id'")
        return [str(entry["id"]) for entry in content]
    return [row[0] for _, row in read_table(list_path, spanning=True) if row[0].strip() and row[0] not in _HEADERS]


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", required=True, type=path_argument, help="folder of the videos")
    parser.add_argument("--output", required=True, type=path_argument, help="folder of the frames")
    parser.add_argument("--fps", type=float, required=True, help="frames a second: 30 for AVA, 24 for Charades")
    parser.add_argument("--start", type=float, default=0.0, help="second of the first frame; AVA: 900")
    parser.add_argument("--end", type=float, help="second to stop before; AVA: 1800; default: the video's end")
    parser.add_argument("--first-number", type=int, default=0, choices=(0, 1), help="of the first frame in file names")
    parser.add_argument("--pattern", default=Layout._field_defaults["pattern"], help="file names; default: %(default)s")
    parser.add_argument("--quality", type=int, default=95, help="of the JPEGs, 1 to 100; default: %(default)s")
    parser.add_argument("--only", type=path_argument, help="extract the videos named in the first column of this file, or as id in a json list, alone")
    parser.add_argument("--frame-list", type=path_argument,
                        help="write a csv of the frames here, in AVA's form, paths relative to --output")  # fmt: skip
    parser.add_argument("--num-workers", type=count_argument, help="processes; default: one a core")
    parser.add_argument(
        "--timeout", type=positive_argument, default=PATIENCE,
        help="seconds without a new frame after which a video is given up; default: %(default)g",
    )  # fmt: skip
    parsed = parser.parse_args(arguments)
    check_output_argument(parser, "--frame-list", parsed.frame_list, [parsed.only])
    return parsed


if __name__ == "__main__":
    run_command(main)
