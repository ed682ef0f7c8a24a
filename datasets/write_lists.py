"""Write train.csv, val.csv and test.csv from the files that a data set is published with; see its page in datasets/.

    python datasets/write_lists.py kinetics --train annotations/train.csv --val annotations/validate.csv --videos /data/k400 --output /data/k400
    python datasets/write_lists.py ucf101 --lists ucfTrainTestlist --videos UCF-101 --output /data/ucf101
    python datasets/write_lists.py hmdb51 --lists testTrainMulti_7030_splits --videos hmdb51_org --output /data/hmdb51
    python datasets/write_lists.py charades --train Charades_v1_train.csv --val Charades_v1_test.csv --videos frames \\
        --output /data/charades
    python datasets/write_lists.py jhmdb --lists splits --videos ReCompress_Videos --boxes puppet_mask --output /data/jhmdb
    python datasets/write_lists.py keyframes --lists /data/jhmdb --boxes /data/jhmdb/boxes.csv --output /data/jhmdb_ava
    python datasets/write_lists.py leave-one-out --lists /data/weizmann --output /data/weizmann_folds

Videos that are not there are left out, counted, and named in {split}_missing.txt.
"""

import argparse
from pathlib import Path

from mutual3d.data.datasets.kinetics import write_lines
from mutual3d.data.datasets.labels import read_class_names
from mutual3d.data.prepare import official_lists
from mutual3d.data.prepare.jhmdb import MOTION_CLASSES, write_jhmdb
from mutual3d.data.prepare.keyframes import write_keyframes
from mutual3d.data.prepare.leave_one_out import write_leave_one_out
from mutual3d.utils.command_line import check_output_argument, count_argument, path_argument, print_error, run_command


def main(arguments=None):
    args = parse_arguments(arguments)
    try:
        for split, (count, missing) in args.write(args).items():
            print(f"{Path(args.output) / split}.csv: {count} videos, {len(missing)} more are not there")
            names = Path(args.output) / f"{split}_missing.txt"
            if missing:
                write_lines(names, missing)
            else:  # of an earlier call
                names.unlink(missing_ok=True)
    except (ValueError, OSError) as error:
        print_error(error)
        return 1
    return 0


def write_kinetics(args):
    lists = {split: official_lists.read_kinetics(path) for split, path in _splits(args).items()}
    names = read_class_names(args.classes) if args.classes else sorted({entry.class_name for entry in lists["train"]})
    return official_lists.write_lists(args.output, lists, args.videos, names)


def write_folds(args):
    read = {"ucf101": official_lists.read_ucf101, "hmdb51": official_lists.read_hmdb51}[args.dataset]
    lists, names = read(args.lists, args.split)
    # Published as two parts: validation and the multi-view test read the same one.
    return official_lists.write_lists(args.output, {**lists, "val": lists["test"]}, args.videos, names)


def write_jhmdb_lists(args):
    return write_jhmdb(args.output, args.lists, args.videos, split=args.split, motion=args.motion, boxes=args.boxes)


def write_ava_set(args):
    return write_keyframes(args.output, args.lists, args.boxes, args.num_workers)


def write_left_out(args):
    return write_leave_one_out(args.output, args.lists)


def write_charades(args):
    return {
        split: official_lists.write_charades_frames(Path(args.output) / f"{split}.csv", path, args.videos, args.fps)
        for split, path in _splits(args).items()
    }


def _splits(args):
    return {split: path for split, path in (("train", args.train), ("val", args.val), ("test", args.test)) if path}


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    datasets = parser.add_subparsers(dest="dataset", required=True)
    for name, write in (("kinetics", write_kinetics), ("charades", write_charades)):
        own = datasets.add_parser(name)
        own.add_argument("--train", required=True, type=path_argument, help="published csv of the training set")
        own.add_argument("--val", required=True, type=path_argument, help="published csv of the validation set")
        own.add_argument("--test", type=path_argument, help="published csv of the test set, if it has labels")
        own.set_defaults(write=write)
    datasets.choices["kinetics"].add_argument("--classes", type=path_argument, help="class names in label order; default: sorted")
    datasets.choices["charades"].add_argument("--fps", type=float, default=24, help="of the frames; default: %(default)s")
    for name, write in (("ucf101", write_folds), ("hmdb51", write_folds), ("jhmdb", write_jhmdb_lists)):
        own = datasets.add_parser(name)
        own.add_argument("--lists", required=True, type=path_argument, help="published folder of the lists")
        own.add_argument("--split", type=int, default=1, choices=(1, 2, 3), help="default: %(default)s")
        own.set_defaults(write=write)
    datasets.choices["jhmdb"].add_argument("--motion", action="store_true", help=f"these classes alone: {', '.join(MOTION_CLASSES)}")
    datasets.choices["jhmdb"].add_argument("--boxes", type=path_argument, help="csv of boxes, or published folder of masks; boxes.csv is written")
    for own in datasets.choices.values():
        own.add_argument("--videos", required=True, type=path_argument, help="folder of the videos (Charades: of the frames)")
    own = datasets.add_parser("keyframes")
    own.add_argument("--lists", required=True, type=path_argument, help="folder of train.csv, val.csv, test.csv and classes.txt")
    own.add_argument("--boxes", required=True, type=path_argument, help="csv of the boxes of their frames")
    own.add_argument("--num-workers", type=count_argument, help="processes; default: one a core")
    own.set_defaults(write=write_ava_set)
    own = datasets.add_parser("leave-one-out")
    own.add_argument("--lists", required=True, type=path_argument, help="folder of train.csv, val.csv or both, whose videos are taken together")
    own.set_defaults(write=write_left_out)
    for own in datasets.choices.values():
        own.add_argument("--output", required=True, type=path_argument, help="folder of the lists")
    parsed = parser.parse_args(arguments)
    given = list(_splits(parsed).values()) if parsed.dataset in ("kinetics", "charades") else []
    if parsed.dataset == "jhmdb":
        given = [str(Path(parsed.lists) / f"{split}.csv") for split in ("train", "test")]
        check_output_argument(parser, "--output: boxes.csv", str(Path(parsed.output) / "boxes.csv"), [parsed.boxes])
    for split in ("train", "val", "test"):
        check_output_argument(parser, f"--output: {split}.csv", str(Path(parsed.output) / f"{split}.csv"), given)
    return parsed


if __name__ == "__main__":
    run_command(main)
