"""Super-resolution (US-Net, 5.1): data sets of image pairs, the losses `l1` and `l2`, and the metric `psnr`. The network is `mutual3d.models.wdsr`.

Importing this registers all of them.
"""

from . import metric, objective, source  # noqa: F401
