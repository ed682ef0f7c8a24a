"""Write the demo set in Charades' form: frame lists, and videos with two motions at once (see datasets/DEMO.md).

    python datasets/make_demo_charades.py --output demo/charades
"""

import sys

from make_demo import run

from mutual3d.data.demo_charades import make_demo_charades

if __name__ == "__main__":
    sys.exit(run(make_demo_charades, __doc__))
