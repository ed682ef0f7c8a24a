"""Write the demo set in COCO's form: pictures of shapes with their boxes and masks (see datasets/COCO.md).

    python datasets/make_demo_coco.py --output demo/coco
"""

from make_demo import run

from mutual3d.data.prepare.demo_coco import CLASS_NAMES, make_demo_coco
from mutual3d.utils.command_line import run_command


def main(arguments=None):
    return run(make_demo_coco, __doc__, arguments, noun="pictures", num_classes=len(CLASS_NAMES))


if __name__ == "__main__":
    run_command(main)
