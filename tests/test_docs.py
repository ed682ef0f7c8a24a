"""Every command and every Python block of the pages is run, or, where it would train for days, read as the tool reads it."""

import contextlib
import functools
import importlib.util
import io
import re
import runpy
import shlex
import sys
from pathlib import Path

import published
import pytest
from tiny import ROOT, load_tool

from mutual3d.data.build import build_dataset
from mutual3d.data.prepare.demo import make_demo
from mutual3d.models import build_model
from mutual3d.pipeline import load_config
from mutual3d.utils.checkpoint import load_weights, read_weights

sys.path.insert(0, str(ROOT / "tools"))
# What a page of an extension shows is run by test_extensions.py.
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "INSTALL", "CONTRIBUTING")), *sorted((ROOT / "datasets").glob("*.md")),
    *sorted(page for page in (ROOT / "docs").glob("*.md") if not page.name.startswith("extend_")),
]  # fmt: skip
BLOCKS = [(page, *block) for page in PAGES for block in re.findall(r"```(\w*)\n(.*?)```", page.read_text(), re.DOTALL)]
COMMANDS = sorted({
    line.split("#")[0].strip()
    for _, language, text in BLOCKS if language == "" for line in text.splitlines()
    if re.match(r"(python|torchrun|make|\.venv|python3|pip) ", line)
})  # fmt: skip
# Commands too long for a line, of which a page shows what to do with the whole of a set.
LONG_COMMANDS = sorted({
    re.sub(r" +", " ", line).strip()
    for _, language, text in BLOCKS if language == "sh" for line in text.replace("\\\n", " ").splitlines()
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


RUNS = [c for c in COMMANDS + LONG_COMMANDS if "run_net.py" in c]


def config_of(command):
    words = shlex.split(command)
    options = load_tool("run_net").parse(words[next(i for i, w in enumerate(words) if w.endswith(".py")) + 1 :])
    return load_config(options.config, options.overrides)


@pytest.mark.parametrize("command", RUNS)
def test_run_commands_are_understood(command, monkeypatch):
    """Configuration file and overrides exist and agree; the training itself is tested on small sets."""
    monkeypatch.chdir(ROOT)
    assert config_of(command).MODEL.NUM_CLASSES > 0


@pytest.mark.parametrize("command", [c for c in LONG_COMMANDS if "run_net.py" not in c])
def test_long_commands_are_understood(command):
    words = shlex.split(command)
    assert words[0] == "python" and (ROOT / words[1]).is_file()
    spec = importlib.util.spec_from_file_location("tool_of_a_page", ROOT / words[1])
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.parse_arguments(words[2:])


def files_of(node):
    """Every value of a config, whatever it is in."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from files_of(value)
        elif key != "OUTPUT_DIR":
            yield from (str(item) for item in (value if isinstance(value, (list, tuple)) else [value]))


@pytest.mark.parametrize("command", RUNS)
def test_files_of_run_commands_are_written_by_the_commands_before_them(world, data, command, monkeypatch):
    """What a run is to read is there after the other commands of the pages, its lists are read and its checkpoint fits.

    Sets that cannot be published in little (films, ImageNet) and `k400.pyth`, a network of one's own, are left out.
    """
    monkeypatch.chdir(world)
    cfg = config_of(re.sub(r"(?<= )/data/", f"{data}/", command))
    named = [path for path in files_of(cfg) if re.match(rf"demo/|{data}/", path)]
    if not named or any(path.startswith(f"{data}/") and not (data / path.split("/")[len(data.parts) - 1]).is_dir() for path in named):
        pytest.skip("its set is not published in little")
    assert [path for path in named if not Path(path).exists()] == []
    if cfg.TRAIN.ENABLE and cfg.TRAIN.DATASET in ("kinetics", "charades", "ava"):
        assert len(build_dataset(cfg, "train", "train")) and len(build_dataset(cfg, cfg.TEST.SPLIT, "single_view"))
    checkpoint = cfg.TRAIN.CHECKPOINT_FILE_PATH
    if checkpoint.startswith("demo/"):
        load_weights(build_model(cfg), read_weights(checkpoint), checkpoint, cfg.TRAIN.CHECKPOINT_RESET_HEAD)


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
    makefile, project = (ROOT / "Makefile").read_text(), (ROOT / "pyproject.toml").read_text()
    text = "".join(page.read_text() for page in PAGES)
    for target in re.findall(r"make (\w+)", "".join(t for _, language, t in BLOCKS if language == "")):
        assert f"\n{target}:" in makefile
    for extra in re.findall(r"pip install -e \.\[(\w+)\]", text):
        assert f"\n{extra} = [" in project


def test_outputs_that_are_named_are_written(world):
    """The table of README's "In `OUTPUT_DIR`", and every file in demo/ that a page speaks of."""
    table = (ROOT / "README.md").read_text().partition("In `OUTPUT_DIR`:")[2].partition("\n\n## ")[0]
    cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    names = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    assert len(names) > 6
    for name in names:
        assert any((world / "demo/out").glob(f"*{name}" if name.startswith(".") else name)), name
    for page in PAGES:
        for name in re.findall(r"`(demo/[^` ]+)`", page.read_text()):
            assert (world / name).exists(), f"{page.name}: {name}"


def test_links_and_named_files_exist():
    for page in PAGES:
        for name in re.findall(r"`((?:configs|tools|datasets|benchmarks|mutual3d|tests)/[^` ]*)`", page.read_text()):
            names = name.partition("{")[2].partition("}")[0].split(",")
            for choice in names:
                path = re.sub(r"\{.*\}", choice, name)
                assert (ROOT / path).exists() or "..." in path, f"{page.name}: {path}"
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"
