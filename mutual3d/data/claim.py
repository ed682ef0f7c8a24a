"""Folders that a command fills: an interrupted one is completed, one made with other arguments is never mixed up."""

from pathlib import Path

from mutual3d.utils.files import ensure_directory, read_json, write_json


def claim_directory(directory, file_name, arguments, kind):
    """Write `arguments` (plain containers) as json into `directory`, or find the same ones there; returns the path.

    `kind` says in messages what the folder holds ("a demo set"). Raises ValueError for a folder that was made with
    other arguments, and for one that holds something else.
    """
    directory = Path(directory)
    path = directory / file_name
    if path.is_file():
        _check_same_arguments(path, read_json(path), arguments, kind)
        return directory
    if directory.is_dir() and any(not entry.name.startswith(".") for entry in directory.iterdir()):
        raise ValueError(f"'{directory}' holds files and no {file_name}: it is not {kind}; choose another folder")
    ensure_directory(directory)
    write_json(path, arguments)
    return directory


def _check_same_arguments(path, found, wanted, kind):
    if found != wanted:
        raise ValueError(
            f"'{path.parent}' holds {kind} made with other arguments ({path.name}: {found}; wanted: {wanted}): "
            "delete the folder, choose another one, or give the arguments that it was made with"
        )
