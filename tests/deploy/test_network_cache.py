"""Compiled networks on disk: used again, whole or not at all, and nothing that goes wrong there ends a call."""

import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from networks import calibrate_at_random
from served import make_model, random_call

import mutual3d
from mutual3d.cli import cache as command
from mutual3d.deploy.compiled import CompilationError
from mutual3d.deploy.runtimes import RUNTIMES, CompiledNetwork, NetworkCache, Runtime, TensorSpec, register_runtime
from mutual3d.deploy.runtimes import cache as cache_module
from mutual3d.layers import BNStatistics


class Filed(Runtime):
    """Keeps the extracted module itself in a file; remembers what it saved, and can be told to be wrong."""

    name, title, suffixes = "filed", "Filed", (".module", ".spec")
    saved, scale, fails = [], 1.0, ""

    def save(self, network, path):
        if self.fails:
            raise RuntimeError(self.fails)
        self.saved.append(json.loads(network.metadata["configuration"]))
        torch.save(network.module, path)
        torch.save(network.inputs, path.with_suffix(".spec"))

    def load(self, path):
        module = torch.load(path, weights_only=False)
        inputs, scale = torch.load(path.with_suffix(".spec"), weights_only=False), self.scale

        def run(tensors):
            with torch.no_grad():
                return module(*tensors) * scale

        return CompiledNetwork(inputs, TensorSpec("scores", torch.float32, (None, 7)), run)


@pytest.fixture
def filed(monkeypatch):
    register_runtime(Filed)
    Filed.saved, Filed.scale, Filed.fails = [], 1.0, ""
    monkeypatch.setattr(cache_module, "_SAID", set())
    yield Filed
    del RUNTIMES["filed"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "adaptive.pyth"
    make_model("x3d").save(path)
    return path


def call(path, cache, configuration="0.5-32-4"):
    """Scores of a model that another process would have loaded."""
    model = mutual3d.load(path, "filed", cache=cache)
    return model(*random_call(model), configuration=configuration)


def files(cache):
    return sorted(NetworkCache(cache).networks(), key=lambda network: network.path)


def test_a_network_is_compiled_once_for_all_processes(path, filed, tmp_path, monkeypatch):
    expected = mutual3d.load(path)(*random_call(make_model("x3d")), configuration="0.5-32-4")
    for _ in range(3):
        assert torch.allclose(call(path, tmp_path), expected, atol=1e-6)
    assert filed.saved == ["0.5-32-4"]
    (kept,) = files(tmp_path)
    assert kept.facts["configuration"] == "0.5-32-4" and kept.facts["runtime"] == "filed" and kept.facts["bundle"] == str(path)
    assert kept.facts["inputs"] == {"clip": ["uint8", 3, 8, 48, 48]} and kept.num_bytes == kept.path.stat().st_size
    # What decides the network, and is not it: statistics, normalisation, weights, version, whether the clip is normalised.
    model = mutual3d.load(path, "filed", cache=tmp_path)
    smallest = model.network.space.smallest
    other = {name: 1.5 * mean for name, mean in model.network.statistics[smallest].mean.items()}
    model.network.set_statistics({smallest: BNStatistics(other, model.network.statistics[smallest].variance)})
    clip = random_call(model)[0]
    model(clip, configuration=smallest)
    model.activate(smallest)(clip.float())
    with torch.no_grad():
        next(model.network.parameters()).mul_(1.01)
    model(clip)
    monkeypatch.setattr(Filed, "version", lambda runtime: "2")
    call(path, tmp_path)
    assert filed.saved == ["0.5-32-4"] * 5 and len(files(tmp_path)) == 5
    assert len({network.model for network in files(tmp_path)}) == 2


@pytest.mark.parametrize("harm", ["cut", "empty", "flipped", "password", "packed", "text", "wrong scores"])
def test_a_damaged_file_is_said_once_and_compiled_anew(path, filed, tmp_path, harm, caplog):
    expected = call(path, tmp_path)
    (kept,) = files(tmp_path)
    content = kept.path.read_bytes()
    if harm == "wrong scores":
        filed.scale = 0.5
        with pytest.raises(Exception, match="is not the network that PyTorch runs"):
            call(path, tmp_path)
        assert "is not what was written (is not the network that PyTorch runs" in caplog.text
        return
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    # The entry of the first file in the list at the end of the archive: how it is locked, and how it is packed.
    entry, marks = content.index(b"PK\x01\x02"), {"password": (8, 1), "packed": (10, 8)}
    place, bit = marks.get(harm, (0, 0))
    other = content[: entry + place] + bytes([content[entry + place] ^ bit]) + content[entry + place + 1 :]
    harmed = {"cut": content[:middle], "empty": b"", "flipped": flipped, "text": b"no archive"}
    kept.path.write_bytes(harmed.get(harm, other))
    assert NetworkCache(tmp_path).networks()[0].facts in ({}, kept.facts)
    for _ in range(2):
        assert torch.equal(call(path, tmp_path), expected)
    assert filed.saved == ["0.5-32-4"] * 2 and caplog.text.count("is not what was written") == 1
    assert zipfile.ZipFile(kept.path).testzip() is None


def test_a_full_disk_and_a_folder_that_cannot_be_written_lose_nothing(path, filed, tmp_path, caplog, monkeypatch):
    expected = mutual3d.load(path)(*random_call(make_model("x3d")), configuration="0.5-32-4")
    (tmp_path / "file").write_text("in the way")
    for _ in range(2):
        assert torch.allclose(call(path, tmp_path / "file"), expected, atol=1e-6)
    assert caplog.text.count("compiled networks are not kept") == 1 and "cannot write in the directory" in caplog.text

    def no_space(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(zipfile.ZipFile, "write", no_space)
    free = iter(range(10))  # as others fill the disk meanwhile
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=next(free)))
    caplog.clear()
    for _ in range(2):
        assert torch.allclose(call(path, tmp_path / "full"), expected, atol=1e-6)
    assert caplog.text.count("No space left on device") == 1 and not [x for x in (tmp_path / "full").rglob("*") if x.is_file()]


CRASH = """
import os, signal, sys
import mutual3d, test_network_cache as tests

class Killing(tests.Filed):
    def save(self, network, path):
        os.kill(os.getpid(), signal.SIGKILL)

tests.register_runtime(Killing)
tests.call(sys.argv[1], sys.argv[2])
"""


def test_a_runtime_that_kills_its_process_while_it_compiles_is_refused_the_third_time(path, filed, tmp_path, caplog):
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parent), *sys.path])}
    ended = subprocess.run([sys.executable, "-c", CRASH, str(path), str(tmp_path)], env=environment, capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    (note,) = tmp_path.rglob("*.compiling")
    assert NetworkCache(tmp_path).num_crashes(note.parent.name, note.name.split(".")[0]) == 1
    # As another process would have left it, which began at another time.
    note.with_name(note.name.replace(".compiling", "1.compiling")).touch()
    words = "0.5-32-4 in the runtime filed .* is not compiled: 2 processes ended while they compiled it, .*another runtime, or none, .*cache --clear"
    for _ in range(2):
        with pytest.raises(CompilationError, match=words):
            call(path, tmp_path)
    # Another configuration is not affected; and after a clearing it is tried again, and works.
    call(path, tmp_path, "1-48-8")
    assert NetworkCache(tmp_path).clear()[0] == 1
    call(path, tmp_path)
    assert filed.saved == ["1-48-8", "0.5-32-4"] and not list(tmp_path.rglob("*.compiling"))


def test_a_full_disk_where_a_kept_network_is_unpacked_is_told_as_that(path, filed, tmp_path, caplog, monkeypatch):
    call(path, tmp_path)
    (kept,) = files(tmp_path)

    def no_space(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "into").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "write_bytes", no_space)
        assert NetworkCache(tmp_path).take(kept.model, kept.path.stem, tmp_path / "into") is None
    assert f"nothing can be written in '{tmp_path}' (No space left on device): free space there" in caplog.text
    assert "is not what was written" not in caplog.text and files(tmp_path)[0].facts == kept.facts


def test_the_networks_that_were_not_used_for_longest_make_room(path, filed, tmp_path):
    for configuration in ("0.5-32-4", "1-48-8"):
        call(path, tmp_path, configuration)
    small, large = sorted(files(tmp_path), key=lambda network: network.num_bytes)
    for age, network in ((100, large), (50, small)):
        os.utime(network.path, (network.path.stat().st_mtime - age,) * 2)
    cache = NetworkCache(tmp_path, max_bytes=2 * small.num_bytes + 1000)
    cache.keep(small.model, "third", [small.path], {})
    assert {network.path.name for network in cache.networks()} == {small.path.name, "third.network"}


def test_where_networks_are_kept(monkeypatch, tmp_path):
    monkeypatch.delenv("MUTUAL3D_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert NetworkCache().directory == tmp_path / "mutual3d"
    monkeypatch.setenv("MUTUAL3D_CACHE", str(tmp_path / "own"))
    assert NetworkCache().directory == tmp_path / "own" and NetworkCache(tmp_path).directory == tmp_path
    monkeypatch.setenv("MUTUAL3D_CACHE", "off")
    assert NetworkCache().directory is None and NetworkCache().networks() == [] and NetworkCache().clear() == (0, 0)


def test_the_command_shows_and_clears_by_model(path, filed, tmp_path, capsys, monkeypatch):
    other = tmp_path / "other.pyth"
    changed = make_model("x3d")
    with torch.no_grad():
        next(changed.parameters()).mul_(1.01)
    changed.save(other)
    for model, configuration in ((path, "0.5-32-4"), (path, "1-48-8"), (other, "1-48-8")):
        call(model, tmp_path / "cache", configuration)
    where = ["--directory", str(tmp_path / "cache")]
    command.main(where)
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith(f"{tmp_path / 'cache'}: 3 networks, ") and told[0].endswith(" MB")
    assert any(line.startswith(f"  {path}: 2 networks, ") for line in told)
    assert any(line.startswith(f"  {other}: 1 network, ") for line in told)
    assert "    filed: 0.5-32-4, 1-48-8" in told
    command.main([*where, "--model", str(other)])
    assert str(path) not in capsys.readouterr().out
    command.main([*where, "--clear", "--model", str(path)])
    assert capsys.readouterr().out.startswith(f"deleted from '{tmp_path / 'cache'}': 2 networks, ")
    assert [network.facts["bundle"] for network in files(tmp_path / "cache")] == [str(other)]
    files(tmp_path / "cache")[0].path.write_text("damaged")
    command.main(where)
    assert "    damaged: " in capsys.readouterr().out
    command.main([*where, "--clear"])
    assert files(tmp_path / "cache") == [] and "1 network," in capsys.readouterr().out
    monkeypatch.setenv("MUTUAL3D_CACHE", "off")
    command.main([])
    assert capsys.readouterr().out == "nothing is kept: MUTUAL3D_CACHE is off\n"


# ---- Ahead, and by measurement -----------------------------------------------------------------------------------------


def test_prepare_compiles_a_list_ahead(path, filed, tmp_path, capsys):
    model = mutual3d.load(path, "filed", cache=tmp_path)
    prepared = model.prepare(["0.5-32-4", model.network.space.largest, "0.50-32-4"])
    assert filed.saved == ["0.5-32-4", "1-48-8"] and list(map(str, prepared.configurations)) == filed.saved
    assert "2 configurations are ready: " in str(prepared) and (prepared.num_bytes is None or prepared.num_bytes >= 0)
    for configuration in ("0.5-32-4", "1-48-8"):
        model(*random_call(model), configuration=configuration)
        model.activate(configuration)(*random_call(model))
    assert len(filed.saved) == 2
    # Without a list: all that is calibrated, where there is no table.
    assert len(mutual3d.load(path, "filed", cache=tmp_path).prepare(progress=False).configurations) == 2
    assert len(mutual3d.load(path).prepare().configurations) == 2 and len(filed.saved) == 2
    with pytest.raises(ValueError, match="size 40 is not one of 32, 48"):
        model.prepare(["0.5-40-4"])
    for each in (model, mutual3d.load(path)):
        with pytest.raises(RuntimeError, match="0.75-32-4 was never calibrated"):
            each.prepare(["0.75-32-4"], progress=False)


@pytest.fixture
def candidates(filed, monkeypatch):
    """Of the runtimes that are installed `filed` and `torch` alone, and what each is told to take."""
    for name, runtime in RUNTIMES.items():
        monkeypatch.setattr(type(runtime), "is_automatic", name in ("filed", "torch"))
    times = {"filed": 1.0, "torch": 2.0}
    calls = []

    def measure(runs, device, **options):
        calls.append(list(runs))
        for run in runs.values():
            run()()
        return {name: times[name] for name in runs}

    monkeypatch.setattr("mutual3d.deploy.fastest.measure_latency", measure)
    return times, calls


def test_auto_takes_the_fastest_runtime_and_remembers_it(path, candidates, filed, tmp_path, caplog):
    times, calls = candidates
    with caplog.at_level(logging.INFO):
        model = mutual3d.load(path, "auto", cache=tmp_path)
    assert model.runtime == "filed" and set(calls[0]) == {"filed", "torch"}
    assert str(model.choice).startswith("runtime filed: the fastest one for this model on ") and str(model.choice) in caplog.text
    assert "(filed 1 ms, torch 2 ms at " in str(model.choice) and str(model.choice).endswith("measured now)")
    plain = mutual3d.load(path)
    for configuration in ("0.5-32-4", "1-48-8"):
        found, expected = (each(*random_call(plain), configuration=configuration) for each in (model, plain))
        assert (found - expected).abs().max() < 1e-4
    measured = len(calls)
    again = mutual3d.load(path, "auto", cache=tmp_path)
    assert again.runtime == "filed" and len(calls) == measured and str(again.choice).endswith("measured before)")
    times["torch"] = 0.5
    assert mutual3d.load(path, "auto", cache=tmp_path / "elsewhere").runtime == "torch"
    # The remembered choice is this machine's alone, and goes with the cache.
    NetworkCache(tmp_path).clear()
    assert mutual3d.load(path, "auto", cache=tmp_path).runtime == "torch"


@pytest.mark.parametrize(
    "edit", [{"more": 1}, {"milliseconds": None}, {"milliseconds": {"filed": "fast"}}, {"failed": []}, {"machine": 1}, {"runtime": ["filed"]}, {"runtime": "gone"}]
)
def test_a_remembered_choice_that_somebody_edited_is_used_or_measured_anew(path, candidates, filed, tmp_path, edit):
    calls = candidates[1]
    mutual3d.load(path, "auto", cache=tmp_path)
    (file,) = (tmp_path / "choices").glob("*.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **edit}))
    measured = len(calls)
    model = mutual3d.load(path, "auto", cache=tmp_path)
    assert model.runtime == "filed" and model.choice.is_remembered == (edit == {"more": 1}) == (len(calls) == measured)


def test_auto_falls_back_to_pytorch_where_a_runtime_fails(path, candidates, filed, tmp_path, caplog):
    filed.fails = "out of luck"
    model = mutual3d.load(path, "auto", cache=tmp_path)
    assert model.runtime == "torch" and "runtime filed is left out" in caplog.text and "out of luck" in model.choice.failed["filed"]
    filed.fails = ""
    model = mutual3d.load(path, "auto", cache=tmp_path / "other")
    caplog.clear()
    filed.fails = "out of luck"
    shutil.rmtree(tmp_path / "other")
    left = next(c for c in ("0.5-32-4", "1-48-8") if c != model.choice.configuration)
    expected = mutual3d.load(path)(*random_call(model), configuration=left)
    for _ in range(3):
        assert (model(*random_call(model), configuration=left) - expected).abs().max() < 1e-4
    assert model.runtime == "filed" and caplog.text.count("out of luck") == 1 and "PyTorch runs configuration" in caplog.text


def test_a_network_that_no_text_tells_is_not_kept(filed, tmp_path):
    model = make_model("x3d")
    model.network.arguments = {}
    calibrate_at_random(model.network, [model.network.space.smallest])
    model.run_in("filed", cache=tmp_path)(*random_call(model), configuration="0.5-32-4")
    assert filed.saved == ["0.5-32-4"] and not files(tmp_path)
