"""How long every configuration takes on this device, in each runtime that is installed; no data needed.

    mutual3d bench out/adaptive.pyth
    mutual3d bench out/adaptive.pyth --runtime openvino --threads 1 2 --batch 1 8
    mutual3d bench out/adaptive.pyth --video clip.mp4

It measures the configurations of the Pareto front over GFLOPs, every row of the table with --all, or those that --config names, by calls
with a uint8 clip at full size, warm and in turns, so that drift hits all alike. The columns (median, 90th and 99th percentile) are written
into the model's table beside those of other devices, with what was measured on; where the run's query_table.json lies beside
the model, into that and its csv too. A noisy configuration is measured again, and named where it stays so. --video adds what it takes to open, decode and cut a
clip, of which a configuration of few frames reads few: set_budget(latency_ms=..., source="file") counts it.

Exit status: 0 when something was measured, 1 when nothing could be, 2 when the arguments are wrong.
"""

import argparse
import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import simplejson
import torch

from mutual3d.cost.latency import Repeating
from mutual3d.cost.latency_key import EAGER
from mutual3d.data.video.decode import CHOICES
from mutual3d.deploy import AdaptiveModel
from mutual3d.deploy.adaptive_model import load
from mutual3d.deploy.fastest import measured_configurations
from mutual3d.deploy.predict import read_clips
from mutual3d.deploy.runtimes import RUNTIMES
from mutual3d.deploy.timing import Column, measure_columns, with_columns
from mutual3d.deploy.video_timing import FileTimes, time_file, with_file_times
from mutual3d.sampling import Configuration
from mutual3d.table.query_table import QueryTable
from mutual3d.utils.command_line import (
    check_output_argument,
    command_parser,
    count_argument,
    path_argument,
    positive_argument,
)  # fmt: skip
from mutual3d.utils.files import atomic_write, write_json
from mutual3d.utils.logging import logger
from mutual3d.utils.text import printable
from mutual3d.utils.words import unknown_word

_SUFFIXES = (".pyth", ".json", ".csv")
# Of a video, for a runtime that chooses its ranges by clips.
_CLIPS = 8


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; SystemExit, after a line that says why, for one that cannot be."""
    parser = command_parser("bench", __doc__)
    parser.add_argument("model", metavar="MODEL", type=path_argument, help="the adaptive.pyth of a run")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--all", action="store_true", help="every configuration of the table, instead of its Pareto front")
    which.add_argument("--config", nargs="+", metavar="C", help="these configurations, for example 0.8-160-9")
    parser.add_argument(
        "--runtime", nargs="+", metavar="NAME", type=_runtime_argument,
        help=f"runtimes to measure, of {', '.join([EAGER, *RUNTIMES])}; {EAGER} is PyTorch on the weights that all configurations share (default: those of them that are installed and compile in seconds)",
    )  # fmt: skip
    parser.add_argument("--batch", nargs="+", type=count_argument, default=[1], metavar="N", help="numbers of clips at a time (default 1)")
    parser.add_argument("--threads", nargs="+", type=count_argument, default=[], metavar="N", help="numbers of threads to compute with (default: as many as PyTorch uses here)")
    parser.add_argument("--repeats", type=count_argument, default=30, metavar="N", help="timed calls of each (default %(default)s)")
    parser.add_argument("--seconds", type=positive_argument, default=math.inf, metavar="S", help="time fewer calls after so long")
    parser.add_argument("--video", type=path_argument, metavar="CLIP", help="measure the whole way from this file, too")
    parser.add_argument("--backend", default="pyav", choices=CHOICES, help="decoder of --video (default pyav)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where PyTorch runs (default cpu)")
    parser.add_argument("--output", type=path_argument, metavar="FILE", help=".pyth, .json or .csv to write, instead of MODEL itself")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parsed = parser.parse_args(arguments)
    if parsed.output and Path(parsed.output).suffix.lower() not in _SUFFIXES:
        parser.error(f"--output is '{parsed.output}': let it end in {', '.join(_SUFFIXES)}")
    check_output_argument(parser, "--output", parsed.output, [parsed.video])
    return parsed


def _runtime_argument(text: str) -> str:
    """The type of an argument that names a runtime."""
    problem = unknown_word("the runtime", text, [EAGER, *RUNTIMES])
    if problem:
        raise argparse.ArgumentTypeError(problem)
    return text


def chosen_runtimes(names: Sequence[str] | None, model: AdaptiveModel) -> list[str | None]:
    """The runtimes to measure; of those that are named, what is not installed is left out and told.

    By default all that are installed, compute where the model's weights are, and need neither minutes to compile nor clips.
    Raises ImportError where none of the named ones is there.
    """
    weights = next(model.parameters())
    if not names:
        usual = [
            name for name, runtime in RUNTIMES.items()
            if (runtime.is_automatic or name == "torch") and runtime.is_installed and runtime.placement(weights)[0].type == weights.device.type
        ]  # fmt: skip
        return [None, *usual]
    asked = list(dict.fromkeys(names))
    there = [name for name in asked if name == EAGER or RUNTIMES[name].is_installed]
    for name in asked:
        if name not in there and there:
            extra = f": pip install -e .[{RUNTIMES[name].extra}]" if RUNTIMES[name].extra else ""
            logger.warning("the runtime %s is not installed, and not measured%s", name, extra)
    if not there:
        RUNTIMES[asked[0]].require()
    return [None if name == EAGER else name for name in there]


def chosen_configurations(model: AdaptiveModel, options: argparse.Namespace) -> list[Configuration]:
    """What is measured: what the options name, all rows of the table, or its Pareto front. ValueError without a table to ask."""
    if options.config:
        return list(dict.fromkeys(model.network.space.check(text) for text in options.config))
    if model.table is None:
        raise ValueError("this model has no query table: name what to measure with --config")
    return [row.configuration for row in model.table.rows] if options.all else measured_configurations(model)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these words, by default those of the command line; returns its exit status."""
    options = parse(arguments)
    model = load(options.model)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device is cuda, and torch sees no GPU here: leave --device out to run on the CPU")
    model.network.place(torch.device(options.device))
    configurations, runtimes = chosen_configurations(model, options), chosen_runtimes(options.runtime, model)
    repeating = Repeating(repeats=options.repeats, seconds=options.seconds)
    counts = options.threads or [torch.get_num_threads()]
    # First, since a clip that cannot be read shows at once.
    files = [
        time_file(model, options.video, configurations, threads=count, backend=options.backend, repeating=repeating)
        for count in (counts if options.video else [])
    ]  # fmt: skip
    clips = clips_of(model, options.video) if any(name and RUNTIMES[name].needs_clips for name in runtimes) else ()
    columns = measure_columns(
        model, configurations, runtimes=runtimes, batches=options.batch, threads=options.threads, repeating=repeating, clips=clips
    )
    columns = [column for column in columns if column.timings]
    if not columns:
        raise ValueError("no configuration runs in any of these runtimes: the lines above say why")
    written = write(model, columns, files, options)
    if options.json:
        print(simplejson.dumps({"columns": [to_dict(c) for c in columns], "files": [file_dict(f) for f in files], "written": written}))
        return 0
    for column in columns:
        print(describe(column, model.table))
    for times in files:
        print(describe_file(times, columns))
    print("written: " + ", ".join(written) if written else "nothing is written: the model has no table of these configurations")
    directory = Path(options.model).parent
    if len(written) > 1 and (directory / "report.html").is_file():
        print(f"report.html beside it shows the times from before: `mutual3d report {printable(directory)}` writes it anew")
    return 0


def clips_of(model: AdaptiveModel, video: str | None) -> Sequence[torch.Tensor]:
    """Clips of a video for a runtime that needs such; ValueError without a video."""
    if video is None:
        raise ValueError("a runtime of --runtime chooses its ranges by clips: give --video a video that the model is for")
    return list(read_clips(video, model.preprocessing, num_views=_CLIPS).clips_VCTHW.split(1))


# ---- Writing ---------------------------------------------------------------------------------------------------------


def write(model: AdaptiveModel, columns: Sequence[Column], files: Sequence[FileTimes], options: argparse.Namespace) -> list[str]:
    """Put the columns into the table of the model, or into the output; the paths, each written whole or not at all."""
    output = Path(options.output or options.model)
    if output.suffix.lower() == ".csv":
        save_csv(output, columns)
        return [str(output)]
    if output.suffix.lower() == ".json" and model.table is None:
        write_json(output, [to_dict(column) for column in columns])
        return [str(output)]
    if model.table is None:
        return []
    known = {row.configuration for row in model.table.rows}
    left_out = sorted({c for column in columns for c in column.timings} - known)
    if left_out:
        logger.warning("%s: no row of the table, so measured and not written", ", ".join(map(str, left_out)))
    if len(left_out) == len(columns[0].timings):
        return []
    model.table = joined(model.table, columns, files)
    if output.suffix.lower() == ".json":
        model.table.save_json(output)
        return [str(output)]
    device = next(model.parameters()).device
    model.network.place(torch.device("cpu"))
    model.save(output)
    model.network.place(device)
    return [str(output), *(write_beside(output.parent, model.table, columns, files) if not options.output else [])]


def joined(table: QueryTable, columns: Sequence[Column], files: Sequence[FileTimes]) -> QueryTable:
    """A table with what was measured."""
    table = with_columns(table, columns)
    for times in files:
        table = with_file_times(table, times, columns)
    return table


def write_beside(directory: Path, table: QueryTable, columns: Sequence[Column], files: Sequence[FileTimes]) -> list[str]:
    """Put the columns into the run's query_table.json and .csv as well, where these are of the same grid."""
    path = directory / "query_table.json"
    try:
        beside = QueryTable.load(path) if path.is_file() else None
    except ValueError as error:
        logger.warning("%s", error)
        return []
    mark = table.provenance.get("fingerprint")
    if beside is None or mark is None or beside.provenance.get("fingerprint") != mark:
        return []
    beside = joined(beside, columns, files)
    beside.save_json(path)
    beside.save_csv(path.with_suffix(".csv"))
    return [str(path), str(path.with_suffix(".csv"))]


def save_csv(path: Path, columns: Sequence[Column]) -> None:
    """One line for each configuration of each column."""
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["key", "configuration", "p50_ms", "p90_ms", "p99_ms", "spread", "repeats"])
        for column in columns:
            for c, t in sorted(column.timings.items()):
                writer.writerow([column.key, c, f"{t.p50:.5g}", f"{t.p90:.5g}", f"{t.p99:.5g}", f"{t.spread:.3g}", t.repeats])


# ---- Words -----------------------------------------------------------------------------------------------------------


def describe(column: Column, table: QueryTable | None) -> str:
    """A column as a text table: milliseconds, GFLOPs and accuracy, and which are noisy."""
    lines = [["configuration", "GFLOPs", table.words_of_metric().label if table else "", "p50 ms", "p90 ms", "p99 ms", "spread"]]
    rows = {row.configuration: row for row in table.rows} if table else {}
    for c in sorted(column.timings, key=lambda c: (rows[c].gflops if c in rows else 0.0, c)):
        t, row = column.timings[c], rows.get(c)
        known = [f"{row.gflops:.4g}", f"{table.accuracy(row):.2f}"] if table and row else ["-", "-"]
        noisy = " noisy" if t.is_noisy else ""
        lines.append([str(c), *known, f"{t.p50:.3g}", f"{t.p90:.3g}", f"{t.p99:.3g}", f"{100 * t.spread:.0f} %{noisy}"])
    return "\n".join([f"{column.key} ({column.about['runtime']})", *_aligned(lines), ""])


def describe_file(times: FileTimes, columns: Sequence[Column]) -> str:
    """What reading a clip takes beside the network's fastest column of as many threads."""
    lines = [["configuration", "decoding ms", "cutting ms", "network ms", "in all ms"]]
    single = [c for c in columns if c.key.batch == 1 and c.key.threads in (None, times.key.threads)]
    best = min(single, key=lambda column: sum(t.p50 for t in column.timings.values()) / len(column.timings), default=None)
    for c in sorted(times.decoding):
        network = best.timings[c].p50 if best and c in best.timings else None
        found = ["-", "-"] if network is None else [f"{network:.3g}", f"{times.total(c) + network:.3g}"]
        lines.append([str(c), f"{times.decoding[c].p50:.3g}", f"{times.cutting[c].p50:.3g}", *found])
    named = f", network {best.key.runtime}" if best else ""
    return "\n".join([f"{times.key}: from {times.about['video']}, {times.about['size']}{named}", *_aligned(lines), ""])


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in lines]


def to_dict(column: Column) -> dict[str, Any]:
    """A column as plain data."""
    rows = [
        {"configuration": str(c), "p50_ms": t.p50, "p90_ms": t.p90, "p99_ms": t.p99, "spread": t.spread, "repeats": t.repeats}
        for c, t in sorted(column.timings.items())
    ]
    failed = {str(c): cause for c, cause in column.failed.items()}
    return {"key": str(column.key), "rows": rows, "failed": failed, "provenance": dict(column.about)}


def file_dict(times: FileTimes) -> dict[str, Any]:
    """What reading takes, as plain data."""
    rows = [
        {"configuration": str(c), "decoding_ms": times.decoding[c].p50, "cutting_ms": times.cutting[c].p50}
        for c in sorted(times.decoding)
    ]
    return {"key": str(times.key), "rows": rows, "provenance": dict(times.about)}
