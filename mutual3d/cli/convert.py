"""Weights to and from other projects, and one configuration of an adaptive model as a static checkpoint.

mutual3d convert --from SLOWFAST_4x16_R50.pkl --cfg Kinetics/SLOWFAST_4x16_R50 --output slowfast.pyth [--reset-head]
mutual3d convert --from slowfast.pyth --to pytorchvideo --output hub.pyth
mutual3d convert --from out/adaptive.pyth --extract 0.8-160-9 --output static.pyth

--cfg reads a file into the config's network: pyslowfast, caffe2 (PySlowFast's .pkl files), pytorchvideo or torchvision (an
ImageNet ResNet-50, inflated to Slow; its classifier is left behind, and its input was normalised by ImageNet's own mean and
deviation), recognised by its names, or of the --format that is given. The output is a checkpoint for
TRAIN.CHECKPOINT_FILE_PATH or TEST.CHECKPOINT_FILE_PATH. --reset-head re-initialises the classifier; no other weight is ever
left out. --verbose lists every entry.

--to writes the full network, from a checkpoint or an adaptive.pyth, as {"model_state": ...} under the names of
pyslowfast or pytorchvideo.

--extract writes a calibrated sub-network. Narrower networks have shapes that PySlowFast's own configs do not: the
weights load into `model.extract("0.8-160-9")`, or without the adaptive model into
`create_model(**content["model_arguments"]).subnetwork("0.8-160-9")`. Beside `model_state` the file holds the output
channels of every layer, GFLOPs of one view at the stated crop, parameters, preprocessing and class names.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch.nn as nn

from mutual3d.cost.flops import count_costs
from mutual3d.deploy.adaptive_model import FORMAT as ADAPTIVE_FORMAT
from mutual3d.deploy.adaptive_model import load
from mutual3d.models import AdaptiveNetwork, load_network
from mutual3d.models.interop import FORMATS, Report, export_state, read_checkpoint
from mutual3d.pipeline import initial_network, load_config
from mutual3d.utils.checkpoint import read_weights
from mutual3d.utils.command_line import command_parser
from mutual3d.utils.files import load_tensors, save_tensors

STATIC_FORMAT = "mutual3d-static-1"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; SystemExit, after a line that says why, for one that cannot be."""
    parser = command_parser("convert", __doc__)
    parser.add_argument("--from", dest="source", required=True, metavar="FILE", help="the checkpoint to read")
    parser.add_argument("--output", required=True, help="the checkpoint to write")
    parser.add_argument("--cfg", help="the config of the network to load: a YAML file, or a name (mutual3d --configs)")
    task = parser.add_mutually_exclusive_group()
    task.add_argument("--format", choices=list(FORMATS), help="the format to read; default: recognised by the file's names")
    task.add_argument("--to", choices=["pyslowfast", "pytorchvideo"], help="another project's format, to write")
    task.add_argument("--extract", metavar="CONFIGURATION", help="width-pixels-frames, for example 0.8-160-9")
    parser.add_argument("--reset-head", action="store_true", help="re-initialise the classifier, for other classes")
    parser.add_argument("--verbose", action="store_true", help="list every entry, or every layer")
    options = parser.parse_args(arguments)
    writes = options.to is not None or options.extract is not None
    if options.format is not None and options.cfg is None:
        parser.error("--format and --cfg go together")
    if options.cfg is None and not writes:
        parser.error("give --cfg, the network to read the file into, or --to or --extract, what to write of it")
    if options.cfg is not None and writes:
        parser.error("--cfg is for reading another project's file: it does not go with --to and --extract")
    if options.reset_head and options.cfg is None:
        parser.error("--reset-head goes with --cfg")
    return options


def _check_files(options: argparse.Namespace) -> None:
    """The file that is read must not be the one that is written: it would be lost."""
    names = options.output, options.source
    if all(map(os.path.exists, names)) and os.path.samefile(*names):
        raise ValueError(f"--output is '{options.output}', the file that --from reads: choose another name for the new one")


def import_checkpoint(options: argparse.Namespace) -> None:
    """Another project's weights as a checkpoint of the config's network."""
    network = initial_network(load_config(options.cfg))
    state, report = read_checkpoint(
        network, options.source, reset_head=options.reset_head, format_name=options.format
    )
    save_tensors(options.output, {"model_state": state, "model_arguments": network.arguments})
    _tell(report, options)


def export_checkpoint(options: argparse.Namespace) -> None:
    """The full network of a checkpoint or of an adaptive.pyth under another project's names."""
    network = read_network(options.source)
    widest = network.space.largest.width
    if widest != 1:
        raise ValueError(f"'{options.source}' is {widest} wide at most: {options.to} has full-width networks only")
    if "activation_bits" in network.arguments:
        raise ValueError(
            f"'{options.source}' quantises activations to {network.arguments['activation_bits']} bits (MODEL.QUANTIZE.ACTIVATION_BITS), "
            f"and networks of {options.to} do not: with ACTIVATION_BITS 32 the quantised weights alone are exported"
        )
    state = network.extract(network.space.largest).state_dict()
    exported, report = export_state(state, options.to, network.arguments["name"])
    save_tensors(options.output, {"model_state": exported})
    report.title = f"{options.source}, {report.title}"
    _tell(report, options)


def _tell(report: Report, options: argparse.Namespace) -> None:
    """What was read, what was kept and left, and where it was written; with --verbose every entry."""
    print(report if options.verbose else f"{report.title}\n{report.outcome()}")
    print(f"written to '{options.output}'")


def read_network(path: str | Path) -> AdaptiveNetwork:
    """The network in a checkpoint or an adaptive.pyth; ValueError when the file does not say which network it is."""
    content = load_tensors(path)
    form = content.get("format") if isinstance(content, dict) else None
    if isinstance(form, str) and form == ADAPTIVE_FORMAT:
        return load(path).network
    if not isinstance(content, dict) or "model_arguments" not in content or form == STATIC_FORMAT:
        raise ValueError(
            f"'{path}' is no full-width checkpoint of this project: give a checkpoint or adaptive.pyth of a run, or "
            "what --cfg wrote"
        )
    return load_network(content["model_arguments"], read_weights(path), path)


def extract_checkpoint(options: argparse.Namespace) -> None:
    """One calibrated configuration of an adaptive model with everything that describes it."""
    model = load(options.source)
    configuration = model.network.space.check(options.extract)
    network = model.extract(configuration)
    cost = count_costs(model.network, [configuration], model.preprocessing.crop)[configuration]
    content = {
        "format": STATIC_FORMAT,
        "configuration": str(configuration),
        "model_state": network.state_dict(),
        "model_arguments": model.network.arguments,
        "channels": output_channels(network),
        "gflops": cost.gflops,
        "parameters": cost.parameters,
        "crop": model.preprocessing.crop,
        "preprocessing": asdict(model.preprocessing),
        "class_names": model.class_names,
    }
    save_tensors(options.output, content)
    channels = output_channels(network)
    print(f"{options.source}, {model.network.arguments['name']}")
    print(describe(content))
    if options.verbose:
        print("output channels of its layers:")
        print("\n".join(f"  {name}: {count}" for name, count in channels.items()))
    print(f"written to '{options.output}'")


def describe(content: Mapping) -> str:
    """What a static checkpoint holds, in words. content: what is saved in it."""
    return (
        f"configuration {content['configuration']}, {content['gflops']:.4g} GFLOPs a view at crop {content['crop']}, "
        f"{content['parameters']:,} parameters"
    )


def output_channels(network: nn.Module) -> dict[str, int]:
    """{name: output channels} of every convolution and linear layer."""
    weighted = (nn.modules.conv._ConvNd, nn.Linear)
    return {name: len(layer.weight) for name, layer in network.named_modules() if isinstance(layer, weighted)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with these words, by default those of the command line."""
    options = parse(arguments)
    _check_files(options)
    if options.cfg:
        import_checkpoint(options)
    elif options.to:
        export_checkpoint(options)
    else:
        extract_checkpoint(options)
