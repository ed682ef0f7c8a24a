"""How good the timelines of videos are: mean average precision of segments at temporal IoUs, against a list of what is there.

    mutual3d score-timeline events.csv my_run/test.csv --background nothing
    mutual3d score-timeline events.parquet truth.csv --ious 0.5 0.75 0.95 --output score.json

FOUND is the table of `mutual3d scan --events` (or of `mutual3d stream --events --output`). TRUTH is a list as those of training, of rows
`path start end label`, in seconds; labels are numbers or names of classes.txt beside it. Videos are known by their paths.

A segment is right when it overlaps a stretch of its class by the IoU or more and none of a higher confidence had the same one: the protocol
of ActivityNet and THUMOS. --output keeps the average precision of each class at each IoU.

Exit status: 0, or 1 where the two cannot be compared, 2 when the arguments are wrong.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mutual3d.data.datasets.labels import parse_separator
from mutual3d.deploy.scan_table import read_segments
from mutual3d.metrics.segments import IOUS
from mutual3d.pipeline.timelines import SUFFIXES, compare_timelines, read_true_timelines
from mutual3d.utils.command_line import check_output_argument, command_parser, explained, fraction_argument, path_argument
from mutual3d.utils.text import printable

# Videos that are named.
_MOST_TOLD = 3


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; SystemExit, after a line that says why, for one that cannot be."""
    parser = command_parser("score-timeline", __doc__)
    parser.add_argument("found", metavar="FOUND", type=path_argument, help="the table of events, .csv or .parquet")
    parser.add_argument("truth", metavar="TRUTH", type=path_argument, help="a list of rows path start end label")
    parser.add_argument("--ious", nargs="+", type=fraction_argument, default=IOUS, metavar="IOU",
                        help=f"overlaps from which on a segment is right (default {' '.join(map(str, IOUS))})")  # fmt: skip
    parser.add_argument("--background", nargs="+", default=[], metavar="CLASS", help="classes that do not count")
    parser.add_argument("--classes", type=path_argument, metavar="FILE", help="names of the classes, one a line (default: classes.txt beside TRUTH)")
    parser.add_argument("--separator", type=explained(parse_separator), default=" ", help="what stands between the columns of TRUTH (default: a space)")
    parser.add_argument("--output", type=path_argument, help="a .csv or .json with the average precision of each class")
    parsed = parser.parse_args(arguments)
    check_output_argument(parser, "--output", parsed.output, [parsed.found, parsed.truth, parsed.classes])
    if parsed.output and Path(parsed.output).suffix.lower() not in SUFFIXES:
        parser.error(f"--output is '{parsed.output}': give a name that ends in {' or '.join(SUFFIXES)}")
    return parsed


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with these words, by default those of the command line."""
    options = parse(arguments)
    truth = read_true_timelines(options.truth, options.separator, options.classes)
    score = compare_timelines(read_segments(options.found), truth, ious=options.ious, background=options.background)
    print(score.format())
    _tell(score.empty, "are in the list, and no segment in the table: nothing was found in them")
    _tell(score.left_out, "are in the table alone: the list says nothing of them, and they are left out")
    if options.output:
        score.save(options.output)
        print(f"written: {printable(options.output)}")


def _tell(videos: Sequence[str], what: str) -> None:
    """Name videos of which something is to be known, on stderr."""
    if videos:
        listed = ", ".join(map(printable, videos[:_MOST_TOLD])) + (", ..." if len(videos) > _MOST_TOLD else "")
        print(f"{len(videos)} videos {what} ({listed})", file=sys.stderr)
