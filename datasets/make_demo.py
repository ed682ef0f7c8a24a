"""Write the demo set: small H.264 videos whose classes differ in motion alone (see datasets/DEMO.md).

    python datasets/make_demo.py --output demo/data
    python datasets/make_demo.py --output demo/small --num-train 80 --num-val 24 --num-test 24 --seed 1
"""

import argparse
import sys

from mutual3d.data.demo import CLASS_NAMES, make_demo


def main(arguments=None):
    return run(make_demo, __doc__, arguments)


def run(make, description, arguments=None):
    """Read the options of `make`, a function like `make_demo`, from the command line and call it; the exit status."""
    options = vars(parse_arguments(make, description, arguments))
    output = options.pop("output")
    try:
        make(output, **options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{output}: {options['num_train']} train, {options['num_val']} val, {options['num_test']} test videos, "
          f"{len(CLASS_NAMES)} classes")
    return 0


def parse_arguments(make, description, arguments):
    defaults = make.__kwdefaults__
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--output", required=True, help="the folder to write")
    for name in ("num_train", "num_val", "num_test", "seed"):
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=int, default=defaults[name], help="default: %(default)s")
    parser.add_argument("--num-workers", type=int, help="processes; default: one a core")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
