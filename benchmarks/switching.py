"""What switching the configuration costs beside one forward at the cheapest configuration.

python benchmarks/switching.py --cfg configs/Kinetics/MUTUAL_X3D_M.yaml

Statistics are random: they do not change the time. Writes benchmarks/results/switching.csv.
"""

import torch
from common import machine, paired_medians, parse_timing, replace_row

from mutual3d.layers import BNStatistics, slimmable_norms
from mutual3d.models import build_model
from mutual3d.pipeline import load_config

SWITCHES = 1000


def random_statistics(model, configuration):
    channels = {name: norm.rule.at(configuration.width) for name, norm in slimmable_norms(model).items()}
    return BNStatistics(
        {name: torch.randn(count) for name, count in channels.items()},
        {name: torch.rand(count) + 0.5 for name, count in channels.items()},
    )


def compare(path, repeats):
    cfg = load_config(path)
    model = build_model(cfg).place(torch.device("cpu")).eval()
    corners = model.space.corners()
    model.set_statistics({c: random_statistics(model, c) for c in corners})
    clip = torch.randn(1, 3, model.clip_frames, cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TRAIN_CROP_SIZE)
    pathways = model.activate(model.space.smallest).fit_clip(clip)

    def switch():
        for i in range(SWITCHES):
            model.activate(corners[i % len(corners)])

    def forward():
        model.activate(model.space.smallest)
        with torch.no_grad():
            model(pathways)

    seconds = paired_medians({"switch": switch, "forward": forward}, repeats)
    switch_us, forward_us = 1e6 * seconds["switch"] / SWITCHES, 1e6 * seconds["forward"]
    return {
        "config": path, "switch_us": f"{switch_us:.1f}", "cheapest_forward_us": f"{forward_us:.0f}",
        "switch_percent_of_forward": f"{100 * switch_us / forward_us:.3f}", "machine": machine(),
    }  # fmt: skip


def main():
    options = parse_timing(__doc__, cfg="configs/Kinetics/MUTUAL_X3D_M.yaml", repeats=11)
    torch.set_num_threads(2)
    replace_row("switching", "config", compare(options.cfg, options.repeats))


if __name__ == "__main__":
    main()
