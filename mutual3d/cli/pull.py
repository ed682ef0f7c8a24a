"""Take a network that somebody shared: from a folder that `mutual3d push` wrote, or from the Hugging Face hub.

    mutual3d pull networks/walker --output walker.pyth
    mutual3d pull my-name/walker

It is read as every bundle is, which runs nothing that the file may carry, before it is kept, and what it is is printed. Without --output
it is kept as NAME/adaptive.pyth, where another network is not replaced. Taking one from the hub needs `pip install -e .[hub]`;
`mutual3d.load("my-name/walker")` does the same in Python.
"""

import argparse
import filecmp
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from mutual3d.deploy.adaptive_model import AdaptiveModel
from mutual3d.deploy.share import BUNDLE, fetch, find_bundle, is_repository
from mutual3d.utils.command_line import check_output_argument, command_parser, path_argument
from mutual3d.utils.files import atomic_write
from mutual3d.utils.text import printable


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; SystemExit, after a line that says why, for one that cannot be."""
    parser = command_parser("pull", __doc__)
    parser.add_argument("source", metavar="SOURCE", type=path_argument, help="a folder, or ORG/NAME on the hub")
    parser.add_argument("--output", type=path_argument, metavar="FILE", help=f"where to keep it (default: NAME/{BUNDLE})")
    parser.add_argument("--revision", help="a branch, tag or commit of the repository (default: the newest)")
    parsed = parser.parse_args(arguments)
    if parsed.revision and not is_repository(parsed.source):
        parser.error(f"--revision is for a repository of the hub, and '{parsed.source}' is no ORG/NAME")
    folder = Path(parsed.source)
    check_output_argument(parser, "--output", parsed.output, [str(folder / BUNDLE), str(folder)])
    return parsed


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with these words, by default those of the command line."""
    options = parse(arguments)
    path = fetch(options.source, options.revision) if is_repository(options.source) else find_bundle(options.source)
    model = AdaptiveModel.load(path)
    output = Path(options.output or Path(Path(options.source).name) / BUNDLE)
    if output.exists() and os.path.samefile(output, path):
        raise ValueError(f"'{printable(output)}' is the file itself: name another place with --output")
    if options.output is None and output.exists() and not filecmp.cmp(path, output, shallow=False):
        raise ValueError(f"'{printable(output)}' is there already, and is another network: move it away, or name a place with --output, which is replaced")
    with atomic_write(output, path.stat().st_size) as temporary:
        shutil.copyfile(path, temporary)
    print(printable(model))
    print(f"written: {printable(output)}")
