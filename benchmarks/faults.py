"""Inject faults into real runs of a tiny set and network, and count how many are survived.

python benchmarks/faults.py                                    # all kinds; several minutes
python benchmarks/faults.py --kinds signals damage --limit 20

Survived means that the run, or the same command once more where the fault ends it, finishes with the results of an
undisturbed run to the bit; or, where only a person can put it right (two runs in one directory, a full disk, changed
settings), that it is refused in a sentence that says what is wrong, with nothing lost. A traceback, a hang and other
results are never survived. Most runs are forked from a process that has imported everything; interpreters that start anew
are used where the fault lies in how one starts (locale, pipes, torchrun). Writes benchmarks/results/faults.csv, one row an
injection; rows of kinds that are not run stay as they are. Exit status 1 where one is not survived.
"""

import argparse
import csv
import json
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import matplotlib.figure  # noqa: F401  imported once, for all forked runs
import torch
from common import RESULTS, write_csv
from injecting.kinds import KINDS
from injecting.runs import NotSurvived, Workshop


class Injected(NamedTuple):
    """One fault, and how the run came out of it."""

    kind: str
    fault: str
    survived: bool
    how: str
    seconds: float


def inject(
    kinds: list[str], directory: Path, *, seed: int = 0, limit: int | None = None, only: list[str] | None = None,
    share: tuple[int, int] = (0, 1),
) -> list[Injected]:  # fmt: skip
    """Inject the faults of `kinds` into runs in `directory`.

    `only`: those whose names hold one of these texts. `limit`: a seeded choice of so many of each kind. `share` (k, n): of
    these, every n-th from the k-th on.
    """
    shop, results = Workshop(directory, seed), []
    for kind in kinds:
        injections = [each for each in KINDS[kind](shop) if only is None or any(text in each[0] for text in only)]
        if limit is not None and limit < len(injections):
            injections = random.Random(seed).sample(injections, limit)
        for fault, act in injections[share[0] :: share[1]]:
            began = time.monotonic()
            try:
                survived, how = True, act()
            except NotSurvived as error:
                survived, how = False, str(error)
            except Exception as error:  # a fault in this command is no survival
                survived, how = False, f"not judged: {type(error).__name__}: {error}"
                traceback.print_exc()
            results.append(Injected(kind, fault, survived, how, round(time.monotonic() - began, 1)))
            if not survived:
                print(f"NOT SURVIVED: {kind}: {fault}: {how}", flush=True)
    return results


def inject_in_processes(processes: int, kinds: list[str], directory: Path, **options) -> list[Injected]:
    """As `inject`, shared among processes, each with a workshop of its own."""
    children = []
    for place in range(processes):
        own = directory / str(place)
        own.mkdir()
        pid = os.fork()
        if pid == 0:
            try:
                results = inject(kinds, own, share=(place, processes), **options)
                (own / "results.json").write_text(json.dumps(results))
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(0)
        children.append((pid, own))
    results = []
    for pid, own in children:
        os.waitpid(pid, 0)
        results += [Injected(*row) for row in json.loads((own / "results.json").read_text())]
    return sorted(results, key=lambda result: (kinds.index(result.kind), result.fault))


def report(results: list[Injected]) -> int:
    """Print survived / injected by kind, and a line for each that was not; returns how many were not."""
    injected, survived = Counter(r.kind for r in results), Counter(r.kind for r in results if r.survived)
    for result in results:
        if not result.survived:
            print(f"not survived: {result.kind}: {result.fault}: {result.how}")
    for kind, count in injected.items():
        print(f"{kind:16}{survived[kind]:>5} / {count}")
    print(f"{'all':16}{sum(survived.values()):>5} / {len(results)}")
    return len(results) - sum(survived.values())


def _other_kinds(path: Path, kinds: list[str]) -> list[dict]:
    """Rows of an earlier run that are of none of these kinds."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["kind"] not in kinds]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS), metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="faults whose names hold one of these texts")
    parser.add_argument("--limit", type=int, help="at most so many of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="an empty folder to work in, which is kept")
    parser.add_argument("--csv", type=Path, default=RESULTS / "faults.csv")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        directory = options.keep or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        chosen = {"seed": options.seed, "limit": options.limit, "only": options.only}
        results = inject_in_processes(options.processes, options.kinds, directory, **chosen)
    if not results:
        sys.exit("no fault has such a name")
    write_csv(options.csv, _other_kinds(options.csv, options.kinds) + [result._asdict() for result in results])
    return 1 if report(results) else 0


if __name__ == "__main__":
    sys.exit(main())
