"""Compiled networks on disk, so that the next process need not compile them again; and which runtime was the fastest one."""

import json
import os
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutual3d.utils.files import atomic_write, read_json, remove_leftovers, write_json
from mutual3d.utils.logging import logger

# Where the folder is, or `off`.
VARIABLE = "MUTUAL3D_CACHE"
# Of all networks together; the ones that were not used for longest make room.
MAX_BYTES = 4_000_000_000
_FACTS = "entry.json"
_SUFFIX = ".network"


def cache_directory() -> Path | None:
    """The folder that the variable MUTUAL3D_CACHE names, or this system's place for such; None where it says `off`."""
    named = os.environ.get(VARIABLE, "")
    if named:
        return None if named == "off" else Path(named).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "mutual3d"
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "mutual3d" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mutual3d"


@dataclass(frozen=True)
class CachedNetwork:
    """A network on disk. model: the fingerprint of its model's weights. facts: what was told of it, such as its configuration."""

    path: Path
    model: str
    num_bytes: int
    facts: Mapping[str, Any]


class NetworkCache:
    """A folder of compiled networks, one file each, which is written whole or not at all.

    Nothing that goes wrong here ends anything: a file that is damaged, a full disk and a folder that cannot be written are
    said once, and the network is compiled anew. directory: None is `cache_directory`, and nothing is kept where that is None.
    """

    def __init__(self, directory: str | os.PathLike | None = None, max_bytes: int = MAX_BYTES) -> None:
        self.directory = cache_directory() if directory is None else Path(directory)
        self.max_bytes = max_bytes

    def take(self, model: str, key: str, into: Path) -> Mapping[str, Any] | None:
        """Put the files of a network into a folder, and give its facts; None where there is none that is whole."""
        path = self._path(model, key)
        if path is None or not path.is_file():
            return None
        try:
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    # Names of an archive may lead out of the folder; those that `keep` writes have no folder.
                    (into / Path(name).name).write_bytes(archive.read(name))  # which compares the check sum
            facts = json.loads((into / _FACTS).read_text(encoding="utf-8"))
        except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
            self.refuse(model, key, str(error))
            return None
        try:
            os.utime(path)  # the order in which networks make room
        except OSError:
            pass  # a folder that others keep
        return facts

    def keep(self, model: str, key: str, files: Sequence[Path], facts: Mapping[str, Any]) -> None:
        """Keep the files of a network, and what is to be known of it as plain data."""
        path = self._path(model, key)
        if path is None:
            return
        try:
            with atomic_write(path, sum(file.stat().st_size for file in files)) as temporary:
                with zipfile.ZipFile(temporary, "w") as archive:
                    for file in files:
                        archive.write(file, file.name)
                    archive.writestr(_FACTS, json.dumps(facts))
            remove_leftovers(path.parent)
            self._make_room(path)
        except OSError as error:
            _say_once(f"compiled networks are not kept ({error}); they are compiled anew by each process")

    def refuse(self, model: str, key: str, cause: str) -> None:
        """Say, once, that the file of a network is not used."""
        _say_once(f"'{self._path(model, key)}' is not what was written ({cause}): the network is compiled anew")

    def networks(self) -> list[CachedNetwork]:
        """All that are kept, the last used one first. Those that are damaged have no facts."""
        found = []
        for path in self._files():
            try:
                with zipfile.ZipFile(path) as archive:
                    facts = json.loads(archive.read(_FACTS))
            except (OSError, ValueError, KeyError, zipfile.BadZipFile):
                facts = {}
            found.append(CachedNetwork(path, path.parent.name, path.stat().st_size, facts))
        return found

    def clear(self, model: str | None = None) -> tuple[int, int]:
        """Delete the networks of a model, or all of them and what was found out about runtimes: (how many, bytes).

        Raises OSError for what cannot be deleted.
        """
        files = [path for path in self._files() if model in (None, path.parent.name)]
        num_bytes = sum(path.stat().st_size for path in files)
        for path in files:
            path.unlink(missing_ok=True)
        if model is None and self.directory is not None:
            for path in self.directory.glob("choices/*.json"):
                path.unlink(missing_ok=True)
        return len(files), num_bytes

    def read_choice(self, key: str) -> Mapping[str, Any] | None:
        """What `write_choice` was given; None where there is nothing that can be read."""
        try:
            found = None if self.directory is None else read_json(self.directory / "choices" / f"{key}.json")
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def write_choice(self, key: str, choice: Mapping[str, Any]) -> None:
        """Remember which runtime was chosen, as plain data."""
        if self.directory is not None:
            try:
                write_json(self.directory / "choices" / f"{key}.json", choice)
            except OSError as error:
                _say_once(f"the choice of a runtime is not kept ({error}); each process measures anew")

    def _path(self, model: str, key: str) -> Path | None:
        return None if self.directory is None else self.directory / "networks" / model / f"{key}{_SUFFIX}"

    def _files(self) -> list[Path]:
        """The last used first."""
        if self.directory is None:
            return []
        paths = [(path.stat().st_mtime, path) for path in self.directory.glob(f"networks/*/*{_SUFFIX}")]
        return [path for _, path in sorted(paths, reverse=True)]

    def _make_room(self, newest: Path) -> None:
        total = 0
        for path in self._files():
            total += path.stat().st_size
            if total > self.max_bytes and path != newest:
                path.unlink(missing_ok=True)


_SAID: set[str] = set()


def _say_once(message: str) -> None:
    if message not in _SAID:
        _SAID.add(message)
        logger.warning(message)
