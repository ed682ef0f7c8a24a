"""Write the demo set in AVA's form: two actors with different motions and their boxes (see datasets/AVA.md).

    python datasets/make_demo_ava.py --output demo/ava
"""

from make_demo import run

from mutual3d.data.prepare.demo_ava import make_demo_ava
from mutual3d.utils.command_line import run_command


def main(arguments=None):
    return run(make_demo_ava, __doc__, arguments)


if __name__ == "__main__":
    run_command(main)
