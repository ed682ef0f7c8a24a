"""Configs by name: the YAML files that come with mutual3d, from a checkout or from the wheel."""

import difflib
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
# The wheel carries the folder inside the package; a checkout has it beside.
CONFIG_DIRECTORY = next((path for path in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if path.is_dir()), None)
_SUFFIX = ".yaml"


def list_configs() -> list[str]:
    """Names of the configs that come with mutual3d, such as `Kinetics/MUTUAL_X3D_M`, sorted."""
    if CONFIG_DIRECTORY is None:
        return []
    paths = CONFIG_DIRECTORY.rglob(f"*{_SUFFIX}")
    return sorted(path.relative_to(CONFIG_DIRECTORY).with_suffix("").as_posix() for path in paths)


def find_config(name: str | Path) -> Path:
    """The file that a path or a name means: a file that is there, else `Kinetics/MUTUAL_X3D_M`, with or without `.yaml`.

    Raises FileNotFoundError that names the nearest config, and IsADirectoryError for a folder.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    wanted = path.as_posix().removesuffix(_SUFFIX).removeprefix("configs/")
    names = list_configs()
    if wanted in names and CONFIG_DIRECTORY is not None:
        return CONFIG_DIRECTORY / f"{wanted}{_SUFFIX}"
    if path.is_dir():
        raise IsADirectoryError(f"the config '{name}' is a folder: give the path of a YAML file in it")
    lower = {other.lower(): other for other in names}
    nearest = difflib.get_close_matches(wanted[:200].lower(), lower, n=1, cutoff=0.5)
    hint = f"; did you mean {lower[nearest[0]]}?" if nearest else ""
    raise FileNotFoundError(
        f"there is no config '{name}': give the path of a YAML file, or a name such as Kinetics/MUTUAL_X3D_M{hint}"
    )
