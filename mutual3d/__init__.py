"""mutual3d: one video network, trained once, that runs at any budget."""


def load(path):
    """The AdaptiveModel in an `adaptive.pyth`: weights, statistics and query table. See mutual3d.deploy."""
    from mutual3d.deploy import AdaptiveModel

    return AdaptiveModel.load(path)
