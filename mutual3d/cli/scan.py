"""What one network sees in an archive of videos, as one table: parquet or csv, a row a video, a window or an event.

    mutual3d scan out/adaptive.pyth videos --out found.parquet
    mutual3d scan out/adaptive.pyth archive.txt --out found.csv --mean-gflops 0.5 --workers 8
    mutual3d scan out/adaptive.pyth videos --out events.csv --window 2s --events --background nothing
    mutual3d scan out/adaptive.pyth archive.txt --out found.parquet --gflops 2 --shard 3/16

PATHS are videos, images, folders, patterns, and lists of them: a .txt with a path a line, or a .csv as those of training. Each worker decodes and
computes, on one core. A budget on the mean runs a cascade: the time goes to the videos that the network is not sure of.

Columns are path, start and end (seconds), label, confidence, label_2, ... Beside it, NAME.unreadable.csv has what cannot be read, and
NAME.scan.json how the table was made. A killed scan goes on with the same words, and its table is that of one that was not killed; another
model, other videos or settings are refused, and a video that has changed meanwhile is scanned again. Shares may run anywhere; the same words without --shard do what is missing, and write the table.

Exit status: 0 when every video was read, 1 when some are unreadable or something else is wrong, 2 when the arguments are.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from mutual3d.cli.budgets import budgets_of, check_choice
from mutual3d.cli.chosen_model import MANY_VIDEOS, add_choice, choose, describe_active, load_chosen
from mutual3d.cli.looking import add_events, add_looks, check_events, check_windows, events_of, reading_of
from mutual3d.cost.axes import COSTS
from mutual3d.data.workers.process import begin_to_fork
from mutual3d.deploy import AdaptiveModel
from mutual3d.deploy.compiled import model_fingerprint
from mutual3d.deploy.scan import BUNDLE_MODULE, Scanner, ScanSettings, parts_of, usable_cores
from mutual3d.deploy.scan_files import ScanFiles, ShareOfParts, Totals, states_of, write_parts
from mutual3d.deploy.scan_ray import scan_on_ray
from mutual3d.deploy.sources import list_archive
from mutual3d.deploy.spending import Spending
from mutual3d.deploy.timeline import check_background
from mutual3d.utils.command_line import (
    check_output_argument,
    command_parser,
    count_argument,
    explained,
    path_argument,
)  # fmt: skip
from mutual3d.utils.fingerprint import fingerprint
from mutual3d.utils.run_lock import run_lock
from mutual3d.utils.text import printable
from mutual3d.utils.threads import computing_threads


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; SystemExit, after a line that says why, for one that cannot be."""
    parser = command_parser("scan", __doc__)
    parser.add_argument("model", type=path_argument, help="the adaptive.pyth of a run")
    parser.add_argument("paths", nargs="+", metavar="PATHS", type=path_argument, help="videos, folders, patterns, lists (.txt, .csv)")
    parser.add_argument("--out", required=True, type=path_argument, help="the table: a name that ends in .parquet or .csv")
    config = "width-pixels-frames, for example 0.8-160-9, or a cascade, 0.25-64-4@0.83+0.8-160-9"
    add_choice(parser, config=config, runtime=f"auto from {MANY_VIDEOS} videos on", with_means=True)
    parser.add_argument("--workers", type=count_argument, help="processes, or actors (default: one a core)")
    add_looks(parser)
    add_events(parser)
    parser.add_argument("--shard", type=explained(ShareOfParts.parse), metavar="K/N", help="do the K-th of N shares; no table is written")
    parser.add_argument("--join", action="store_true", help="write the table of the shares that are done")
    parser.add_argument("--ray", metavar="ADDRESS", help="scan on a Ray cluster: address, auto, or local")
    parser.add_argument("--anew", action="store_true", help="replace what an earlier scan left")
    parsed = parser.parse_args(arguments)
    check_choice(parser, parsed)
    check_output_argument(parser, "--out", parsed.out, [parsed.model, *parsed.paths])
    check_windows(parser, parsed)
    check_events(parser, parsed)
    if parsed.shard is not None and (parsed.ray or parsed.join or parsed.anew):
        parser.error("--shard is one of several jobs: leave --ray, --join and --anew out")
    return parsed


def settings_of(options: argparse.Namespace) -> ScanSettings:
    """How the options say that videos are scanned."""
    return ScanSettings(reading_of(options), 1 if options.events else options.top, options.batch, events_of(options))


def request_of(model: AdaptiveModel, paths: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    """All that a row depends on, as it was asked for; the keys are words for messages."""
    events = events_of(options)
    weights = model_fingerprint(model.network), model.network.statistics, model.preprocessing, model.class_names
    return {
        "model": fingerprint(*weights), "list of videos": fingerprint([os.path.abspath(path) for path in paths]), "--config": options.config, "budget": budgets_of(options),
        "--device-key": options.device_key, "--runtime": options.runtime, "--device": options.device, "--window": options.window,
        "--step": options.step, "--views": options.views, "--top": options.top, "--batch": options.batch, "--backend": options.backend,
        "--events": None if events is None else [events.threshold, sorted(events.background)],
    }  # fmt: skip


def prepare(model: AdaptiveModel, options: argparse.Namespace, num_videos: int, chosen: dict[str, Any] | None) -> dict[str, Any]:
    """Activate what the options ask for, or `chosen`, what a scan that goes on chose when it began; what that is, as plain data.

    num_videos: of the archive.
    """
    # A worker computes on one core: what is measured for a budget in time, and to find a runtime, is measured so.
    with computing_threads(1):
        if chosen is None:
            model.run_in(_runtime(options.runtime or ("auto" if num_videos >= MANY_VIDEOS else None)))
            choose(model, options)
            spending = None if model.spending is None else model.spending.to_dict()
            return {"configuration": str(model.cascade or model.active), "runtime": model.runtime, "spending": spending}
        model.run_in(chosen["runtime"])
        if chosen["spending"] is None:
            model.activate(chosen["configuration"])
        else:
            model.spend(Spending.from_dict(chosen["spending"], {**COSTS, **(model.table.costs if model.table else {})}))
        return chosen


def _runtime(word: str | None) -> str | None:
    return None if word == "none" else word


def tell(model: AdaptiveModel, files: ScanFiles, totals: Totals) -> int:
    """Print what a finished scan came to; the exit status."""
    if model.spending is not None:
        spending = model.spending.anew()
        spending.counts = list(totals.counts) or spending.counts
        print(f"cascade: {spending}")
    print(f"written: {printable(files.out)}, {totals.num_rows:,} rows of {totals.num_videos:,} videos")
    if totals.num_bad:
        print(f"{totals.num_bad:,} of {totals.num_videos:,} videos cannot be read: {printable(files.unreadable)} says why", file=sys.stderr)
    return 1 if totals.num_bad else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these words, by default those of the command line; returns its exit status."""
    options = parse(arguments)
    if not options.ray:  # the workers' imports meanwhile
        begin_to_fork(BUNDLE_MODULE)
    settings, files = settings_of(options), ScanFiles(options.out, 1 if options.events else options.top)
    paths = list_archive(options.paths)
    model = load_chosen(options.model, options.device, None)
    if model.class_names is not None:  # before anything is written down
        check_background(options.background, model.class_names)
    request = request_of(model, paths, options)
    if options.anew:
        files.forget()
    state, chosen = files.find(request)
    if options.join and state == "nothing":
        raise ValueError(f"there are no parts of a scan to join in '{files.parts}'")
    parts = parts_of(paths)
    if state == "finished":
        files.check_unchanged(states_of(parts, range(len(parts))))
    chosen = prepare(model, options, len(paths), chosen)
    if state == "finished":
        print(f"{printable(files.out)} is finished; --anew scans again")
        return tell(model, files, files.totals())
    agreed = files.begin(request, chosen) if state == "nothing" else chosen
    if agreed != chosen:  # another job of the scan was first
        chosen = prepare(model, options, len(paths), agreed)
    share = options.shard or ShareOfParts()
    workers = options.workers or usable_cores()
    scanner = Scanner(model, settings, workers=1 if options.ray else workers)
    print(f"{len(paths):,} videos: {describe_active(model)}{f', in {model.runtime}' if model.runtime else ''}", flush=True)
    try:
        if options.shard is not None:
            write_parts(files, parts, share, scanner.scan_as_ready)
            print(f"share {share.number} of {share.count} is done; the same words without --shard write {printable(files.out)}")
            return 0
        with run_lock(files.parts, instead="another --out"):
            if options.ray:
                gpus = 1.0 if options.device == "cuda" else 0.0
                write_parts(files, parts, share, lambda left: scan_on_ray(scanner, left, options.ray, num_actors=options.workers, num_gpus=gpus))
            elif options.join:
                files.done(states_of(parts, range(len(parts))))  # without parts whose videos have changed
            else:
                write_parts(files, parts, share, scanner.scan_as_ready)
            totals = files.join(len(parts), request, chosen)
    finally:
        scanner.close()
    return tell(model, files, totals)
