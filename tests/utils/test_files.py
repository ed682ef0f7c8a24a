import contextlib
import errno
import math
import os
import pickle
import random
import re
import resource
import signal
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from mutual3d.utils.files import (
    DamagedFileError,
    atomic_write,
    ensure_directory,
    files_under,
    load_tensors,
    read_json,
    remove_leftovers,
    save_tensors,
    write_json,
)  # fmt: skip
from mutual3d.utils.fingerprint import fingerprint
from mutual3d.utils.processes import this_process

STATE = {"epoch": 3, "model_state": {"a.weight": torch.arange(12.0).view(3, 4), "a.bias": torch.zeros(3)}, "cfg": "x"}


# ---- Writing ---------------------------------------------------------------------------------------------------------


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "new" / "folder" / "file.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == path.parent
        assert not path.exists()
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["file.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(error):
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_a_written_file_has_the_usual_permissions(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "file.txt") as temporary:
            temporary.write_text("new")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file.txt").stat().st_mode) == 0o640


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("not a directory")
    for write in (ensure_directory, lambda path: save_tensors(path / "x.pyth", {})):
        with pytest.raises(OSError, match=r"cannot write in the directory '.*file/run'.*choose another directory.*permissions"):
            write(tmp_path / "file" / "run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_write_permission_is_named(tmp_path):
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(OSError, match="cannot write in the directory .*Permission denied"):
            save_tensors(tmp_path / "x.pyth", {})
    finally:
        tmp_path.chmod(0o755)


def test_ensure_directory_leaves_nothing_behind(tmp_path):
    assert ensure_directory(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert os.listdir(tmp_path / "a" / "b") == []


def test_a_directory_in_the_files_place_is_said(tmp_path):
    (tmp_path / "bad.csv").mkdir()
    with pytest.raises(IsADirectoryError, match="cannot write '.*/bad.csv': there is a directory of this name; move it away"):
        write_json(tmp_path / "bad.csv", {})
    assert os.listdir(tmp_path) == ["bad.csv"]


@contextlib.contextmanager
def files_of_at_most(size):
    """What a full disk or a quota is to a writer: the kernel takes no byte beyond `size`."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("write, needed", [
    (lambda path: save_tensors(path, {"a": torch.zeros(1_000_000)}), "4 MB are needed, "),
    (lambda path: write_json(path, list(range(100_000))), ""),
])  # fmt: skip
def test_a_full_disk_names_file_size_free_space_and_fix(tmp_path, write, needed):
    (tmp_path / "x.pyth").write_text("old")
    with files_of_at_most(100_000), pytest.raises(OSError) as refused:
        write(tmp_path / "x.pyth")
    assert re.fullmatch(
        rf"cannot write '.*/x.pyth' \(.+; {needed}[0-9.]+ [kMG]B are free on its disk\): free space there, or choose "
        "another place, and start the same command again",
        str(refused.value),
    )
    assert os.listdir(tmp_path) == ["x.pyth"] and (tmp_path / "x.pyth").read_text() == "old"


def test_an_error_that_is_not_the_disks_stays_what_it_is(tmp_path):
    for error in (RuntimeError("a bug"), PermissionError(13, "no"), FileNotFoundError("nowhere")):
        with pytest.raises(type(error)) as raised, atomic_write(tmp_path / "x"):
            raise error
        assert raised.value is error


# ---- What killed writers leave ---------------------------------------------------------------------------------------

KILLED_WRITER = """
import os, signal, sys
from mutual3d.utils.files import atomic_write
with atomic_write(sys.argv[1]) as temporary:
    temporary.write_bytes(bytes(1000))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_temporary_files_of_killed_writers_are_removed_and_no_others(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED_WRITER, str(tmp_path / "checkpoint.pyth")])
    (left,) = os.listdir(tmp_path)
    elsewhere = tmp_path / left.replace(this_process().place, "other-host")
    elsewhere.write_text("written on another machine")
    for name in (".bashrc.tmp", "notes.tmp", ".a.b.tmp", ".x.pyth.12345678.tmp"):
        (tmp_path / name).write_text("the user's, or too new to tell")
    with atomic_write(tmp_path / "mine") as mine:
        assert remove_leftovers(tmp_path) == [tmp_path / left]
        assert mine.exists()
    os.utime(elsewhere, (0, 0))
    os.utime(tmp_path / ".x.pyth.12345678.tmp", (0, 0))
    assert remove_leftovers(tmp_path) == sorted([elsewhere, tmp_path / ".x.pyth.12345678.tmp"])
    assert sorted(os.listdir(tmp_path)) == [".a.b.tmp", ".bashrc.tmp", "mine", "notes.tmp"]


@pytest.mark.parametrize("name", ["x" * 250, "é" * 120, "a+b.c d"])
def test_any_legal_name_can_be_written(tmp_path, name):
    write_json(tmp_path / name, [1])
    assert os.listdir(tmp_path) == [name]


# ---- JSON ------------------------------------------------------------------------------------------------------------


def test_json_round_trip(tmp_path):
    value = {"rows": [1, 2.5, None, "é"], "flag": True}
    write_json(tmp_path / "table.json", value)
    assert read_json(tmp_path / "table.json") == value


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_json_refuses_what_is_no_json_number(tmp_path, value):
    (tmp_path / "table.json").write_text("[1]")
    with pytest.raises(ValueError):
        write_json(tmp_path / "table.json", {"accuracy": value})
    assert os.listdir(tmp_path) == ["table.json"]
    assert read_json(tmp_path / "table.json") == [1]


def test_json_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file '.*table.json'"):
        read_json(tmp_path / "table.json")
    for content in (b'{"rows": [1, 2', b"\xff\xfe\x00", b"[" * 100_000, b'{"a":' * 100_000, b"1" * 10_000):
        (tmp_path / "table.json").write_bytes(content)
        with pytest.raises(ValueError, match="table.json' is not valid JSON"):
            read_json(tmp_path / "table.json")


# ---- Tensors ---------------------------------------------------------------------------------------------------------


def test_tensors_round_trip(tmp_path):
    save_tensors(tmp_path / "x.pyth", STATE)
    loaded = load_tensors(tmp_path / "x.pyth")
    assert (loaded["epoch"], loaded["cfg"]) == (3, "x")
    assert torch.equal(loaded["model_state"]["a.weight"], STATE["model_state"]["a.weight"])


def test_the_same_content_gives_the_same_bytes(tmp_path):
    for name in ("x.pyth", "y.pyth"):
        save_tensors(tmp_path / name, STATE)
    assert (tmp_path / "x.pyth").read_bytes() == (tmp_path / "y.pyth").read_bytes()


class Attack:
    """What pickle would run on loading."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (Path(self.marker),)


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_file_that_would_run_code_is_refused_and_runs_nothing(tmp_path, as_zip):
    marker, path = tmp_path / "marker", tmp_path / "x.pyth"
    torch.save({**STATE, "extra": Attack(marker)}, path, _use_new_zipfile_serialization=as_zip)
    torch.load(path, weights_only=False)
    assert marker.exists(), "the attack must work where nothing guards against it"
    marker.unlink()
    with pytest.raises(ValueError, match="x.pyth' is not a checkpoint that can be opened safely") as refused:
        load_tensors(path)
    assert "weights_only" not in str(refused.value), "torch's advice to load unsafely is not passed on"
    assert not marker.exists()


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_file_cut_anywhere_is_named(tmp_path, as_zip):
    path = tmp_path / "x.pyth"
    torch.save(STATE, path, _use_new_zipfile_serialization=as_zip)
    whole = path.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 100)):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedFileError, match="x.pyth' is not a"):
            load_tensors(path)


@pytest.mark.parametrize("content", [b"hello", bytes(1000), b"PK\x03\x04" + bytes(60)])
def test_a_file_of_another_kind_is_named(tmp_path, content):
    (tmp_path / "x.pyth").write_bytes(content)
    with pytest.raises(DamagedFileError, match="x.pyth' is not a"):
        load_tensors(tmp_path / "x.pyth")


@pytest.mark.parametrize("name", ["nowhere.pyth", "."])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="there is no checkpoint '.*': give the path of a .pyth file"):
        load_tensors(tmp_path / name)


# ---- Damage ----------------------------------------------------------------------------------------------------------


def loads_equal(path, expected):
    """Whether a changed file gives what was written; False when it is refused as damaged. Anything else fails."""
    try:
        loaded = load_tensors(path)
    except DamagedFileError as error:
        assert str(path) in str(error) and "weights_only" not in str(error)
        return False
    assert fingerprint(loaded) == fingerprint(expected), "it was changed, and nobody noticed"
    return True


def test_a_bit_that_flips_anywhere_is_refused_or_harmless(tmp_path):
    """Seeded bits all over a small file: contents, names, headers, offsets, check sums."""
    save_tensors(tmp_path / "x.pyth", STATE)
    whole, bits = (tmp_path / "x.pyth").read_bytes(), random.Random(0)
    places, harmless = bits.sample(range(len(whole)), 600), 0
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bits.randrange(8)
        (tmp_path / "x.pyth").write_bytes(damaged)
        harmless += loads_equal(tmp_path / "x.pyth", STATE)
    assert harmless < len(places) / 2, "padding, dates and attributes alone are nobody's content"


@pytest.mark.parametrize("seed", range(3))
def test_bytes_that_are_lost_doubled_or_overwritten_are_refused(tmp_path, seed):
    save_tensors(tmp_path / "x.pyth", STATE)
    whole, places = (tmp_path / "x.pyth").read_bytes(), random.Random(seed)
    for _ in range(60):
        start, length = places.randrange(len(whole)), places.randrange(1, 64)
        for middle in (b"", whole[start : start + length] * 2, bytes(length)):
            (tmp_path / "x.pyth").write_bytes(whole[:start] + middle + whole[start + length :])
            loads_equal(tmp_path / "x.pyth", STATE)


def shared(depth, width=10):
    value = (0,) * width
    for _ in range(depth):
        value = (value,) * width
    return value


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("content", [{"a": torch.zeros(1).expand(10**11)}, shared(12), nested(200)])
def test_a_file_that_unfolds_to_far_more_than_it_holds_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "x.pyth")
    with pytest.raises(DamagedFileError, match="x.pyth' is not a readable checkpoint; it (unfolds to|is nested over)"):
        load_tensors(tmp_path / "x.pyth")


def rewritten(path, compression=zipfile.ZIP_STORED, extra=()):
    """The same archive with its parts written anew."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in [*parts.items(), *extra]:
            archive.writestr(name, data)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    save_tensors(tmp_path / "x.pyth", {"a": torch.zeros(10_000_000)})
    rewritten(tmp_path / "x.pyth", zipfile.ZIP_DEFLATED)
    assert (tmp_path / "x.pyth").stat().st_size < 1_000_000
    with pytest.raises(DamagedFileError, match="it has compressed parts, which torch never writes"):
        load_tensors(tmp_path / "x.pyth")


def test_parts_that_overlap_are_refused(tmp_path):
    save_tensors(tmp_path / "x.pyth", {"a": torch.zeros(1000)})
    rewritten(tmp_path / "x.pyth")
    with zipfile.ZipFile(tmp_path / "x.pyth", "a") as archive:
        archive.filelist += [max(archive.filelist, key=lambda part: part.file_size)] * 100
        archive._didModify = True
    with pytest.raises(DamagedFileError, match="x.pyth"):
        load_tensors(tmp_path / "x.pyth")


def test_a_disk_that_fails_is_not_taken_for_a_damaged_file(tmp_path, monkeypatch):
    save_tensors(tmp_path / "x.pyth", STATE)

    def failing(self, *arguments):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(zipfile.ZipFile, "testzip", failing)
    with pytest.raises(OSError, match="Input/output error"):
        load_tensors(tmp_path / "x.pyth")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_key_that_takes_for_ever_to_hash_is_refused_at_once(tmp_path, zipped):
    """A few hundred bytes whose key, a pair of twice a pair of twice ..., has 2 ** 60 leaves."""
    value = 0
    for _ in range(60):
        value = (value, value)
    content = b"\x80\x02}" + pickle.dumps(value, 2)[2:-1] + b"K\x01s."
    path = tmp_path / "zoo.pyth"
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=zipped)
    if zipped:
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, part in parts.items():
                archive.writestr(name, content if name.endswith("data.pkl") else part)
    else:
        head = path.read_bytes()
        start = head.index(b"\x80\x02}q\x00X\x01\x00\x00\x00a")
        path.write_bytes(head[:start] + content + head[start:])
    with pytest.raises(DamagedFileError, match="zoo.pyth' is not a readable checkpoint; it has a key of over 1000 values"):
        load_tensors(path)


def test_files_of_linked_folders_are_found_once(tmp_path):
    (tmp_path / "elsewhere" / "walk").mkdir(parents=True)
    (tmp_path / "elsewhere" / "walk" / "1.mp4").touch()
    folder = tmp_path / "videos"
    (folder / "run").mkdir(parents=True)
    (folder / "run" / "2.mp4").touch()
    (folder / "walk").symlink_to(tmp_path / "elsewhere" / "walk", target_is_directory=True)
    (folder / "run" / "above").symlink_to(folder, target_is_directory=True)
    (folder / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    assert files_under(folder) == [folder / "run" / "2.mp4", folder / "walk" / "1.mp4"]
