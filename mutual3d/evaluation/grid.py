"""The grid of configurations, and the query table that measuring it gives (paper, 3.4 and 4.3)."""

import copy

import torch

from mutual3d.sampling import prepare_clip

from .cost import count_cost, evaluation_mode, latency_key, measure_latency
from .query_table import QueryTable, Row


def grid_configurations(space, step, signature):
    """The grid without repeats: of widths with one signature the least stays, but the greatest width always does."""
    chosen = {}
    for width in space.widths(step):
        chosen.setdefault(signature(width), width)
    chosen[signature(space.widths(step)[-1])] = space.widths(step)[-1]
    widths = set(chosen.values())
    return [c for c in space.grid(step) if c.width in widths]


def count_costs(model, configurations, crop):
    """{configuration: Cost} of one view cut at `crop` pixels."""
    meta = copy.deepcopy(model).to("meta")
    clip = torch.empty(1, 3, model.clip_frames, crop, crop, device="meta")
    inputs = whole_picture(meta, "meta")
    return {c: count_cost(meta.subnetwork(c), p, *inputs) for c, p in meta.fit_clips(clip, configurations)}


def whole_picture(model, device):
    """One box around everything, as a list of arguments, for a network that classifies boxes; else nothing."""
    return [torch.tensor([[0.0, 0.0, 0.0, 1.0, 1.0]], device=device)] if model.takes_boxes else []


def measure_latencies(model, configurations, crop, device, *, repeats, mean, std):
    """{device key: {configuration: median ms}} of one clip, from the uint8 clip at full size to the logits."""
    clip = torch.randint(0, 256, (1, 3, model.clip_frames, crop, crop), dtype=torch.uint8)
    model = copy.deepcopy(model).place(device)
    inputs = whole_picture(model, device)

    def runner(configuration):
        def prepare_run():
            model.activate(configuration)
            return lambda: model(model.fit_clip(prepare_clip(clip, device, mean, std)), *inputs)

        return prepare_run

    with evaluation_mode(model):
        runs = {c: runner(c) for c in configurations}
        return {latency_key(device): measure_latency(runs, device, repeats=repeats)}


def build_table(model, metrics, costs, latencies, provenance):
    """A QueryTable of the measured configurations, ascending. latencies: {device key: {configuration: ms}}."""
    rows = [
        Row(
            configuration=c,
            signature=model.signature(c.width),
            gflops=costs[c].gflops,
            parameters=costs[c].parameters,
            accuracy=metrics[c].values(),
            latency_ms={key: values[c] for key, values in latencies.items()},
        )
        for c in sorted(metrics)
    ]
    return QueryTable(rows, provenance)
