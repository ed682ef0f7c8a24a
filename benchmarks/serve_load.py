"""Clients with mixed budgets at `mutual3d serve`, compared with the largest configuration behind the same service.

python benchmarks/serve_load.py demo/out/adaptive.pyth --video demo/data/test/00000.mp4 --payload video
python benchmarks/serve_load.py --cfg configs/Kinetics/MUTUAL_X3D_XS.yaml --runtime openvino --deadline-ms 400

Starts the service on a free port of this machine. 1, 8 and 32 clients each send the next request when the last one is answered, for
`--seconds`: a clip that is decoded already (`--payload clip`), or the video (`--payload video`). `adaptive`: each client asks for the budget of
each row of the front in turn, and for none, each beginning at another one. `largest`: each names the most accurate configuration, which the service then
holds, and whose deadlines it keeps by refusing alone. The two take turns. A request that is refused (429) counts as one that misses its
deadline, and its client waits for a tenth of a second. Times are the clients', on the same cores. Of a config, weights and statistics are
random: what the networks cost that answered is real, and no accuracy is told. Writes benchmarks/results/serve_load.csv.
"""

import argparse
import asyncio
import collections
import io
import itertools
import os
import statistics
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
import torch
from common import machine, save_rows
from serving import serving
from switching import make_model

from mutual3d.cost.flops import count_costs
from mutual3d.deploy import AdaptiveModel
from mutual3d.pipeline import load_config
from mutual3d.pipeline.build import preprocessing_of
from mutual3d.table.query_table import QueryTable, Row

_PATIENCE = 0.1


class Counted:
    """What the clients of one policy saw."""

    def __init__(self):
        self.milliseconds, self.accuracies, self.gflops, self.met, self.lowered, self.batches = [], [], [], 0, 0, []
        self.statuses = collections.Counter()

    def add(self, response, milliseconds, deadline_ms):
        self.statuses[response.status_code] += 1
        if response.status_code == 200:
            found = response.json()
            self.milliseconds.append(milliseconds)
            self.accuracies.append(found["row"]["accuracy"])
            self.gflops.append(found["row"]["gflops"])
            self.batches.append(found["batch"])
            self.met += milliseconds <= deadline_ms
            self.lowered += found["lowered"]


async def run_client(client, address, payload, queries, options, counted, end):
    """Ask for the budgets of `queries`, one after the other, until `end`."""
    for query in itertools.cycle(queries):
        start = time.perf_counter()
        if start >= end:
            return
        response = await client.post(f"{address}/predict", params=query, files={"file": ("upload", payload)})
        counted.add(response, 1000 * (time.perf_counter() - start), options.deadline_ms)
        if response.status_code == 429:
            await asyncio.sleep(_PATIENCE)


async def run_clients(address, payload, queries, count, options):
    """`Counted` of so many clients; each begins at another query."""
    counted, end = Counted(), time.perf_counter() + options.seconds
    limits = httpx.Limits(max_connections=count, max_keepalive_connections=count)
    async with httpx.AsyncClient(timeout=60, limits=limits) as client:
        await asyncio.gather(*(
            run_client(client, address, payload, _from(queries, number), options, counted, end) for number in range(count)
        ))  # fmt: skip
    return counted


def _from(queries, number):
    """The queries, from that of a client's number on."""
    first = number % len(queries)
    return [*queries[first:], *queries[:first]]


def payload_of(options, table):
    """The bytes that each request sends."""
    if options.payload == "video":
        return Path(options.video).read_bytes()
    file = io.BytesIO()
    shape = (3, table["frames"], table["crop"], table["crop"])
    np.save(file, np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    return file.getvalue()


def row_of(policy, count, counted, options, table):
    total = sum(counted.statuses.values())
    times = counted.milliseconds or [float("nan")]
    return {
        "model": Path(options.cfg).stem if options.cfg else Path(options.model).parent.name, "policy": policy, "clients": count, "payload": options.payload, "runtime": table["device"], "deadline_ms": f"{options.deadline_ms:g}",
        "requests": total, "answered": counted.statuses[200], "refused": counted.statuses[429],
        "others": total - counted.statuses[200] - counted.statuses[429], "answers_per_second": f"{counted.statuses[200] / options.seconds:.1f}",
        "p50_ms": f"{np.percentile(times, 50):.1f}", "p99_ms": f"{np.percentile(times, 99):.1f}",
        "met_percent": f"{100 * counted.met / max(total, 1):.1f}",
        "mean_accuracy": f"{statistics.mean(counted.accuracies):.2f}" if counted.accuracies and not options.cfg else "",
        "mean_gflops": f"{statistics.mean(counted.gflops):.4g}" if counted.gflops else "",
        "lowered_percent": f"{100 * counted.lowered / max(counted.statuses[200], 1):.1f}",
        "mean_batch": f"{statistics.mean(counted.batches):.2f}" if counted.batches else "",
        "load_average": f"{os.getloadavg()[0]:.1f}", "machine": machine(),
    }  # fmt: skip


def make_bundle(options, folder):
    """The adaptive.pyth of a config's network, calibrated at random, at six configurations from the cheapest to the dearest."""
    cfg = load_config(options.cfg, [])
    torch.manual_seed(0)
    network, chosen = make_model(cfg, 6)
    costs = count_costs(network, chosen, cfg.DATA.TRAIN_CROP_SIZE)
    rows = [
        Row(c, network.signature(c.width), costs[c].gflops, costs[c].parameters, {"top1_acc": 10.0 + place}) for place, c in enumerate(chosen)
    ]  # fmt: skip
    table = QueryTable(rows, {"metric": "top1_acc", "split": "none", "num_views": 1, "crop": cfg.DATA.TRAIN_CROP_SIZE})
    AdaptiveModel(network, preprocessing=preprocessing_of(cfg), table=table).save(folder / "adaptive.pyth")
    return folder / "adaptive.pyth"


def compare(options):
    """The rows of all numbers of clients."""
    rows = []
    with tempfile.TemporaryDirectory() as folder, serving(make_bundle(options, Path(folder)) if options.cfg else options.model, "--deadline-ms", options.deadline_ms, "--runtime", options.runtime) as service:
        table = httpx.get(f"{service.address}/table", timeout=30).json()
        payload, front = payload_of(options, table), [row for row in table["rows"] if row["on_front"]]
        common = {"deadline_ms": options.deadline_ms, "top": 1}
        policies = {
            "adaptive": [{**common, "latency_ms": row["latency_ms"]} for row in front] + [common],
            "largest": [{**common, "configuration": front[-1]["configuration"]}],
        }
        asyncio.run(run_clients(service.address, payload, policies["adaptive"], 2, argparse.Namespace(**{**vars(options), "seconds": 1.0})))
        for count in options.clients:
            for policy, queries in policies.items():
                counted = asyncio.run(run_clients(service.address, payload, queries, count, options))
                rows.append(row_of(policy, count, counted, options, table))
                print(rows[-1], flush=True)
    return rows


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="demo/out/adaptive.pyth", help="an adaptive.pyth (default demo/out/adaptive.pyth)")
    parser.add_argument("--cfg", help="the YAML of a network, in place of a model")
    parser.add_argument("--video", default="demo/data/test/00000.mp4", help="default demo/data/test/00000.mp4")
    parser.add_argument("--payload", choices=["clip", "video"], default="clip", help="what is sent (default clip)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32], help="default 1 8 32")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each policy and number of clients (default 10)")
    parser.add_argument("--deadline-ms", type=float, default=200.0, help="default 200")
    parser.add_argument("--runtime", default="auto", help="default auto")
    parser.add_argument("--output", default="serve_load", help="name of the csv (default serve_load)")
    return parser.parse_args(arguments)


def main():
    options = parse()
    save_rows(options.output, compare(options))


if __name__ == "__main__":
    main()
