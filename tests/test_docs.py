"""Every command and every Python block of the pages is run, or, where it would train for days, read as the tool reads it."""

import contextlib
import functools
import io
import re
import runpy
import shlex
import sys
from pathlib import Path

import published
import pytest
from tiny import ROOT, load_tool

from mutual3d.pipeline import load_config
from mutual3d.data.demo import make_demo

sys.path.insert(0, str(ROOT / "tools"))
PAGES = [ROOT / "README.md", ROOT / "INSTALL.md", *sorted((ROOT / "datasets").glob("*.md"))]
BLOCKS = [(page, *block) for page in PAGES for block in re.findall(r"```(\w*)\n(.*?)```", page.read_text(), re.DOTALL)]
COMMANDS = sorted({
    line.split("#")[0].strip()
    for _, language, text in BLOCKS if language == "" for line in text.splitlines()
    if re.match(r"(python|torchrun|make|\.venv|python3|pip) ", line)
})  # fmt: skip
SNIPPETS = [
    pytest.param(text, id=f"{page.name}-{i}") for i, (page, language, text) in enumerate(BLOCKS) if language == "python"
]
FAST = ("SOLVER.MAX_EPOCH", "1", "CALIBRATION.NUM_CLIPS", "8", "GRID.WIDTH_STEP", "0.25", "GRID.LATENCY_REPEATS", "1",
        "TEST.NUM_ENSEMBLE_VIEWS", "1", "MUTUAL.SPATIAL_SIZES", "[40,48]", "MUTUAL.TEMPORAL_SIZES", "[4,8]",
        "MUTUAL.WIDTH_RANGE", "[0.5,1.0]", "TRAIN.BATCH_SIZE", "8")  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A directory in which the demo has been run, on few videos and for one epoch, by the demo's own command."""
    directory = tmp_path_factory.mktemp("world")
    for name in ("tools", "configs", "datasets", "benchmarks"):
        (directory / name).symlink_to(ROOT / name)
    demo = load_tool("demo")
    demo.make_demo = functools.partial(make_demo, num_train=16, num_val=8, num_test=8)
    demo.main(["DATA.PATH_TO_DATA_DIR", f"{directory}/demo/data", "OUTPUT_DIR", f"{directory}/demo/out", *FAST])
    return directory


@pytest.fixture(scope="module")
def data(world):
    """What the pages find in /data: the sets as they are published, in little, and what their own commands make of them."""
    for write in (published.write_kinetics, published.write_ucf101, published.write_hmdb51, published.write_charades):
        write(world / "data" / write.__name__.removeprefix("write_").replace("kinetics", "k400"))
    for command in RUNNABLE:
        if "datasets/" in command:
            run(command, world)
    return world / "data"


@pytest.mark.parametrize("command", [c for c in COMMANDS if "run_net.py" in c])
def test_run_commands_are_understood(command, monkeypatch):
    """Configuration file and overrides exist and agree; the training itself is tested on small sets."""
    monkeypatch.chdir(ROOT)
    words = shlex.split(command)
    path, overrides = load_tool("run_net").parse(words[next(i for i, w in enumerate(words) if w.endswith(".py")) + 1 :])
    assert load_config(path, overrides).MODEL.NUM_CLASSES > 0


RUNNABLE = [c for c in COMMANDS if re.match(r"python (tools|datasets)/", c) and "run_net.py" not in c]


@functools.cache
def run(command, world):
    """Run a command of a page, once: `data` runs those that make something. In this process: starting one takes longer."""
    words = shlex.split(re.sub(r"(?<= )/data/", f"{world}/data/", command))
    if words[1].startswith("datasets/make_demo"):
        output = words.index("--output") + 1
        # Where the demo's own run lies, other counts are refused.
        words[output] = words[output].replace("demo/data", "demo_data")
        words += ["--num-train", "8", "--num-val", "8", *([] if "ava" in words[1] else ["--num-test", "8"])]
    told = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(told), pytest.raises(SystemExit) as done:
        patch.chdir(world)
        patch.setattr(sys, "argv", words[1:])
        patch.syspath_prepend(ROOT / Path(words[1]).parent)
        runpy.run_path(words[1], run_name="__main__")
    assert not done.value.code
    assert told.getvalue()


@pytest.mark.parametrize("command", RUNNABLE)
def test_commands_run(world, data, command):
    run(command, world)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_python_blocks_run(world, snippet, monkeypatch):
    monkeypatch.chdir(world)
    space = {}
    exec("import torch\n" + snippet, space)
    assert len(space) > 2


def test_make_targets_and_extras_exist():
    makefile, setup = (ROOT / "Makefile").read_text(), (ROOT / "setup.py").read_text()
    text = "".join(page.read_text() for page in PAGES)
    for target in re.findall(r"make (\w+)", "".join(t for _, language, t in BLOCKS if language == "")):
        assert f"\n{target}:" in makefile
    for extra in re.findall(r"pip install -e \.\[(\w+)\]", text):
        assert f'"{extra}": ' in setup


def test_links_and_named_files_exist():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"
