"""Write the demo set: small H.264 videos whose classes differ in motion alone (see datasets/DEMO.md).

    python datasets/make_demo.py --output demo/data
    python datasets/make_demo.py --output demo/small --num-train 80 --num-val 24 --num-test 24 --seed 1
"""

import argparse

from mutual3d.data.prepare.demo import CLASS_NAMES, make_demo
from mutual3d.utils.command_line import path_argument, print_error, run_command


def main(arguments=None):
    return run(make_demo, __doc__, arguments)


def run(make, description, arguments=None, *, noun="videos", num_classes=len(CLASS_NAMES)):
    """Read the options of `make`, a function like `make_demo`, from the command line and call it; the exit status.

    noun: what it makes. num_classes: that they are of.
    """
    options = vars(parse_arguments(make, description, arguments))
    output = options.pop("output")
    try:
        make(output, **options)
    except (ValueError, OSError) as error:
        print_error(error)
        return 1
    counts = (f"{options[name]} {name.removeprefix('num_')}" for name in ("num_train", "num_val", "num_test") if name in options)
    print(f"{output}: {', '.join(counts)} {noun}, {num_classes} classes")
    return 0


def parse_arguments(make, description, arguments):
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--output", required=True, type=path_argument, help="the folder to write")
    for name, default in make.__kwdefaults__.items():
        shown = "default: one a core" if name == "num_workers" else "default: %(default)s"
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, help=shown)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_command(main)
