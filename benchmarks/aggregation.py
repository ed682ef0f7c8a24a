"""How far the bound holds by which a slimmable network may run at any width (US-Net, Eq. 1 to 3), in a trained network.

python benchmarks/aggregation.py demo/out/adaptive.pyth demo/data/test
python benchmarks/aggregation.py out/adaptive.pyth clip.mp4 --name mine --widths 9

For each layer, with the inputs that it has in the whole network: what its outputs lack where the first k of n inputs are summed.
Writes benchmarks/results/aggregation_NAME.csv, one row a layer and k, and a plot beside it.
"""

import argparse

import torch
from common import RESULTS, save_rows

from mutual3d.cli.export import read_all_clips
from mutual3d.deploy.adaptive_model import load
from mutual3d.evaluation.aggregation import aggregation_residuals
from mutual3d.report.aggregation import aggregation_figure
from mutual3d.report.plots import png_bytes
from mutual3d.utils.files import atomic_write


def measure(model, clips, num_widths):
    """The AggregationResidual of every layer, of clips that are computed together."""
    low, high = model.network.space.width_range
    widths = torch.linspace(low, high, num_widths, dtype=torch.float64).clamp(low, high).tolist()
    return aggregation_residuals(model.network, model.inputs(torch.cat(clips), model.network.space.largest), widths)


def rows_of(found):
    return [
        {"layer": each.layer, "n": each.counts[-1], "k": k, "residual": f"{residual:.5f}", "bounded": f"{bounded:.4f}"}
        for each in found
        for k, residual, bounded in zip(each.counts, each.residuals, (*each.bounded, 1.0))
    ]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", help="the adaptive.pyth of a run")
    parser.add_argument("sources", metavar="VIDEO", nargs="+", help="videos, images or folders")
    parser.add_argument("--name", default="demo", help="of the files that are written (default %(default)s)")
    parser.add_argument("--widths", type=int, default=7, help="from the min to the max of the network (default %(default)s)")
    parser.add_argument("--clips", type=int, default=8, help="that are computed together, at most (default %(default)s)")
    options = parser.parse_args(arguments)
    model = load(options.model)
    clips = read_all_clips(model, options.sources)[: options.clips]
    found = measure(model, clips, options.widths)
    save_rows(f"aggregation_{options.name}", rows_of(found))
    curves = {each.layer: (each.shares, each.residuals, each.bounded) for each in found}
    with atomic_write(RESULTS / f"aggregation_{options.name}.png") as temporary:
        temporary.write_bytes(png_bytes(aggregation_figure(curves, f"{options.name}, {len(clips)} clips, {len(found)} layers")))


if __name__ == "__main__":
    main()
