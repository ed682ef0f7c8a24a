"""A user's own file, imported for what it registers."""

import importlib.util
import sys
from pathlib import Path


def import_extension(path: str | Path) -> None:
    """Import a Python file that registers a network, an objective or a data set; a second time does nothing.

    Raises FileNotFoundError when it is missing, and ValueError, with the file and the cause, for what it raises.
    """
    path = Path(path).expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file '{path}' to import: give --extend the path of a Python file")
    name = f"mutual3d_extension_{path.stem}"
    known = sys.modules.get(name)
    if known is not None and Path(str(known.__file__)) == path:
        return
    if known is not None:
        raise ValueError(f"'{path}' and '{known.__file__}' have the same name: rename one of them")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"'{path}' is no Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    # Worker processes find the classes of the file by the module's name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"'{path}' cannot be imported: {type(error).__name__}: {error}") from error
