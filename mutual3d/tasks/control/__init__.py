"""Control (US-Net, 5.1): games, the loss `ppo` of proximal policy optimization, and the metric `mean_return`. The network is `mutual3d.models.policy`.

Importing this registers all of them; games themselves are imported where one is played.
"""

from . import metric, objective, source  # noqa: F401
