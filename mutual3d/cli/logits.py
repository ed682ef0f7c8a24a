"""Write what a trained network says of a list of videos: the logits that another training learns from beside its labels.

    mutual3d logits out/adaptive.pyth --out teacher.pyth
    mutual3d logits out/adaptive.pyth --split train --views 4 --out teacher.pyth DATA.PATH_TO_DATA_DIR /data/k400
    torchrun --nproc_per_node 8 -m mutual3d logits out/adaptive.pyth --out teacher.pyth
    mutual3d run --cfg small/config.yaml TRAIN.TEACHER_LOGITS teacher.pyth

The network is the largest of a mutual run's, or --config, or the one of a static run (MUTUAL.ENABLE False). Each video is seen as it is
measured: the centre crop of one clip, or of --views clips spread over time, whose logits are averaged. A killed pass goes on with the same words.

The file is a dict of torch.save: paths, a list of texts; logits, a float tensor with a row for each of them; and classes, the names of the
columns. Whatever writes such a file makes a teacher. Videos that cannot be read have no row, and end the command where they are
more than DATA_LOADER.MAX_UNREADABLE_TEST.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mutual3d.cli.chosen_model import config_of
from mutual3d.pipeline import check_machine, load_config, logits_plan, machine_of, write_logits
from mutual3d.pipeline.extend import import_extension
from mutual3d.utils import distributed
from mutual3d.utils.command_line import check_output_argument, command_parser, count_argument, parse_with_settings, path_argument
from mutual3d.utils.files import ensure_directory
from mutual3d.utils.stopping import stoppable
from mutual3d.utils.text import printable


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; SystemExit, after a line that says why, for one that cannot be."""
    parser = command_parser("logits", __doc__)
    parser.add_argument("model", metavar="MODEL", type=path_argument, help="the adaptive.pyth of a run")
    parser.add_argument("--out", required=True, type=path_argument, help="the file to write, such as teacher.pyth")
    parser.add_argument("--split", default="train", metavar="NAME", help="the list of the videos (default %(default)s)")
    parser.add_argument("--views", type=count_argument, default=1, metavar="N", help="clips of a video whose logits are averaged (default %(default)s)")
    parser.add_argument("--config", help="width-pixels-frames, for example 1-224-16 (default: the largest)")
    parser.add_argument("--cfg", help="the config of the run (default: the config.yaml beside the model)")
    parser.add_argument("--extend", action="append", default=[], type=path_argument, metavar="FILE",
                        help="a Python file that registers a network or data set of yours; imported first")  # fmt: skip
    options, settings = parse_with_settings(parser, arguments)
    options.opts = settings
    check_output_argument(parser, "--out", options.out, [options.model, options.cfg])
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with these words, by default those of the command line."""
    options = parse(arguments)
    for path in options.extend:
        import_extension(path)
    model, out = Path(options.model), Path(options.out)
    # What the run itself learned from has no part in what it says.
    cfg = load_config(config_of(model, options.cfg), [*options.opts, "TRAIN.ENABLE", "False"])
    check_machine(cfg)
    machine = machine_of(cfg)
    ensure_directory(out.parent)
    device = distributed.choose_device(machine.num_gpus)
    with stoppable(machine.max_minutes), distributed.process_group(device, machine.backend):
        plan = logits_plan(cfg, model, out, split=options.split, num_views=options.views, configuration=options.config)
        metric = write_logits(plan, device)
        if distributed.is_main():
            found = ", ".join(f"{name} {value:.2f}" for name, value in metric.values().items())
            print(f"written: {printable(out)}, the logits of {metric.num_videos:,} videos of '{options.split}' ({found})")
