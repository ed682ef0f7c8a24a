"""The papers' other tasks, a folder each: what their samples, losses and metrics are. Their networks lie in `mutual3d.models`.

Importing this package registers them; nothing else knows one by name.
"""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
