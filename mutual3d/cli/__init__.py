"""The command `mutual3d`: each subcommand is a file here, with `main(arguments)`; nothing is imported before it is asked for."""

import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from mutual3d.utils.command_line import run_command


class Subcommand(NamedTuple):
    """module: in this package. help: what it does, in one line."""

    module: str
    help: str


SUBCOMMANDS = {
    "init": Subcommand("init", "plan a run for your own videos: lists and a config that fit them and this machine"),
    "prepare": Subcommand("prepare", "decode the videos of a small set once, into a cache that every epoch reads"),
    "run": Subcommand("run", "train, calibrate, measure every configuration and test, as a config says"),
    "submit": Subcommand("submit", "send a run to Slurm, which queues it again until it is finished"),
    "bench": Subcommand("bench", "measure how long every configuration takes on this device, in each runtime"),
    "predict": Subcommand("predict", "say what a trained network sees in videos or images, at a budget"),
    "select": Subcommand("select", "name the best configuration within a budget"),
    "scan": Subcommand("scan", "scan an archive of videos into one table, by many processes or machines; resumes"),
    "score-timeline": Subcommand("score_timeline", "compare the timelines of a scan with a list of what is there"),
    "stream": Subcommand("stream", "answer a long video or a camera, several times a second, within a deadline"),
    "serve": Subcommand("serve", "answer predictions over HTTP, at budgets and within deadlines, with a page to look at them"),
    "explain": Subcommand("explain", "show where a network looks in a clip, at two configurations"),
    "compare": Subcommand("compare", "draw several runs in one figure, and say which is best at equal cost"),
    "report": Subcommand("report", "write the page, csv and plots of a finished run again, without its videos"),
    "export": Subcommand("export", "write one configuration, or the front, as ONNX or OpenVINO files"),
    "push": Subcommand("push", "share a trained network with a card of it: a folder, or the Hugging Face hub"),
    "pull": Subcommand("pull", "take a network that somebody shared"),
    "cache": Subcommand("cache", "show or clear the compiled networks that are kept on this machine"),
    "convert": Subcommand("convert", "read weights of PySlowFast, PyTorchVideo and torchvision, and write them"),
    "logits": Subcommand("logits", "write what a trained network says of a list, for another training to learn from"),
    "slim": Subcommand("slim", "search for widths of the layers that lose least accuracy within a budget"),
    "complexity": Subcommand("complexity", "count the parameters and GFLOPs of a config, and what training costs; without data"),
    "check-data": Subcommand("check_data", "name what is wrong with a data set, before training finds it"),
    "demo": Subcommand("demo", "do all of it, in minutes, on videos that it makes itself"),
}

_OPTIONS = ("--help", "--version", "--configs")
_USAGE = """usage: mutual3d COMMAND ...    One video network, trained once, that runs at any budget.

{commands}

Start with mutual3d demo. Then, with a folder that holds a folder of videos for each class:
  mutual3d init my_videos --out my_run && mutual3d run --cfg my_run/config.yaml
mutual3d COMMAND --help explains a command, mutual3d --configs lists the configs by name, mutual3d --version says which this is.
"""


def usage() -> str:
    """The help of `mutual3d` itself: one line for each subcommand."""
    width = max(map(len, SUBCOMMANDS))
    return _USAGE.format(commands="\n".join(f"  {name:<{width}}  {command.help}" for name, command in SUBCOMMANDS.items()))


def main(arguments: Sequence[str] | None = None) -> int | None:
    """Run a subcommand with the words that follow it; returns its exit status. ValueError for an unknown word."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = words[0] if words else "--help"
    if name in ("-h", "--help", "help"):
        print(usage(), end="")
        return 0 if words else 2
    if name == "--version":
        import mutual3d

        print(f"mutual3d {mutual3d.__version__}")
        return 0
    if name == "--configs":
        from mutual3d.config import list_configs

        print("\n".join(list_configs()))
        return 0
    if name not in SUBCOMMANDS:
        nearest = difflib.get_close_matches(name[:100], [*SUBCOMMANDS, *_OPTIONS], n=1, cutoff=0.4)
        hint = f": did you mean `mutual3d {nearest[0]}`?" if nearest else ""
        raise ValueError(f"there is no command '{name}'{hint} (mutual3d --help lists them)")
    # What argparse calls the program in its help.
    sys.argv[0] = f"mutual3d {name}"
    module = importlib.import_module(f"mutual3d.cli.{SUBCOMMANDS[name].module}")
    return module.main(words[1:])


def entry_point(*before: str) -> None:
    """The console script. before: words before those of the command line, for a script that is one subcommand."""
    run_command(lambda: main([*before, *sys.argv[1:]]))
