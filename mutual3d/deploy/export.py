"""One configuration of a deployed model as a file for ONNX Runtime or OpenVINO, kept once it agrees with PyTorch."""

import contextlib
import copy
import importlib
import json
import logging
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn as nn

from mutual3d.cost.latency import measure_latency
from mutual3d.deploy.adaptive_model import AdaptiveModel
from mutual3d.sampling import Configuration, prepare_clip, shrink_clip, temporal_indices
from mutual3d.utils.files import atomic_write, ensure_directory

# Largest difference of a logit, relative to the largest logit, that rounding in fp32 explains.
TOLERANCE = 1e-3
# Pixels of a frame's longer side: twice those of the largest format of video.
_MAX_SIDE = 16384
_CPU = torch.device("cpu")


class ExportMismatchError(RuntimeError):
    """What was exported does not compute what the model computes in PyTorch; nothing was written."""


@dataclass(frozen=True)
class Export:
    """What was written, and what checking it gave.

    files: the one to open first. inputs: {name: shape}, batch 1; the batch, and the number of boxes, may be any.
    difference: the largest one of a logit on a random clip; logits went up to `largest_logit`. latency_ms: median of
    one clip in {"PyTorch": the extracted network, runtime: the file}, on as many threads as PyTorch uses here.
    """

    files: tuple
    inputs: dict
    difference: float
    largest_logit: float
    latency_ms: dict

    @property
    def num_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)


def export_network(
    model: AdaptiveModel,
    configuration: Configuration | str,
    path: str | Path,
    format_name: str = "onnx",
    *,
    frame: tuple[int, int] | None = None,
    repeats: int = 10,
) -> Export:
    """Write the sub-network of an AdaptiveModel at `configuration`, norms folded, to `path`; returns an Export.

    The file takes normalised fp32 clips at the configuration's own size: `clip` B, 3, t, s, s; `slow` and `fast` for
    SlowFast; `images` B, 3, s, s; and `boxes` N, 5 too where the model classifies boxes. It gives `logits` B, K. What
    else is needed to use it is in its metadata, see `metadata`.
    format_name: onnx (`path` ends in .onnx) or openvino (.xml; the weights go to a .bin beside it).
    frame: height and width in pixels of the frames that a model of boxes sees, before they are shrunk; square by default.
    Raises ValueError for a format, path, frame or configuration that is not legal, NotCalibratedError, ImportError when the
    extra is not installed, and ExportMismatchError when the file computes something else.
    """
    form, path = _format(format_name), Path(path)
    if path.suffix != form.suffixes[0]:
        raise ValueError(f"'{path}' is to hold the format {format_name}: let its name end in {form.suffixes[0]}")
    for target in (path.with_suffix(suffix) for suffix in form.suffixes):
        if target.is_dir():
            raise IsADirectoryError(f"'{target}' is a directory, and a file of this name is to be written: name another one")
    for package in form.packages:
        _require(package)
    network = copy.deepcopy(model.network).place(_CPU).eval().activate(configuration)
    inputs = example_inputs(model, network, frame)
    ensure_directory(path.parent)
    with tempfile.TemporaryDirectory() as directory, torch.no_grad():
        expected = run_network(network, list(inputs.values()))
        plain = positional(network.extract(network.active, fold_bn=True), list(inputs.values()))
        draft = Path(directory) / path.name
        form.write(trace(plain, inputs), metadata(model, network.active, inputs), draft)
        run = form.load(draft)
        difference, largest = compare(expected, run, inputs)
        latency = time_both(plain, run, inputs, form.runtime, repeats)
        files = publish(draft, path, form.suffixes)
    return Export(files, {k: (1, *v.shape[1:]) for k, v in inputs.items()}, difference, largest, latency)


def _require(package):
    if package == "openvino":  # reports its use to its maker, unasked, unless this module cannot be imported
        sys.modules.setdefault("openvino_telemetry", None)
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(f"exporting needs the package '{package}' ({error}): pip install -e .[export]") from error


# ---- The network and what goes in ------------------------------------------------------------------------------------


def example_inputs(model: AdaptiveModel, network: nn.Module, frame: tuple[int, int] | None = None) -> dict[str, torch.Tensor]:
    """{name: tensor} of two random clips at the active configuration's size: what the exported network takes."""
    shape = 2, 3, network.clip_frames, *_view_sides(frame, model.preprocessing.crop, network.takes_boxes)
    generator = torch.Generator().manual_seed(0)
    clip = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    cut = model.preprocessing
    pathways = network.fit_clip(prepare_clip(clip, _CPU, cut.mean, cut.std, cut.reverse_channels))
    if isinstance(pathways, torch.Tensor):
        return {"images": pathways}
    inputs = dict(zip(["clip"] if len(pathways) == 1 else ["slow", "fast"], pathways, strict=True))
    if network.takes_boxes:
        inputs["boxes"] = torch.tensor([[0, 0.1, 0.2, 0.6, 0.9], [1, 0.0, 0.0, 1.0, 1.0], [1, 0.4, 0.3, 0.7, 0.8]])
    return inputs


def _view_sides(frame, crop, takes_boxes):
    if frame is None:
        return crop, crop
    if max(frame) > _MAX_SIDE:
        raise ValueError(f"the frame is {' x '.join(map(str, frame))}: no side may be above {_MAX_SIDE}")
    if not takes_boxes or min(frame) != crop:
        legal = f"short side must be {crop}" if takes_boxes else f"view is always {crop} x {crop}: leave the frame out"
        raise ValueError(f"the frame is {' x '.join(map(str, frame))}, and this model's {legal}")
    return frame


class _Positional(nn.Module):
    """A network whose inputs are arguments of their own: exporters name arguments, not entries of a list."""

    def __init__(self, network) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs):
        return run_network(self.network, inputs)


def run_network(network: nn.Module, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
    """Call a network with the tensors of `example_inputs`."""
    *pathways, last = inputs
    if last.ndim == 2:
        return network(pathways, last)
    return network(list(inputs) if last.ndim == 5 else last)


def positional(network: nn.Module, inputs: Sequence[torch.Tensor]) -> nn.Module:
    """`network` for `torch.onnx.export`: arguments in a row, shrinking to fixed sizes, which running it once decides."""
    for part in list(network.modules()):
        if hasattr(part, "shrink"):
            part.shrink = _FixedShrink()
    plain = _Positional(network)
    plain(*inputs)
    return plain


class _FixedShrink(nn.Module):
    """`shrink_clip` from one fixed size to another, which the first call decides, as two matrix products.

    A resize is linear. Runtimes disagree about antialiasing (OpenVINO 2026.4 leaves it out in silence), not about
    matrix products.
    """

    def forward(self, features, size, temporal):
        if tuple(features.shape[2:]) == (temporal, *size):
            return features
        if not hasattr(self, "rows"):
            self._learn(features.shape[2:], size, temporal)
        return self.rows @ features.index_select(2, self.frames) @ self.columns

    def _learn(self, source, size, temporal):
        self.register_buffer("frames", temporal_indices(source[0], temporal))
        self.register_buffer("rows", _resize_matrix(source[1], size[0]))
        self.register_buffer("columns", _resize_matrix(source[2], size[1]).T.contiguous())


def _resize_matrix(source, target):
    """target x source: what shrinking does to a column of `source` pixels."""
    return shrink_clip(torch.eye(source)[None, None, None], (target, source))[0, 0, 0]


def metadata(model: AdaptiveModel, configuration: Configuration, inputs: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """{name: JSON text}: the configuration, the network's input, how a clip is cut and normalised, the classes.

    size and frames: of the (Slow) input. The other entries are Preprocessing's, of the view that the input is shrunk
    from: frames evenly spaced with both ends, sides bilinear with antialiasing.
    """
    first = next(iter(inputs.values()))
    entries = {
        "configuration": str(configuration),
        "size": list(first.shape[-2:]),
        "frames": first.shape[2] if first.ndim == 5 else 1,
        "classes": model.class_names,
        **asdict(model.preprocessing),
    }
    return {name: json.dumps(value) for name, value in entries.items()}


# ---- The formats -----------------------------------------------------------------------------------------------------


def trace(plain: nn.Module, inputs: Mapping[str, torch.Tensor]) -> torch.onnx.ONNXProgram:
    """The ONNX program of a positional network, for any batch and number of boxes, without traces of its making."""
    sizes = {name: {0: torch.export.Dim("boxes" if name == "boxes" else "batch")} for name in inputs}
    with warnings.catch_warnings(), _quiet("torch.onnx", "onnxscript"):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            plain, tuple(inputs.values()), dynamo=True, dynamic_shapes=(tuple(sizes.values()),),
            input_names=list(inputs), output_names=["logits"], verbose=False,
        )  # fmt: skip
    graph = program.model.graph
    for part in (program.model, graph, *graph.all_nodes(), *graph.inputs, *graph.initializers.values()):
        part.metadata_props.clear()  # stack traces, with the paths of this machine: a quarter of a small file
    return program


@contextlib.contextmanager
def _quiet(*names):
    """A context in which the loggers say what is wrong and nothing else."""
    levels = {logging.getLogger(name): logging.getLogger(name).level for name in names}
    try:
        for logger in levels:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


class OnnxFormat:
    """An .onnx file, run by ONNX Runtime; metadata in its `metadata_props`."""

    runtime, suffixes, packages = "ONNX Runtime", (".onnx",), ("onnx", "onnxscript", "onnxruntime")

    @staticmethod
    def write(program: torch.onnx.ONNXProgram, entries: Mapping[str, str], path: Path) -> None:
        program.model.metadata_props.update(entries)
        program.save(path)

    @staticmethod
    def load(path: Path) -> Callable:
        """A function of numpy arrays -> logits."""
        runtime = _require("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [node.name for node in session.get_inputs()]
        return lambda arrays: session.run(None, dict(zip(names, arrays)))[0]


class OpenVinoFormat:
    """OpenVINO's .xml and .bin, converted from ONNX; metadata in the model's `rt_info`, under `mutual3d`."""

    runtime, suffixes, packages = "OpenVINO", (".xml", ".bin"), ("onnx", "onnxscript", "openvino")

    @staticmethod
    def write(program: torch.onnx.ONNXProgram, entries: Mapping[str, str], path: Path) -> None:
        openvino = _require("openvino")
        program.save(path.with_suffix(".onnx"))
        converted = openvino.convert_model(path.with_suffix(".onnx"))
        for name, text in entries.items():
            converted.set_rt_info(text, ["mutual3d", name])
        openvino.save_model(converted, path, compress_to_fp16=False)

    @staticmethod
    def load(path: Path) -> Callable:
        """A function of numpy arrays -> logits."""
        # Its default, bf16 on a CPU that has it, moves logits by a hundredth.
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        compiled = _require("openvino").Core().compile_model(path, "CPU", options)
        return lambda arrays: compiled(arrays)[0]


FORMATS = {"onnx": OnnxFormat, "openvino": OpenVinoFormat}


def _format(name):
    if name not in FORMATS:
        raise ValueError(f"there is no export format '{name}': choose among {', '.join(FORMATS)}")
    return FORMATS[name]


# ---- Checking and keeping --------------------------------------------------------------------------------------------


def compare(expected: torch.Tensor, run: Callable, inputs: Mapping[str, torch.Tensor]) -> tuple[float, float]:
    """(largest difference, largest logit) between logits and those of a runtime; ExportMismatchError if too far."""
    difference = (torch.from_numpy(run(_arrays(inputs.values()))) - expected).abs().max().item()
    largest = expected.abs().max().item()
    if not difference <= TOLERANCE * largest:
        raise ExportMismatchError(
            f"the exported network is not the model: logits differ by up to {difference:.3g}, the largest is "
            f"{largest:.3g}; nothing was written. Another version of the exporter's packages may do better"
        )
    return difference, largest


def time_both(plain: nn.Module, run: Callable, inputs: Mapping[str, torch.Tensor], runtime: str, repeats: int) -> dict[str, float]:
    """{"PyTorch": ms, runtime: ms} of one clip, in turns."""
    tensors = [tensor[:1] for tensor in inputs.values()]
    arrays = _arrays(tensors)
    runs = {"PyTorch": lambda: lambda: plain(*tensors), runtime: lambda: lambda: run(arrays)}
    return measure_latency(runs, _CPU, repeats=repeats)


def _arrays(tensors):
    return [tensor.contiguous().numpy() for tensor in tensors]


def publish(draft: Path, path: Path, suffixes: Sequence[str]) -> tuple[Path, ...]:
    """Put a draft's files in their place, each whole; the one that is opened comes last, never beside other weights."""
    targets = [path.with_suffix(suffix) for suffix in suffixes]
    if len(targets) > 1:
        path.unlink(missing_ok=True)
    for target in reversed(targets):
        with atomic_write(target) as temporary:
            shutil.copyfile(draft.with_suffix(target.suffix), temporary)
    return tuple(targets)
