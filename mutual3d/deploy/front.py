"""The whole Pareto front as ONNX files that share one file of weights, and a program that holds a deadline with them.

Every configuration is a graph of its own, `0.8-160-9.onnx`, of a few hundred kilobytes: its nodes, the resize to its size, and for each
channel a scale and a bias, into which its own batch norm statistics went. The weights are stored once, whole, in `weights.bin`: a graph takes
the first channels of them and multiplies these by the scales, which a runtime does once, when it opens the file, since nothing of it
depends on the clip. On the disk a front costs little more than its largest network. In memory each network that is opened holds
weights of its own.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mutual3d.cost.flops import count_costs
from mutual3d.deploy.example import write_front_example
from mutual3d.deploy.export import compare
from mutual3d.deploy.extraction import allowed_difference, example_inputs, expected_scores, extract_network, metadata
from mutual3d.deploy.fastest import measured_configurations
from mutual3d.deploy.gives import check_gives_classes
from mutual3d.deploy.runtimes import ExtractedNetwork, find_runtime
from mutual3d.deploy.runtimes.onnx_program import onnx_program
from mutual3d.sampling import Configuration
from mutual3d.utils.files import atomic_write, ensure_directory, read_json, write_json
from mutual3d.utils.logging import progress_bar

if TYPE_CHECKING:
    from mutual3d.deploy.adaptive_model import AdaptiveModel

WEIGHTS, FACTS, PROGRAM = "weights.bin", "front.json", "hold_deadline.py"
_CPU = torch.device("cpu")
# Where the networks' own names begin in those of a program.
_PREFIX = "module.network."
# Bytes below which a constant stays in its graph.
_SMALL = 512
# Of the largest number in a row: what folding a norm into it rounds.
_ROUNDING = 1e-5
# What offsets are multiples of, so that the file can be mapped into memory.
_ALIGNED = 64


@dataclass(frozen=True)
class FrontExport:
    """What was written, and what checking it gave.

    folder: in which `weights.bin`, `front.json`, `hold_deadline.py` and a file for each configuration are. num_bytes: of all of it;
    weight_bytes: of the weights. differences: {configuration: the largest one of a score from PyTorch's on a random clip}.
    """

    folder: Path
    num_bytes: int
    weight_bytes: int
    differences: dict[Configuration, float]


def export_front(
    model: "AdaptiveModel", folder: str | Path, configurations: Sequence[Configuration | str] | None = None, *, progress: bool = True
) -> FrontExport:
    """Write configurations of a model as ONNX files that share their weights into a folder, and how to hold a deadline with them.

    configurations: None takes the Pareto front over GFLOPs (without a table, all that are calibrated). Each file takes the uint8 clip at
    full size, any batch, and gives probabilities, as those of `export_network` do; each is compared with PyTorch in ONNX Runtime before any
    is kept. Raises ValueError for a model of boxes and configurations outside the space, NotCalibratedError, ImportError without the
    extra, and ExportMismatchError where a file computes something else.
    """
    check_gives_classes(model, "exporting")
    if model.network.takes_boxes:
        raise ValueError("this model classifies boxes, whose frames have sizes of their own: export one configuration, --config")
    runtime = find_runtime("onnxruntime")
    given = measured_configurations(model) if configurations is None else configurations
    chosen = sorted({model.network.space.check(each) for each in given}, key=_cost_of(model))
    examples = example_inputs(model)
    whole = {name: tensor.detach().cpu().float().numpy() for name, tensor in model.network.state_dict().items() if tensor.is_floating_point()}
    differences = {}
    folder = ensure_directory(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".front_") as draft:
        store = WeightStore(Path(draft) / WEIGHTS)
        for configuration in progress_bar(chosen, "exporting", len(chosen), unit="network") if progress else chosen:
            network = extract_network(model, configuration, examples, _CPU, torch.float32)
            path = Path(draft) / f"{configuration}.onnx"
            write_sharing(network, path, store, whole)
        store.close()
        for configuration in chosen:
            compiled = runtime.load(Path(draft) / f"{configuration}.onnx")
            expected = expected_scores(model, examples, configuration)
            differences[configuration] = compare(expected, compiled, examples, allowed_difference(runtime, model.network))
        # An earlier front goes whole: its graphs would read the new weights.
        for path in _graphs_of_front(folder):
            path.unlink(missing_ok=True)
        (folder / FACTS).unlink(missing_ok=True)
        names = [WEIGHTS, *(f"{configuration}.onnx" for configuration in chosen)]
        for name in names:
            _publish(Path(draft) / name, folder / name)
    write_json(folder / FACTS, front_facts(model, chosen))
    write_front_example(folder / PROGRAM, takes="images" if model.network.takes == "images" else "clips")
    files = [folder / name for name in (*names, FACTS, PROGRAM)]
    return FrontExport(folder, sum(file.stat().st_size for file in files), (folder / WEIGHTS).stat().st_size, differences)


def _graphs_of_front(folder: Path) -> list[Path]:
    """The files of the configurations that the front in a folder has; none where there is no front."""
    try:
        files = [row["file"] for row in read_json(folder / FACTS)["front"]]
        return [folder / f"{Configuration.parse(file.removesuffix('.onnx'))}.onnx" for file in files]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # none, or a stranger's
        return []


def _publish(draft: Path, target: Path) -> None:
    with atomic_write(target, draft.stat().st_size) as temporary:
        draft.replace(temporary)


def _cost_of(model: "AdaptiveModel") -> Any:
    known = {row.configuration: row.gflops for row in model.table.rows} if model.table else {}

    def cost(configuration: Configuration) -> float:
        return known.get(configuration) or count_costs(model.network, [configuration], model.preprocessing.crop)[configuration].gflops

    return cost


def front_facts(model: "AdaptiveModel", configurations: Sequence[Configuration]) -> dict[str, Any]:
    """What a program needs to know: the configurations, ascending in GFLOPs, and how a clip is chosen and cut."""
    crop = model.preprocessing.crop
    common = {name: json.loads(text) for name, text in metadata(model, configurations[-1], (crop, crop)).items() if name != "configuration"}
    cost, rows = _cost_of(model), []
    for configuration in configurations:
        row = next((row for row in model.table.rows if row.configuration == configuration), None) if model.table else None
        accuracy = {} if row is None else dict(row.accuracy)
        merit = None if row is None or model.table is None else model.table.merit(row)
        rows.append({"configuration": str(configuration), "file": f"{configuration}.onnx", "gflops": cost(configuration), "accuracy": accuracy, "merit": merit})
    return {**common, "weights": WEIGHTS, "front": rows}


class WeightStore:
    """One file of arrays, each stored once: `put` gives (offset, bytes). path: of the file, which is written anew."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "wb")
        self._places: dict[bytes, tuple[int, int]] = {}

    def put(self, array: np.ndarray) -> tuple[int, int]:
        """Where the bytes of an array are in the file, after writing them where they are not there yet."""
        data = np.ascontiguousarray(array).tobytes()
        key = hashlib.sha256(data).digest()
        if key not in self._places:
            self._file.write(bytes(-self._file.tell() % _ALIGNED))
            self._places[key] = self._file.tell(), len(data)
            self._file.write(data)
        return self._places[key]

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


def write_sharing(network: ExtractedNetwork, path: Path, store: WeightStore, whole: Mapping[str, np.ndarray]) -> None:
    """Write a network's ONNX program whose constants are in `store`: those that are parts of `whole`, scaled, as parts of these.

    whole: {name of a parameter: its array at full width}.
    """
    import onnx

    program = onnx_program(network)
    program.model.metadata_props.update(network.metadata)
    model: Any = program.model_proto
    graph = _Graph(onnx, store)
    for constant in model.graph.initializer:
        array = onnx.numpy_helper.to_array(constant)
        full = whole.get(constant.name.removeprefix(_PREFIX))
        part = None if full is None or array.nbytes < _SMALL else _find_part(array, full)
        if part is None or full is None:
            graph.constants.append(constant if array.nbytes < _SMALL else graph.external(constant.name, array))
        else:
            graph.cut(constant.name, full, part)
    nodes = [*graph.nodes, *model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(graph.constants)
    model.graph.node.extend(nodes)
    path.write_bytes(model.SerializeToString())


@dataclass(frozen=True)
class _Part:
    """Of an array the first `rows`, of these the first `columns` and the last `tail` (None: all), each row times its scale.

    scales: of the rows; None where they are the array's own.
    """

    rows: int
    columns: int | None
    tail: int
    scales: np.ndarray | None


class _Graph:
    """The constants of a graph, and the nodes that make its weights of them. onnx: the package."""

    def __init__(self, onnx: Any, store: WeightStore) -> None:
        self._onnx, self._store = onnx, store
        self.constants: list[Any] = []
        self.nodes: list[Any] = []

    def external(self, name: str, array: np.ndarray, within: np.ndarray | None = None) -> Any:
        """A constant of this name whose bytes are in the file of weights, or at the beginning of those of `within` there."""
        made = self._onnx.TensorProto(name=name, data_type=self._onnx.helper.np_dtype_to_tensor_dtype(array.dtype), dims=array.shape)
        made.data_location = self._onnx.TensorProto.EXTERNAL
        offset, _ = self._store.put(array if within is None else within)
        for key, value in (("location", WEIGHTS), ("offset", offset), ("length", array.nbytes)):
            made.external_data.add(key=key, value=str(value))
        return made

    def cut(self, name: str, full: np.ndarray, part: _Part) -> None:
        """Make the weight `name` of a part of the whole one."""
        unscaled = name if part.scales is None else f"{name}_unscaled"
        if part.columns is None:
            # The first rows of an array are the first bytes of it.
            self.constants.append(self.external(unscaled, full[: part.rows], within=full))
        else:
            self.constants.append(self.external(f"{name}_whole", full))
            first = f"{name}_first" if part.tail else unscaled
            self._slice(f"{name}_whole", first, [0, 0], [part.rows, part.columns])
            if part.tail:
                self._slice(f"{name}_whole", f"{name}_last", [0, full.shape[1] - part.tail], [part.rows, full.shape[1]])
                self.nodes.append(self._onnx.helper.make_node("Concat", [first, f"{name}_last"], [unscaled], axis=1))
        if part.scales is not None:
            column = part.scales.reshape(-1, *[1] * (full.ndim - 1))
            self.constants.append(self._onnx.numpy_helper.from_array(column, f"{name}_scales"))
            self.nodes.append(self._onnx.helper.make_node("Mul", [unscaled, f"{name}_scales"], [name]))

    def _slice(self, source: str, target: str, starts: list[int], ends: list[int]) -> None:
        numbers = {"starts": starts, "ends": ends, "axes": [0, 1]}
        self.constants += [self._onnx.numpy_helper.from_array(np.array(each, np.int64), f"{target}_{word}") for word, each in numbers.items()]
        self.nodes.append(self._onnx.helper.make_node("Slice", [source, *(f"{target}_{word}" for word in numbers)], [target]))


def _find_part(array: np.ndarray, full: np.ndarray) -> _Part | None:
    """Which part of `full` an array is, but for a scale of each row; None where it is none."""
    if array.ndim != full.ndim or array.dtype != full.dtype or array.shape[2:] != full.shape[2:]:
        return None
    if any(own > whole for own, whole in zip(array.shape, full.shape)):
        return None
    rows, num_rows = full[: len(array)], len(array)
    if array.shape[1:] == full.shape[1:]:
        return None if (scales := _scales(array, rows)) is None else _Part(num_rows, None, 0, *scales)
    count = array.shape[1]
    if (scales := _scales(array, rows[:, :count])) is not None:
        return _Part(num_rows, count, 0, *scales)
    # After a fusion: the first channels, and then always the same last ones (`layers.JoinedChannels`).
    for tail in range(1, count):
        columns = np.r_[0 : count - tail, full.shape[1] - tail : full.shape[1]]
        if _is_scaled(array[:, [-1, -tail, 0]], rows[:, columns[[-1, -tail, 0]]]) and (scales := _scales(array, rows[:, columns])) is not None:
            return _Part(num_rows, count - tail, tail, *scales)
    return None


def _scales(array: np.ndarray, part: np.ndarray) -> tuple[np.ndarray | None] | None:
    """The scale of each row that makes `array` of `part`, in a tuple, None in it where all are 1; None where there are no such."""
    if np.array_equal(array, part):
        return (None,)
    own, base = (each.reshape(len(each), -1).astype(np.float64) for each in (array, part))
    scales = (own * base).sum(1) / np.maximum((base * base).sum(1), np.finfo(np.float32).tiny)
    close = np.abs(own - base * scales[:, None]).max(1) <= _ROUNDING * np.abs(own).max(1)
    return (scales.astype(np.float32),) if close.all() else None


def _is_scaled(array: np.ndarray, part: np.ndarray) -> bool:
    return _scales(array, part) is not None
