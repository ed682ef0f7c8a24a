"""Write the demo set in NYUDv2's form: pictures of shapes and the class of each pixel (see datasets/NYUDv2.md).

    python datasets/make_demo_nyudv2.py --output demo/nyudv2
"""

from make_demo import run

from mutual3d.data.prepare.demo_nyudv2 import MAP_CLASSES, make_demo_nyudv2
from mutual3d.utils.command_line import run_command


def main(arguments=None):
    return run(make_demo_nyudv2, __doc__, arguments, noun="pictures", num_classes=len(MAP_CLASSES))


if __name__ == "__main__":
    run_command(main)
