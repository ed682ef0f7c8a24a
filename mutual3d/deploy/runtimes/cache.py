"""Compiled networks on disk, so that the next process need not compile them again; and which runtime was the fastest one."""

import contextlib
import json
import lzma
import os
import re
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mutual3d.utils.files import atomic_write, read_json, remove_leftovers, write_json
from mutual3d.utils.logging import logger
from mutual3d.utils.processes import this_process

# Where the folder is, or `off`.
VARIABLE = "MUTUAL3D_CACHE"
# Of all networks together; the ones that were not used for longest make room.
MAX_BYTES = 4_000_000_000
_FACTS = "entry.json"
_SUFFIX = ".network"
# Ends the name of a note that a network is being compiled; before it stands who does that.
_NOTE = ".compiling"
_WRITER = r"(?P<place>[A-Za-z0-9_-]+)\+(?P<pid>\d+)\+(?P<started>\d+)\.compiling"
# What reading an archive raises in which something changed: a bit may stand for a password, or another way to pack.
_DAMAGES = (OSError, ValueError, LookupError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


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
            # Names of an archive may lead out of the folder; those that `keep` writes have no folder.
            content = {Path(name).name: data for name, data in _read_all(path).items()}
            facts = json.loads(content[_FACTS])
            if not isinstance(facts, dict):
                raise ValueError(f"its {_FACTS} holds no facts")
        except _DAMAGES as error:
            self.refuse(model, key, str(error))
            return None
        try:
            for name, data in content.items():
                (into / name).write_bytes(data)
        except OSError as error:
            _say_once(f"compiled networks that are kept cannot be used, as nothing can be written in '{into.parent}' ({error.strerror or error}): free space there")
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
            # Told once: the free space in it is another from call to call.
            _say_once(f"compiled networks are not kept ({error}); they are compiled anew by each process", about=f"keep {self.directory}")

    @contextlib.contextmanager
    def compiling(self, model: str, key: str) -> Iterator[None]:
        """A context in which a network is compiled, with a note on disk until it ends: what is left of a process that crashed."""
        note, path = None, self._path(model, key)
        if path is not None:
            writer = this_process()
            note = path.with_suffix(f".{writer.place[:80]}+{writer.pid}+{writer.started}{_NOTE}")
            try:
                note.parent.mkdir(parents=True, exist_ok=True)
                note.touch()
            except OSError:
                note = None  # nothing can be written there, which `keep` says
        try:
            yield
        finally:
            if note is not None:
                with contextlib.suppress(OSError):  # somebody cleared the folder
                    note.unlink(missing_ok=True)

    def num_crashes(self, model: str, key: str) -> int:
        """How many processes ended while they compiled this network: killed from outside, or by what compiles it."""
        path = self._path(model, key)
        if path is None:
            return 0
        me, names = this_process(), [note.name.removeprefix(f"{path.stem}.") for note in path.parent.glob(f"{path.stem}.*{_NOTE}")]
        found = [told for told in (re.fullmatch(_WRITER, name) for name in names) if told and told["place"] == me.place[:80]]
        return sum(replace(me, pid=int(told["pid"]), started=int(told["started"])).is_alive() is False for told in found)

    def forget_crashes(self, model: str, key: str) -> None:
        """A network compiles after all: what ended earlier processes was something else."""
        path = self._path(model, key)
        for note in [] if path is None else path.parent.glob(f"{path.stem}.*{_NOTE}"):
            with contextlib.suppress(OSError):  # another process may be at the same
                note.unlink(missing_ok=True)

    def refuse(self, model: str, key: str, cause: str) -> None:
        """Say, once, that the file of a network is not used."""
        _say_once(f"'{self._path(model, key)}' is not what was written ({cause}): the network is compiled anew")

    def networks(self) -> list[CachedNetwork]:
        """All that are kept, the last used one first. Those that are damaged have no facts."""
        found = []
        for path in self._files():
            try:
                with zipfile.ZipFile(path) as archive:
                    told = json.loads(archive.read(_FACTS))
            except _DAMAGES:
                told = None
            facts = told if isinstance(told, dict) else {}
            found.append(CachedNetwork(path, path.parent.name, path.stat().st_size, facts))
        return found

    def clear(self, model: str | None = None) -> tuple[int, int]:
        """Delete the networks of a model, or all of them and what was found out about runtimes: (how many, bytes).

        Raises OSError for what cannot be deleted.
        """
        files = [path for path in self._files() if model in (None, path.parent.name)]
        num_bytes = sum(path.stat().st_size for path in files)
        notes = [] if self.directory is None else self.directory.glob(f"networks/{model or '*'}/*{_NOTE}")
        for path in (*files, *notes):
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
                _say_once(f"the choice of a runtime is not kept ({error}); each process measures anew", about=f"choice {self.directory}")

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


def _read_all(path: Path) -> dict[str, bytes]:
    """The files of an archive; what is not what was written raises one of `_DAMAGES`, since their check sums are compared."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


_SAID: set[str] = set()


def _say_once(message: str, about: str = "") -> None:
    """Warn, once in a process. about: what is told once, where the message's words may change; "" for the message."""
    if (about or message) not in _SAID:
        _SAID.add(about or message)
        logger.warning(message)
