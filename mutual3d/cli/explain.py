"""Where a network looks: what in a clip speaks for a class, over space and time, at two configurations side by side.

    mutual3d explain out/adaptive.pyth clip.mp4
    mutual3d explain out/adaptive.pyth clip.mp4 --config 0.8-160-9 --config 1.0-224-16 --class walking --output looks
    mutual3d explain out/adaptive.pyth photo.jpg --config 0.75-160

Without --config these are the cheapest and the dearest configuration of the Pareto front. Each explains what it predicts itself;
--class NAME, or its number, asks for another class. In the folder --output:

    overlay.mp4   the video's own frames, from the first to the last that the network saw, the heat over them
    frames.png    the frames of the clip, a row for each configuration; those that it does not look at are pale
    curve.png     the activation by frame, normalised
    curve.csv     the same in numbers, with class, probability and method

Class activation maps take the classifier's weights where these are applied to averaged features (Slow, SlowFast, C2D, I3D, ResNet,
MobileNet v1 and v2); where more lies between (X3D, MobileNet v3) gradients stand for them. Which one it was is said. Both see what the last
features see, a few places in a small frame: --stage s3 explains finer ones, by their own gradients.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from mutual3d.cli.looking import add_decoding, decoding_of
from mutual3d.data.video.stills import is_still
from mutual3d.deploy import AdaptiveModel
from mutual3d.deploy.adaptive_model import load
from mutual3d.deploy.explain import Explanation, explain_clip
from mutual3d.deploy.explain_files import (
    curve_figure,
    strip_figure,
    view_share,
    write_curve,
    write_figure,
    write_overlay,
)  # fmt: skip
from mutual3d.deploy.predict import read_clip
from mutual3d.sampling import Configuration
from mutual3d.utils.command_line import command_parser, path_argument
from mutual3d.utils.files import ensure_directory
from mutual3d.utils.text import printable


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; SystemExit, after a line that says why, for one that cannot be."""
    parser = command_parser("explain", __doc__)
    parser.add_argument("model", metavar="MODEL", type=path_argument, help="the adaptive.pyth of a run")
    parser.add_argument("source", metavar="CLIP", type=path_argument, help="a video or an image")
    parser.add_argument("--config", action="append", default=[], metavar="CONFIG", help="width-pixels-frames, for example 0.8-160-9; may be given several times")
    parser.add_argument("--class", dest="class_name", metavar="NAME", help="the class to explain, by name or number (default: the predicted one)")
    parser.add_argument("--stage", metavar="NAME", help="explain the features of an earlier part of the network, which are finer: s3 (default: the last ones)")
    parser.add_argument("--output", type=path_argument, metavar="FOLDER", help="where to write (default: explained/CLIP beside the model)")
    add_decoding(parser)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where the network runs (default cpu)")
    parsed = parser.parse_args(arguments)
    if Path(parsed.source).is_dir():
        parser.error(f"CLIP is '{parsed.source}', which is a folder: name one video or image")
    if parsed.output is not None and Path(parsed.output).is_file():
        parser.error(f"--output is '{parsed.output}', which is a file: name a folder")
    return parsed


def ends_of_front(model: AdaptiveModel) -> list[Configuration]:
    """The cheapest and the dearest configuration of the Pareto front; without a table the ends of the space that are calibrated."""
    front = [row.configuration for row in model.table.pareto_front()] if model.table is not None else []
    space = model.network.space
    ends = [front[0], front[-1]] if front else [c for c in (space.smallest, space.largest) if model.network.can_evaluate(c)]
    return list(dict.fromkeys(ends))


def describe(explanation: Explanation) -> str:
    """What was found, in a line."""
    place = int(explanation.curve_T.argmax())
    when = f"most at frame {place + 1} of {len(explanation.seconds)}, second {explanation.seconds[place]:.2f}"
    if not float(explanation.heat_THW.max()):
        when = "nothing speaks for it"
    return f"  {printable(explanation.describe())}: {when}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with these words, by default those of the command line."""
    options = parse(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device is cuda, and torch sees no GPU here: leave --device out to run on the CPU")
    model = load(options.model)
    model.network.place(torch.device(options.device))
    decoding = decoding_of(options)
    source = Path(options.source)
    clips = read_clip(model, source, decoding)
    explanations = explain_clip(model, clips, options.config or ends_of_front(model), options.class_name, options.stage)
    print(printable(source))
    for each in explanations:
        print(describe(each))
    output = Path(options.output or Path(options.model).parent / "explained" / source.stem)
    ensure_directory(output)
    written = [output / "frames.png"]
    write_figure(strip_figure(explanations, clips), written[0])
    if not is_still(source) and model.network.takes != "images":
        written += [output / "curve.png", output / "curve.csv", output / "overlay.mp4"]
        write_figure(curve_figure(explanations), written[1])
        write_curve(explanations, written[2])
        write_overlay(explanations, source, written[3], share=view_share(model.preprocessing), decoding=decoding)
    print(f"written: {', '.join(printable(path) for path in written)}")
