"""One configuration of a deployed model as a file for ONNX Runtime or OpenVINO, kept once it agrees with PyTorch."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mutual3d.cost.latency import measure_latency
from mutual3d.deploy.adaptive_model import AdaptiveModel
from mutual3d.deploy.example import write_example
from mutual3d.deploy.extraction import allowed_difference, example_inputs, expected_scores, extract_network
from mutual3d.deploy.gives import check_gives_classes
from mutual3d.deploy.runtimes import RUNTIMES, CompiledNetwork, Runtime
from mutual3d.sampling import Configuration
from mutual3d.utils.files import atomic_write, ensure_directory

# Pixels of a frame's longer side: twice those of the largest format of video.
_MAX_SIDE = 16384
_CPU = torch.device("cpu")


class ExportMismatchError(RuntimeError):
    """What was exported does not compute what the model computes in PyTorch; nothing was written."""


@dataclass(frozen=True)
class Export:
    """What was written, and what checking it gave.

    files: the one to open first. example: a program of a few lines that runs it without this project, None where the runtime
    tells no such. inputs: {name: shape},
    batch 1; the batch, and the number of boxes, may be any. difference: the largest one of a score on a random clip.
    latency_ms: median of one clip in {"PyTorch": the extracted network, runtime: the file}, on as many threads as PyTorch
    uses here.
    """

    files: tuple[Path, ...]
    example: Path | None
    inputs: dict[str, tuple[int, ...]]
    difference: float
    latency_ms: dict[str, float]

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
    clips: Sequence[torch.Tensor | np.ndarray] = (),
    repeats: int = 10,
) -> Export:
    """Write the sub-network of an AdaptiveModel at `configuration`, norms folded, to `path`; returns an Export.

    The file takes what the model takes: `clip`, uint8 and full-size, B, 3, T, S, S (images: B, 3, S, S), and `boxes` N, 5 too
    where the model classifies boxes. It gives `scores` B, K (N, K): normalising, shrinking and softmax or sigmoid are inside.
    How frames are chosen and cut is in its metadata, see `extraction.metadata`, and in the program that is written beside it.
    format_name: onnx (`path` ends in .onnx), openvino (.xml; the weights go to a .bin beside it), or openvino_int8.
    frame: height and width in pixels of the frames that a model of boxes sees, before they are shrunk; square by default.
    clips: of the videos that the model is for, uint8 as above, by which openvino_int8 chooses its ranges.
    Raises ValueError for a format, path, frame or configuration that is not legal, NotCalibratedError, ImportError when the
    extra is not installed, and ExportMismatchError when the file computes something else.
    """
    runtime, path = _format(format_name), Path(path)
    if path.suffix != runtime.suffixes[0]:
        raise ValueError(f"'{path}' is to hold the format {format_name}: let its name end in {runtime.suffixes[0]}")
    for target in (path.with_suffix(suffix) for suffix in runtime.suffixes):
        if target.is_dir():
            raise IsADirectoryError(f"'{target}' is a directory, and a file of this name is to be written: name another one")
    if runtime.needs_clips and not len(clips):
        raise ValueError(f"the format {format_name} chooses its ranges by clips: give some of the videos that the model is for")
    check_gives_classes(model, "exporting")
    runtime.require()
    frame = _checked_frame(model, frame)
    active = model.network.space.check(configuration)
    examples = example_inputs(model, frame)
    given = tuple(torch.as_tensor(clip) for clip in clips)
    # Whatever the model is in: what is exported is in fp32, on the CPU.
    network, plain = (extract_network(model, active, examples, _CPU, torch.float32, given) for _ in range(2))
    ensure_directory(path.parent)
    with tempfile.TemporaryDirectory() as directory:
        in_pytorch = RUNTIMES["torch"].compile(plain)
        draft = Path(directory) / path.name
        runtime.save(network, draft)
        compiled = runtime.load(draft)
        difference = compare(expected_scores(model, examples, active), compiled, examples, allowed_difference(runtime, model.network))
        latency = time_both(in_pytorch, compiled, examples, runtime.title, repeats)
        files = publish(draft, path, runtime.suffixes)
        takes = "boxes" if model.network.takes_boxes else "images" if model.network.takes == "images" else "clips"
        example = write_example(path.with_name(f"{path.stem}_example.py"), runtime, path.name, takes)
    return Export(files, example, {k: (1, *v.shape[1:]) for k, v in examples.items()}, difference, latency)


def formats() -> dict[str, Runtime]:
    """{word: the runtime whose files it means}, of all that are registered."""
    return {runtime.format: runtime for runtime in RUNTIMES.values() if runtime.format}


def _format(name: str) -> Runtime:
    known = formats()
    if name not in known:
        raise ValueError(f"there is no export format '{name}': choose among {', '.join(known)}")
    return known[name]


def _checked_frame(model: AdaptiveModel, frame: tuple[int, int] | None) -> tuple[int, int]:
    crop, takes_boxes = model.preprocessing.crop, model.network.takes_boxes
    if frame is None:
        return crop, crop
    height, width = frame
    if max(frame) > _MAX_SIDE:
        raise ValueError(f"the frame is {height} x {width}: no side may be above {_MAX_SIDE}")
    if not takes_boxes or min(frame) != crop:
        legal = f"short side must be {crop}" if takes_boxes else f"view is always {crop} x {crop}: leave the frame out"
        raise ValueError(f"the frame is {height} x {width}, and this model's {legal}")
    return height, width


# ---- Checking and keeping --------------------------------------------------------------------------------------------


def compare(
    expected: torch.Tensor, compiled: CompiledNetwork, inputs: Mapping[str, torch.Tensor], tolerance: float
) -> float:
    """The largest difference between scores and those of a runtime; ExportMismatchError if it is above `tolerance`."""
    difference = (compiled(*inputs.values()) - expected).abs().max().item()
    if not difference <= tolerance:
        raise ExportMismatchError(
            f"the exported network is not the model: scores differ by up to {difference:.3g} in probability, and {tolerance:.3g} "
            "is allowed; nothing was written. Another version of the exporter's packages may do better"
        )
    return difference


def time_both(
    plain: CompiledNetwork, compiled: CompiledNetwork, inputs: Mapping[str, torch.Tensor], title: str, repeats: int
) -> dict[str, float]:
    """{"PyTorch": ms, title: ms} of one clip, in turns."""
    tensors = [tensor[:1].contiguous() for tensor in inputs.values()]
    runs = {"PyTorch": lambda: lambda: plain(*tensors), title: lambda: lambda: compiled(*tensors)}
    return measure_latency(runs, _CPU, repeats=repeats)


def publish(draft: Path, path: Path, suffixes: Sequence[str]) -> tuple[Path, ...]:
    """Put a draft's files in their place, each whole; the one that is opened comes last, never beside other weights."""
    targets = [path.with_suffix(suffix) for suffix in suffixes]
    if len(targets) > 1:
        path.unlink(missing_ok=True)
    for target in reversed(targets):
        with atomic_write(target) as temporary:
            shutil.copyfile(draft.with_suffix(target.suffix), temporary)
    return tuple(targets)
