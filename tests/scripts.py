"""Scripts of the repository, which are no modules of a package."""

import importlib.util

from tiny import ROOT


def load_script(path):
    """The module of a file of the repository, by its path from the root."""
    specification = importlib.util.spec_from_file_location((ROOT / path).stem, ROOT / path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module
