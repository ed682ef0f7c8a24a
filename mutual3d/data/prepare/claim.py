"""Folders that a command fills: an interrupted one is completed, one made with other arguments is never mixed up."""

import os
from pathlib import Path

from mutual3d.data.datasets.lists import user_path
from mutual3d.utils.files import ensure_directory, read_json, write_json


def claim_directory(directory: str | os.PathLike, file_name: str, arguments: dict, kind: str) -> Path:
    """Write `arguments` (plain containers) as json into `directory`, or find the same ones there; returns the path.

    `kind` says in messages what the folder holds ("a demo set"); `~` is the home folder. Raises ValueError for a folder
    that was made with other arguments, for one that holds something else, and for a name that no folder has. file_name: of
    the json.
    """
    if not str(directory) or "\0" in str(directory):
        raise ValueError(f"{str(directory)!r} is no folder: name the one that {kind} shall be written to")
    directory = user_path(directory)
    path = directory / file_name
    if path.is_file():
        _check_same_arguments(path, read_json(path), arguments, kind)
        return directory
    if directory.is_dir() and any(not entry.name.startswith(".") for entry in directory.iterdir()):
        raise ValueError(f"'{directory}' holds files and no {file_name}: it is not {kind}; choose another folder")
    ensure_directory(directory)
    write_json(path, arguments)
    return directory


def _check_same_arguments(path: Path, found: object, wanted: object, kind: str) -> None:
    if found != wanted:
        raise ValueError(
            f"'{path.parent}' holds {kind} made with other arguments ({path.name}: {found}; wanted: {wanted}): "
            "delete the folder, choose another one, or give the arguments that it was made with"
        )
