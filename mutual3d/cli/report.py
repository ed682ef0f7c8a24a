"""The page of a finished run once more, such as by a newer version: report.html, query_table.csv and the plots.

    mutual3d report demo/out

It takes what lies in the directory: adaptive.pyth with its table, what the run kept in report.json, test_results.json where the test
was of this network, and stdout.log. No video is read.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mutual3d.pipeline.page import write_page_without_data
from mutual3d.utils.command_line import command_parser, path_argument
from mutual3d.utils.run_lock import run_lock


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; SystemExit, after a line that says why, for one that cannot be."""
    parser = command_parser("report", __doc__)
    parser.add_argument("output", metavar="OUTPUT_DIR", type=path_argument, help="the directory of a run that has ended")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with these words, by default those of the command line."""
    output = Path(parse(arguments).output)
    if not output.is_dir():
        raise FileNotFoundError(f"there is no directory '{output}': give the OUTPUT_DIR of a run that has ended")
    with run_lock(output):
        print(f"written: {write_page_without_data(output)}")
