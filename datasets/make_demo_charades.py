"""Write the demo set in Charades' form: frame lists, and videos with two motions at once (see datasets/DEMO.md).

    python datasets/make_demo_charades.py --output demo/charades
"""

from make_demo import run

from mutual3d.data.prepare.demo_charades import make_demo_charades
from mutual3d.utils.command_line import run_command

if __name__ == "__main__":
    run_command(lambda: run(make_demo_charades, __doc__))
