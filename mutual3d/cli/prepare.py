"""Decode the videos of a small set once, into one file that every epoch of a run reads in place of them.

    mutual3d prepare --cfg my_run/config.yaml --out my_run/cache
    mutual3d run --cfg my_run/config.yaml DATA.CACHE my_run/cache

    mutual3d prepare --videos videos/ lists/train.csv --out cache --short-side 256

Frames are stored as decoded, which gives the clips of the videos bit for bit, or with --short-side as smaller copies, which take less
of the disk, and are resized once more in training. The size is told before anything is written (--dry-run tells it alone), and
compared with what is free. The same command again goes on where a killed one stopped, adds new videos, and decodes changed ones
again. Exit status: 0 when every video is there, 1 when some are unreadable (they are named), 2 when the arguments are wrong.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mutual3d.data.build import video_files
from mutual3d.data.datasets.dataset import BadVideo
from mutual3d.data.datasets.kinetics import read_video_list, write_bad_videos
from mutual3d.data.prepare.caching import CacheLayout, Prepared, Working, prepare_cache
from mutual3d.data.prepare.extraction import PATIENCE, list_videos
from mutual3d.data.video.decode import CHOICES, VideoOpening
from mutual3d.data.workers.pool import WorkerError
from mutual3d.pipeline import load_config
from mutual3d.utils.command_line import (
    command_parser,
    count_argument,
    parse_with_settings,
    path_argument,
    positive_argument,
    print_error,
)
from mutual3d.utils.run_lock import DirectoryInUseError
from mutual3d.utils.text import printable


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; SystemExit, after a line that says why, for one that cannot be."""
    parser = command_parser("prepare", __doc__)
    parser.add_argument("--videos", nargs="+", default=[], type=path_argument, metavar="SOURCE", help="folders of videos, and lists `path label`")
    parser.add_argument("--cfg", help="a config, by name or path: the videos of its train, val and test lists")
    parser.add_argument("--out", required=True, type=path_argument, help="folder of the cache (DATA.CACHE)")
    parser.add_argument("--short-side", type=count_argument, help="store copies whose shorter side has this many pixels, where it is longer")
    parser.add_argument("--tolerate-short", action="store_true", help="take videos that were cut off as they are (DATA.TOLERATE_SHORT)")
    parser.add_argument("--separator", default=" ", help="what stands between path and label in a list; default: a space")
    parser.add_argument("--path-prefix", type=path_argument, help="folder of a list's relative paths; default: the list's own")
    parser.add_argument("--backend", default="auto", choices=CHOICES, help="decoder; default: auto")
    parser.add_argument("--num-workers", type=count_argument, help="processes; default: one a core")
    parser.add_argument("--timeout", type=positive_argument, default=PATIENCE, help="seconds without a new frame after which a video is given up; default: %(default)g")  # fmt: skip
    parser.add_argument("--bad", type=path_argument, help="write the unreadable videos to this csv (index, path, cause)")
    parser.add_argument("--verify", action="store_true", help="compare all that is there with its sums; what differs is decoded again")
    parser.add_argument("--dry-run", action="store_true", help="tell the size, and write nothing")
    options, settings = parse_with_settings(parser, arguments)
    options.opts = settings
    if bool(options.videos) == bool(options.cfg):
        parser.error("give either --videos, folders or lists, or a config with --cfg")
    if options.opts and not options.cfg:
        parser.error(f"{options.opts[0]} is a setting of a config, and there is no --cfg")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these words, by default those of the command line."""
    options = parse(arguments)
    try:
        layout = CacheLayout(options.short_side, VideoOpening(options.backend, options.tolerate_short))
        done = prepare_cache(
            _find_videos(options), options.out, layout, working=Working(options.num_workers, options.timeout), is_dry=options.dry_run,
            verify=options.verify, tell=_tell,
        )  # fmt: skip
    except (ValueError, OSError, ImportError, WorkerError, DirectoryInUseError) as error:
        print_error(error)
        return 2
    _tell_bad(done, options.bad)
    if not options.dry_run:
        _tell(f"{options.out}: {done.new} videos decoded, {done.kept} were there, {len(done.bad)} unreadable; now: DATA.CACHE {options.out}")
    return 1 if done.bad else 0


def _find_videos(options: argparse.Namespace) -> list[str]:
    if options.cfg:
        return video_files(load_config(options.cfg, ["DATA.CACHE", "", *options.opts]))
    found: list[str] = []
    for source in options.videos:
        if Path(source).is_dir():
            found += map(str, list_videos(source))
        else:
            found += [video.path for video in read_video_list(source, options.path_prefix or "", options.separator)]
    return found


def _tell_bad(done: Prepared, path: str | None) -> None:
    for error in done.bad:
        print(printable(error), file=sys.stderr)
    if path is not None:
        write_bad_videos(path, [BadVideo(index, error.path, error.cause) for index, error in enumerate(done.bad)])


def _tell(text: str) -> None:
    print(printable(text), flush=True)
