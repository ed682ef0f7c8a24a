"""One configuration of a deployed model as a file for ONNX Runtime or OpenVINO. Needs `pip install -e .[export]`.

    mutual3d export out/adaptive.pyth --gflops 2 --format onnx
    mutual3d export out/adaptive.pyth --config 0.8-160-9 --format openvino --output edge/net.xml
    mutual3d export out/adaptive.pyth --latency-ms 5 --format openvino --int8 --clips my_videos
    mutual3d export out/adaptive.pyth --front --output edge

The file takes the uint8 clip as it is cut from a video, as many at a time as you like, and gives probabilities; how frames are
chosen and cut is in its metadata, and in a program of twenty lines beside it that runs it without this project. It is run on a
random clip beside PyTorch before it is kept. --int8 (`pip install -e .[int8]`) chooses ranges by your own clips.

--front writes the whole Pareto front into a folder: a small .onnx file for each configuration, one file of weights that all of them read, and
hold_deadline.py, forty lines that answer a video within a deadline with them. ONNX Runtime and OpenVINO open them.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from mutual3d.cli.budgets import add_budgets, budgets_of, check_choice
from mutual3d.cost.axes import COSTS
from mutual3d.data.video.reader import VideoError
from mutual3d.deploy import AdaptiveModel
from mutual3d.deploy.adaptive_model import load
from mutual3d.deploy.export import Export, export_network, formats
from mutual3d.deploy.front import PROGRAM, FrontExport, export_front
from mutual3d.deploy.gives import check_gives_classes
from mutual3d.deploy.predict import read_clips
from mutual3d.deploy.sources import list_inputs
from mutual3d.sampling import Configuration
from mutual3d.utils.command_line import command_parser, count_argument, path_argument, positive_argument
from mutual3d.utils.text import printable

# Ranges of numbers need no more.
_MOST_CLIPS = 300


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; SystemExit, after a line that says why, for one that cannot be."""
    parser = command_parser("export", __doc__)
    parser.add_argument("source", nargs="?", metavar="MODEL", type=path_argument, help="the adaptive.pyth of a run")
    parser.add_argument("--model", type=path_argument, help="another way to name MODEL")
    parser.add_argument("--config", help="width-pixels-frames, for example 0.8-160-9; or a budget:")
    add_budgets(parser, positive_argument)
    parser.add_argument("--front", action="store_true", help="or all of the Pareto front, in a folder, with the weights stored once")
    parser.add_argument("--device-key", help="whose latency: a key of the table, such as cpu-fp32-b1-t2")
    words = [word for word, runtime in formats().items() if not runtime.needs_clips]
    parser.add_argument("--format", choices=words, default="onnx", help="the format to write (default onnx)")
    parser.add_argument("--int8", action="store_true", help="write the network in int8; it needs --format openvino and --clips")
    parser.add_argument("--clips", nargs="+", default=[], type=path_argument, metavar="SOURCE",
                        help=f"videos, folders and patterns by which --int8 chooses its ranges: some tens, at most {_MOST_CLIPS} are read")  # fmt: skip
    parser.add_argument("--output", type=path_argument, help="the file to write (default: the configuration, beside the model); of --front the folder")
    parser.add_argument(
        "--frame", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"),
        help="height and width of the whole frames that a model of boxes sees, before they are shrunk (default: a square)",
    )  # fmt: skip
    parser.add_argument("--repeats", type=count_argument, default=10, help="forwards to time (default 10)")
    parsed = parser.parse_args(arguments)
    if (parsed.source is None) == (parsed.model is None):
        parser.error("name one adaptive.pyth: MODEL, or --model MODEL")
    parsed.model = parsed.model or parsed.source
    budgets = budgets_of(parsed)
    if parsed.front:
        _check_front(parser, parsed, bool(budgets))
        return parsed
    if bool(parsed.config) == bool(budgets):
        options = ", ".join(words.option for words in COSTS.values())
        parser.error(f"give --config or a budget ({options}), {'not both' if budgets else 'one of them is required'}")
    check_choice(parser, parsed)
    if parsed.int8 and (parsed.format != "openvino" or not parsed.clips):
        parser.error("--int8 is for --format openvino, and needs --clips: some of the videos that the model is for")
    if parsed.clips and not parsed.int8:
        parser.error("--clips are what --int8 chooses its ranges by: give that too")
    return parsed


def _check_front(parser: argparse.ArgumentParser, parsed: argparse.Namespace, has_budget: bool) -> None:
    """End the program, status 2, for options that mean nothing for a whole front."""
    wrong = {
        "--config": parsed.config, "a budget": has_budget, "--int8": parsed.int8, "--clips": parsed.clips, "--frame": parsed.frame,
        "--format": parsed.format != "onnx",
    }  # fmt: skip
    if given := [name for name, value in wrong.items() if value]:
        parser.error(f"--front writes all of the front as ONNX files: leave {', '.join(given)} out")
    if parsed.output is not None and Path(parsed.output).is_file():
        parser.error(f"--output is '{parsed.output}', which is a file: name a folder")


def read_all_clips(model: AdaptiveModel, sources: Sequence[str]) -> list[torch.Tensor]:
    """A clip of each video that `sources` (files, folders, patterns) name, uint8 as the model is called with.

    Those that cannot be read are named and left out.
    """
    clips = []
    for path in list_inputs(sources)[:_MOST_CLIPS]:
        try:
            clip = read_clips(path, model.preprocessing).clips_VCTHW
            clips.append(clip[:, :, 0] if model.network.takes == "images" else clip)
        except VideoError as error:
            print(f"left out: {printable(error.path)}: {printable(error.cause)}")
    return clips


def describe(configuration: Configuration, export: Export) -> str:
    """What was written, in words: files, inputs, difference from PyTorch, and times."""
    shapes = ", ".join(f"{name} {' x '.join(map(str, shape))}" for name, shape in export.inputs.items())
    times = ", ".join(f"{runtime} {ms:.3g} ms" for runtime, ms in export.latency_ms.items())
    lines = [
        f"configuration {configuration}: {' and '.join(map(str, export.files))}, {export.num_bytes / 1e6:.2f} MB",
        f"  takes {shapes} (clips: uint8 pixels), and any batch; gives probabilities",
        f"  they differ from PyTorch's by up to {export.difference:.2g}",
        f"  {times} (one clip, {torch.get_num_threads()} CPU threads)",
    ]
    return "\n".join(lines + [f"  to run it without this project: python {export.example} VIDEO"] * (export.example is not None))


def describe_front(export: FrontExport) -> str:
    """What was written, in words."""
    configurations = list(export.differences)
    return "\n".join([
        f"{len(configurations)} configurations, {configurations[0]} to {configurations[-1]}: {export.folder}, {export.num_bytes / 1e6:.2f} MB, "
        f"of which {export.weight_bytes / 1e6:.2f} MB are the weights that they share",
        f"  they differ from PyTorch's by up to {max(export.differences.values()):.2g}",
        f"  to hold a deadline with them, without this project: python {export.folder / PROGRAM} VIDEO MILLISECONDS",
    ])  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with these words, by default those of the command line."""
    options = parse(arguments)
    model = load(options.model)
    check_gives_classes(model, "exporting")
    if options.front:
        formats()["onnx"].require()
        print(describe_front(export_front(model, options.output or Path(options.model).parent / "front")))
        return
    budgets = budgets_of(options)
    if budgets:
        model.set_budget(device=options.device_key, source="clip", **budgets)
    configuration = model.active if budgets else model.network.space.check(options.config)
    word = f"{options.format}_int8" if options.int8 else options.format
    output = Path(options.output or Path(options.model).parent / f"{configuration}{formats()[word].suffixes[0]}")
    formats()[word].require()
    clips = read_all_clips(model, options.clips)
    print(f"exporting and checking {configuration}: up to a minute", flush=True)
    export = export_network(model, configuration, output, word, frame=options.frame, clips=clips, repeats=options.repeats)
    print(describe(configuration, export))
