"""Write the demo set in AVA's form: two actors with different motions and their boxes (see datasets/AVA.md).

    python datasets/make_demo_ava.py --output demo/ava
"""

import argparse
import sys

from mutual3d.data.demo_ava import KEYFRAMES, make_demo_ava


def main(arguments=None):
    options = vars(parse_arguments(arguments))
    output = options.pop("output")
    try:
        make_demo_ava(output, **options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{output}: {options['num_train']} train, {options['num_val']} val videos, {KEYFRAMES} keyframes each")
    return 0


def parse_arguments(arguments=None):
    defaults = make_demo_ava.__kwdefaults__
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="the folder to write")
    for name in ("num_train", "num_val", "seed"):
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=int, default=defaults[name], help="default: %(default)s")
    parser.add_argument("--num-workers", type=int, help="processes; default: one a core")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
