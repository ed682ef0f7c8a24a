"""Searching at any budget: queries embedded at one configuration against an index that was made at the largest.

python benchmarks/retrieval.py --model demo/out/adaptive.pyth --list demo/data/test.csv
python benchmarks/retrieval.py --model alone/adaptive.pyth agreeing/adaptive.pyth --list demo/data/test.csv

Every video of the list is in the index. `own` is the share of queries whose nearest one is the same video (recall at 1), `own_5` that it
is among the five nearest; `class` is the share whose nearest other video is of the same class. The first row of a model is the index
searched by itself; the queries' configurations are the smallest and those of --configs. Writes benchmarks/results/retrieval.csv, a row
a model and configuration.
"""

import argparse
from pathlib import Path

import torch
from common import save_rows

import mutual3d
from mutual3d.data.datasets.kinetics import read_video_list
from mutual3d.deploy import Decoding


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, nargs="+", required=True, help="the adaptive.pyth of runs to compare")
    parser.add_argument("--list", type=Path, required=True, help="`path label` rows")
    parser.add_argument("--configs", nargs="*", default=[], help="of queries, beside the smallest of the space")
    return parser.parse_args()


def recalls(queries, index, labels):
    """(own, own_5, class): see above."""
    similarity = queries.cosine(index)
    ranked = similarity.argsort(dim=1, descending=True)
    own = torch.arange(len(labels))[:, None]
    others = similarity.clone().fill_diagonal_(-2).argmax(1)
    return ((ranked[:, :k] == own).any(1).float().mean().item() for k in (1, 5)), (labels[others] == labels).float().mean().item()


def main():
    options = parse()
    videos = read_video_list(options.list)
    labels = torch.tensor([video.label for video in videos])
    rows = []
    for path in options.model:
        model = mutual3d.load(path)
        space = model.network.space
        quiet = Decoding(progress=False)
        index = model.embed([video.path for video in videos], space.largest, decoding=quiet)
        assert len(index) == len(videos), "a video cannot be read"
        costs = {row.configuration: row.gflops for row in model.table.rows}
        for configuration in dict.fromkeys(map(space.check, [str(space.largest), *options.configs, str(space.smallest)])):
            queries = index if configuration == space.largest else model.embed([v.path for v in videos], configuration, decoding=quiet)
            (own, own_5), same_class = recalls(queries, index, labels)
            similarity = queries.cosine(index).diagonal().mean().item()
            rows.append({
                "model": path.parent.name, "index": space.largest, "queries": configuration, "gflops": f"{costs[configuration]:.4g}" if configuration in costs else "",
                "own": f"{own:.3f}", "own_5": f"{own_5:.3f}", "class": f"{same_class:.3f}", "mean_cosine": f"{similarity:.3f}",
                "videos": len(videos), "features": index.features_NF.shape[1],
            })  # fmt: skip
    save_rows("retrieval", rows)


if __name__ == "__main__":
    main()
