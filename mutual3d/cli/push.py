"""Share a trained network: its bundle with a card of what it is worth and costs, in a folder or on the Hugging Face hub.

    mutual3d push out/adaptive.pyth networks/walker --license apache-2.0
    mutual3d push out/adaptive.pyth --hub my-name/walker --license apache-2.0 --about about.txt

The card, README.md, is written from the bundle: how to load it, its classes, the Pareto front with accuracy, GFLOPs, parameters and
latencies, where these numbers come from, and the licence. Beside it are the table as csv and, where safetensors is installed, the weights
alone as model.safetensors; it is told where they are left out. --hub sends it as one commit; that needs `pip install -e .[hub]` and the hub's own login (`hf auth login`).
"""

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path

from mutual3d.deploy.adaptive_model import load
from mutual3d.deploy.share import WEIGHTS, draft_folder, hub, is_repository, model_card, push_folder, write_shared
from mutual3d.utils.command_line import command_parser, path_argument
from mutual3d.utils.files import read_text
from mutual3d.utils.text import printable


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; SystemExit, after a line that says why, for one that cannot be."""
    parser = command_parser("push", __doc__)
    parser.add_argument("model", metavar="MODEL", type=path_argument, help="the adaptive.pyth of a run")
    parser.add_argument("folder", nargs="?", metavar="FOLDER", type=path_argument, help="where to write it")
    parser.add_argument("--hub", metavar="ORG/NAME", help="the repository to send it to, which is made where there is none")
    parser.add_argument("--license", metavar="WORD", help="the hub's word for the licence, such as apache-2.0 (default: the card says that none was named)")
    parser.add_argument("--about", type=path_argument, metavar="FILE", help="a text of your own, in Markdown, for the card")
    parser.add_argument("--title", help="of the card (default: the repository's or the folder's name)")
    parser.add_argument("--private", action="store_true", help="a repository that is made is seen by nobody else")
    parsed = parser.parse_args(arguments)
    if (parsed.folder is None) == (parsed.hub is None):
        parser.error("name a FOLDER to write, or a repository to send it to, --hub ORG/NAME")
    if parsed.hub is not None and not is_repository(parsed.hub):
        parser.error(f"--hub is '{parsed.hub}': give ORG/NAME, as in https://huggingface.co/ORG/NAME")
    if parsed.private and parsed.hub is None:
        parser.error("--private is for a repository: give --hub ORG/NAME")
    return parsed


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with these words, by default those of the command line."""
    options = parse(arguments)
    if options.hub:
        hub("pushing to the hub")  # before anything is read
    model = load(options.model)
    about = read_text(options.about) if options.about else ""
    title = options.title or options.hub or Path(options.folder).resolve().name
    card = model_card(model, title, options.license, about)
    with contextlib.ExitStack() as stack:
        folder = options.folder or stack.enter_context(draft_folder())
        written = write_shared(model, options.model, folder, card)
        if WEIGHTS not in {path.name for path in written}:
            print(f"left out: {WEIGHTS}, which needs safetensors: pip install -e .[hub]")
        if options.hub:
            print(f"sent: {push_folder(folder, options.hub, private=options.private)}")
            return
    print(f"written: {', '.join(printable(path) for path in written)}")
