"""A scan on many machines: a pipeline of Ray Data whose actors each scan a part of the archive at a time."""

import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mutual3d.deploy.scan import Scanner, ShardTable, usable_cores
from mutual3d.utils.stopping import kept_handlers

if TYPE_CHECKING:  # an optional package
    import ray


def scan_on_ray(
    scanner: Scanner, parts: Sequence[Sequence[str]], address: str, *, num_actors: int | None = None, num_gpus: float = 0.0
) -> Iterator[tuple[int, ShardTable]]:
    """(number from 0, `Scanner.scan_shard`) of each part, as they are finished by actors of a Ray cluster.

    Each actor has a process that decodes and computes, as a worker of one machine has. One that dies, with its machine, is
    replaced by another one that scans its part again. All machines must see the videos under the same paths.

    Args:
        parts: the files of each. address: of the cluster, as of `ray.init`; `local` is one for this scan alone, here. Where the program is connected
            already, that cluster.
        num_actors: at most; None takes as many as the cluster has cores.
        num_gpus: of one actor.

    Raises ImportError where Ray is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError("scanning on Ray needs it: pip install -e .[ray]") from error
    # Ray leaves a handler of SIGTERM behind.
    with kept_handlers():
        is_own = not ray.is_initialized()
        if is_own:
            # A core beside the actors', for the pipeline.
            own: dict[str, Any] = {"num_cpus": (num_actors or usable_cores()) + 1, "include_dashboard": False} if address == "local" else {}
            ray.init(address=address, **own)
        try:
            yield from _scan(scanner, parts, num_actors, num_gpus)
        finally:
            if is_own:
                ray.shutdown()


def _scan(scanner: Scanner, parts: Sequence[Sequence[str]], num_actors: int | None, num_gpus: float) -> Iterator[tuple[int, ShardTable]]:
    import ray
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # the scan has its own
    actors = num_actors or max(int(ray.cluster_resources().get("CPU", 1)) - 1, 1)
    # Names of files may be bytes that are no text.
    items = [{"number": number, "paths": pickle.dumps(list(part))} for number, part in enumerate(parts)]
    if not items:
        return
    results = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        _Actor, fn_constructor_args=(ray.put(scanner),), batch_size=1, num_cpus=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(actors, len(items))),
        num_gpus=num_gpus,
    )  # fmt: skip
    for row in results.iter_rows():
        yield int(row["number"]), pickle.loads(row["table"])


class _Actor:
    """What Ray keeps: a scanner whose one worker, a process of its own, holds the network."""

    def __init__(self, scanner: "Scanner | ray.ObjectRef") -> None:
        if not isinstance(scanner, Scanner):
            import ray

            scanner = ray.get(scanner)
        assert isinstance(scanner, Scanner), "that is what was put there"
        self._scanner = scanner

    def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, Any]:
        tables = [pickle.dumps(self._scanner.scan_shard(pickle.loads(paths))) for paths in batch["paths"]]
        return {"number": batch["number"], "table": np.array(tables, dtype=object)}
