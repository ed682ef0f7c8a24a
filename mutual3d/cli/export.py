"""One configuration of a deployed model as a file for ONNX Runtime or OpenVINO. Needs `pip install -e .[export]`.

    mutual3d export out/adaptive.pyth --config 0.8-160-9 --format onnx
    mutual3d export out/adaptive.pyth --config 0.8-160-9 --format openvino --output edge/net.xml

The file takes normalised clips at the configuration's own size, as many at a time as you like, and gives logits. It is
run on a random clip beside PyTorch before it is kept; mean, std, size, frames and classes are in its metadata.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from mutual3d.deploy.adaptive_model import load
from mutual3d.deploy.export import Export, export_network, formats
from mutual3d.sampling import Configuration
from mutual3d.utils.command_line import command_parser, path_argument


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; SystemExit, after a line that says why, for one that cannot be."""
    parser = command_parser("export", __doc__)
    parser.add_argument("source", nargs="?", metavar="MODEL", type=path_argument, help="the adaptive.pyth of a run")
    parser.add_argument("--model", type=path_argument, help="another way to name MODEL")
    parser.add_argument("--config", required=True, help="width-pixels-frames, for example 0.8-160-9")
    parser.add_argument("--format", choices=list(formats()), default="onnx", help="default onnx")
    parser.add_argument("--output", type=path_argument, help="the file to write (default: the configuration, beside the model)")
    parser.add_argument(
        "--frame", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"),
        help="of the whole frames that a model of boxes sees, before they are shrunk (default: a square)",
    )  # fmt: skip
    parser.add_argument("--repeats", type=int, default=10, help="forwards to time (default 10)")
    parsed = parser.parse_args(arguments)
    if (parsed.source is None) == (parsed.model is None):
        parser.error("name one adaptive.pyth: MODEL, or --model MODEL")
    parsed.model = parsed.model or parsed.source
    if parsed.repeats < 1:
        parser.error(f"--repeats is {parsed.repeats}: time one forward or more")
    return parsed


def describe(configuration: Configuration, export: Export) -> str:
    """What was written, in words: files, inputs, difference from PyTorch, and times."""
    shapes = ", ".join(f"{name} {' x '.join(map(str, shape))}" for name, shape in export.inputs.items())
    times = ", ".join(f"{runtime} {ms:.3g} ms" for runtime, ms in export.latency_ms.items())
    return "\n".join([
        f"configuration {configuration}: {' and '.join(map(str, export.files))}, {export.num_bytes / 1e6:.2f} MB",
        f"  takes {shapes}, and any batch",
        f"  logits differ from PyTorch's by up to {export.difference:.2g}; the largest is {export.largest_logit:.3g}",
        f"  {times} (one clip, fp32, {torch.get_num_threads()} CPU threads)",
    ])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with these words, by default those of the command line."""
    options = parse(arguments)
    model = load(options.model)
    configuration = model.network.space.check(options.config)
    beside_model = Path(options.model).parent / f"{configuration}{formats()[options.format].suffixes[0]}"
    output = Path(options.output or beside_model)
    print(f"exporting and checking {configuration}: up to a minute", flush=True)
    export = export_network(
        model, configuration, output, options.format, frame=options.frame, repeats=options.repeats
    )
    print(describe(configuration, export))
