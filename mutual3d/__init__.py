"""mutual3d: one video network, trained once, that runs at any budget.

    model = mutual3d.load("out/adaptive.pyth")              # what `mutual3d run` writes
    row = model.set_budget(gflops=2.0)                      # or latency_ms=...; or model.activate("0.8-160-9")
    model.predict("clip.mp4").top(5)                        # [(name of a class, probability)]
    model.stream("long.mp4", deadline_ms=40)                # an answer each 0.2 seconds, each within 40 ms; or a camera
    model.explain("clip.mp4", ["0.8-160-9"])                # where it looks, over space and time
    scores = model(clip, configuration="0.8-160-9")         # uint8 clips B, 3, T, S, S -> probabilities B, K

    mutual3d.create_model("x3d_m", num_classes=10)          # a network to train; mutual3d.list_models() has the names
    mutual3d.get_cfg("Kinetics/MUTUAL_X3D_M")               # the config that PySlowFast's users know

The command `mutual3d` plans, trains, measures and exports: `mutual3d --help`.
"""

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mutual3d.deploy.adaptive_model import AdaptiveModel as AdaptiveModel
    from mutual3d.deploy.adaptive_model import load as load
    from mutual3d.deploy.embed import Embeddings as Embeddings
    from mutual3d.deploy.explain import Explanation as Explanation
    from mutual3d.deploy.prediction import Prediction as Prediction
    from mutual3d.deploy.prediction import Predictions as Predictions
    from mutual3d.deploy.scan import Events as Events
    from mutual3d.deploy.scan import ScanRow as ScanRow
    from mutual3d.deploy.stream import StreamPrediction as StreamPrediction
    from mutual3d.pipeline.named_models import create_model as create_model
    from mutual3d.pipeline.named_models import get_cfg as get_cfg
    from mutual3d.pipeline.named_models import list_models as list_models
    from mutual3d.sampling import Configuration as Configuration
    from mutual3d.sampling import SearchSpace as SearchSpace
    from mutual3d.table.query_table import QueryTable as QueryTable

try:
    __version__ = version("mutual3d")
except PackageNotFoundError:  # a checkout on the path that was never installed
    __version__ = "unknown"

# Where each public name lives. Nothing is imported before it is used: torch alone takes seconds.
_HOMES = {
    "load": "mutual3d.deploy.adaptive_model",
    "create_model": "mutual3d.pipeline.named_models",
    "list_models": "mutual3d.pipeline.named_models",
    "get_cfg": "mutual3d.pipeline.named_models",
    "Configuration": "mutual3d.sampling",
    "SearchSpace": "mutual3d.sampling",
    "QueryTable": "mutual3d.table.query_table",
    "AdaptiveModel": "mutual3d.deploy.adaptive_model",
    "Embeddings": "mutual3d.deploy.embed",
    "Explanation": "mutual3d.deploy.explain",
    "Prediction": "mutual3d.deploy.prediction",
    "Predictions": "mutual3d.deploy.prediction",
    "ScanRow": "mutual3d.deploy.scan",
    "Events": "mutual3d.deploy.scan",
    "StreamPrediction": "mutual3d.deploy.stream",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'mutual3d' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
