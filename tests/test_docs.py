"""Every command and every Python block of the pages is run, or, where it would train for days, read as the tool reads it."""

import contextlib
import functools
import importlib.util
import io
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import published
import pytest
from scripts import load_script
from tiny import ROOT, write_set

from mutual3d import cli
from mutual3d.cli import demo, init
from mutual3d.cli import run as run_net
from mutual3d.data.build import build_dataset
from mutual3d.data.prepare.demo import make_demo
from mutual3d.models import build_model
from mutual3d.pipeline import load_config, recipe
from mutual3d.utils.checkpoint import load_weights, read_weights

# What a page of an extension shows is run by test_extensions.py.
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "INSTALL", "CONTRIBUTING")), *sorted((ROOT / "datasets").glob("*.md")),
    *sorted(page for page in (ROOT / "docs").glob("*.md") if not page.name.startswith("extend_")),
]  # fmt: skip
BLOCKS = [(page, *block) for page in PAGES for block in re.findall(r"```(\w*)\n(.*?)```", page.read_text(), re.DOTALL)]
COMMANDS = sorted({
    line.split("#")[0].strip()
    for _, language, text in BLOCKS if language == "" for line in text.splitlines()
    if re.match(r"(python|torchrun|make|\.venv|python3|pip|mutual3d) ", line)
})  # fmt: skip
# Commands too long for a line, of which a page shows what to do with the whole of a set.
LONG_COMMANDS = sorted({
    re.sub(r" +", " ", line).strip()
    for _, language, text in BLOCKS if language == "sh" for line in text.replace("\\\n", " ").splitlines()
})  # fmt: skip
SNIPPETS = [
    pytest.param(text, id=f"{page.name}-{i}") for i, (page, language, text) in enumerate(BLOCKS) if language == "python"
]
FAST = ("SOLVER.MAX_EPOCH", "1", "MUTUAL.SUBNETS_START_EPOCH", "0", "CALIBRATION.NUM_CLIPS", "8", "GRID.WIDTH_STEP", "0.25", "GRID.LATENCY_REPEATS", "1", "GRID.RUNTIMES", "['torch']",
        "TEST.NUM_ENSEMBLE_VIEWS", "1", "MUTUAL.SPATIAL_SIZES", "[40,48]", "MUTUAL.TEMPORAL_SIZES", "[4,8]",
        "MUTUAL.WIDTH_RANGE", "[0.5,1.0]", "TRAIN.BATCH_SIZE", "8")  # fmt: skip
# What is added to a run of a config that a page has made.
QUICK = ("SOLVER.MAX_EPOCH", "1", "SOLVER.WARMUP_EPOCHS", "0", "CALIBRATION.NUM_CLIPS", "8", "GRID.WIDTH_STEP", "0.5",
         "GRID.LATENCY_REPEATS", "1", "GRID.RUNTIMES", "[]", "TEST.NUM_ENSEMBLE_VIEWS", "1", "TEST.NUM_SPATIAL_CROPS", "1")  # fmt: skip
INIT = Path(init.__file__).read_text()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A directory in which the demo has been run, on few videos and for one epoch, by the demo's own command."""
    directory = tmp_path_factory.mktemp("world")
    for name in ("tools", "configs", "datasets", "benchmarks"):
        (directory / name).symlink_to(ROOT / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "make_demo", functools.partial(make_demo, num_train=16, num_val=8, num_test=8))
        demo.main(["DATA.PATH_TO_DATA_DIR", f"{directory}/demo/data", "OUTPUT_DIR", f"{directory}/demo/out", *FAST])
    return directory


@pytest.fixture(scope="module")
def data(world):
    """What the pages find in /data: the sets as they are published, in little, and what their own commands make of them."""
    for write in (published.write_kinetics, published.write_ucf101, published.write_hmdb51, published.write_charades,
                  published.write_jhmdb, published.write_weizmann, published.write_ssv2, published.write_coco, published.write_div2k, published.write_nyudv2):  # fmt: skip
        write(world / "data" / write.__name__.removeprefix("write_").replace("kinetics", "k400"))
    for command in RUNNABLE:
        if "datasets/" in command:
            run(command, world)
    return world / "data"


def config_word(command):
    """What a command that runs a config names after --cfg; "" for any other command."""
    words = shlex.split(command)
    is_run = "run_net.py" in command or re.search(r"\bmutual3d run ", command)
    return words[words.index("--cfg") + 1] if is_run and "--cfg" in words else ""


# A run of a config that a page's own commands write is run with them.
RUNS = [c for c in COMMANDS + LONG_COMMANDS if config_word(c) and not config_word(c).startswith("my_")]


def config_of(command):
    words = shlex.split(command)
    start = next(i for i, word in enumerate(words) if word.endswith(".py") or words[i - 1 : i + 1] == ["mutual3d", "run"])
    options = run_net.parse(words[start + 1 :])
    # A file of a PySlowFast user's own; test_pyslowfast_files.py loads all of them.
    config = options.config if "/" in options.config else f"Kinetics/{options.config}"
    return load_config(config, options.overrides)


@pytest.mark.parametrize("command", RUNS)
def test_run_commands_are_understood(command, monkeypatch):
    """Configuration file and overrides exist and agree; the training itself is tested on small sets."""
    monkeypatch.chdir(ROOT)
    assert config_of(command).MODEL.NUM_CLASSES > 0


@pytest.mark.parametrize("command", [c for c in LONG_COMMANDS if "run_net.py" not in c])
def test_long_commands_are_understood(command):
    words = shlex.split(command)
    if words[0] == "ffmpeg":  # what `mutual3d init` prints of large videos
        assert command in INIT
        return
    assert words[0] == "python" and (ROOT / words[1]).is_file()
    assert load_script(words[1]).parse_arguments(words[2:])


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
    if not named or any(path.startswith(f"{data}/") and not (data / path.split("/")[len(data.parts)]).is_dir() for path in named):
        pytest.skip("its set is not published in little")
    assert [path for path in named if not Path(path).exists()] == []
    if cfg.TRAIN.ENABLE and cfg.TRAIN.DATASET in ("kinetics", "charades", "ava", "ssv2", "coco"):
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
        words += ["--num-train", "8", "--num-val", "8", *([] if re.search("ava|coco|nyudv2", words[1]) else ["--num-test", "8"])]
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


def write_my_videos(directory):
    """my_videos/{walk,run}/{anna,ben,cleo}_{1,2,3}.mp4, small."""
    source = write_set(directory / "set", num_videos=18)
    for i in range(18):
        target = directory / "my_videos" / ("walk", "run")[i % 2] / f"{('anna', 'ben', 'cleo')[i // 6]}_{i // 2 % 3 + 1}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        (source / f"{i}.mp4").rename(target)


def write_truth(directory):
    """truth.csv: of each of the demo's test videos, a stretch of its class, by number."""
    rows = (row.rsplit(" ", 1) for row in (directory / "demo/data/test.csv").read_text().splitlines())
    (directory / "truth.csv").write_text("".join(f"demo/data/{path} 0.1 0.9 {label}\n" for path, label in rows))


def commands_of(page):
    """The `mutual3d` commands of a page in its order, but those that run a config of the project's, which would train for days."""
    lines = [line.split("#")[0].strip() for path, language, text in BLOCKS if path == page and language == "" for line in text.splitlines()]
    return [line for line in dict.fromkeys(lines) if line.startswith("mutual3d ") and line not in RUNS]


@pytest.mark.parametrize("page", [page for page in PAGES if commands_of(page)], ids=lambda page: page.name)
@pytest.mark.usefixtures("share_programs")
def test_the_commands_of_a_page_run_in_its_order(world, data, page, tmp_path, monkeypatch, capsys):
    """In a directory that holds my_videos, the demo and a list truth.csv of it alone; the network is the smallest, and trained for one epoch."""
    write_my_videos(tmp_path)
    (tmp_path / "demo").symlink_to(world / "demo")
    write_truth(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mutual3d"])
    monkeypatch.setattr(init, "CHOICES", init.CHOICES[:1])
    monkeypatch.setattr(recipe, "time_step", lambda *arguments: recipe.StepTime(0.01, 0.001, 30))
    for command in commands_of(page):
        _, name, *words = shlex.split(re.sub(r"(?<= )/data/", f"{data}/", command))
        if name == "demo":  # which `world` has run
            assert load_config(demo.CONFIG, words)
            continue
        if name == "serve":
            serve_and_ask(words, page)
            continue
        status = cli.main([name, *words, *(QUICK if name == "run" else ())])
        assert not status, command
        assert capsys.readouterr().out, command


def serve_and_ask(words, page):
    """Start the service on another port, send it the page's requests, and end it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-m", "mutual3d", "serve", *words, "--port", "0"]
    process = subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        address = next(found[1] for line in process.stdout if (found := re.match(r"http://(\S+) serves ", line)))
        requests = re.findall(r"^curl (.*)$", page.read_text(), re.MULTILINE)
        assert len(requests) > 3
        for request in requests if shutil.which("curl") else ():
            told = subprocess.run(["curl", "-sS", "--fail", *shlex.split(request.replace("127.0.0.1:8000", address))], capture_output=True, text=True)
            assert told.returncode == 0 and told.stdout, (request, told.stderr)
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_commands_of_extension_pages_are_understood(tmp_path):
    """Each page's own file is imported, and its config loads with the words that it registers; in a process of its own."""
    commands = []
    for page in sorted((ROOT / "docs").glob("extend_*.md")):
        blocks = re.findall(r"```(\w*)\n(.*?)```", page.read_text(), re.DOTALL)
        for language, text in blocks:
            if language == "python" and (name := re.match(r'"""(\w+\.py)', text)):
                (tmp_path / name[1]).write_text(text)
        lines = [line.split("#")[0] for language, text in blocks if language == "" for line in text.splitlines()]
        commands += [shlex.split(line)[1:] for line in lines if line.startswith("mutual3d run ")]
    assert len(commands) >= 3
    program = "import sys, json\nfrom mutual3d import cli\nfor words in json.loads(sys.argv[1]): cli.main([*words, '--print-config'])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(commands)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\nOUTPUT_DIR:") + done.stdout.startswith("OUTPUT_DIR:") == len(commands)


def parse_of(name):
    module = importlib.import_module(f"mutual3d.cli.{cli.SUBCOMMANDS[name].module}")
    return getattr(module, "parse", None) or getattr(module, "parse_arguments", None)


@pytest.mark.parametrize("name", [name for name in cli.SUBCOMMANDS if parse_of(name)])
def test_the_examples_of_a_commands_help_are_understood(name):
    page = importlib.import_module(f"mutual3d.cli.{cli.SUBCOMMANDS[name].module}").__doc__
    found = re.findall(r"^ *(?:torchrun .* -m )?mutual3d (.*)$", page.replace("\\\n", " "), re.MULTILINE)
    assert found
    for command in found:
        subcommand, *words = shlex.split(command.replace("[", "").replace("]", ""))
        if parse_of(subcommand):
            assert parse_of(subcommand)(words) is not None, command


def test_options_in_sentences_are_there(capsys):
    """`mutual3d NAME --option` within a line of a page: there is such a command, and it has the options."""
    text = " ".join(page.read_text() for page in [*PAGES, *(ROOT / "docs").glob("extend_*.md")])
    spans = [span for span in re.findall(r"`mutual3d ([^`]+)`", text) if not span.startswith(("-", "COMMAND"))]
    assert len(spans) > 3
    for span in spans:
        name, *words = span.split()
        with contextlib.suppress(SystemExit):
            cli.main([name, "--help"])
        told = capsys.readouterr().out
        assert [word for word in words if word.startswith("--") and word not in told] == [], span


@functools.cache
def train_detector(world):
    """What datasets/COCO.md trains, as little as can be; in the current directory."""
    small = ("RESNET.WIDTH_PER_GROUP", "8", "MASK_RCNN.BOX_FEATURES", "32", "MUTUAL.SUBNETS_START_EPOCH", "0", "SOLVER.MAX_EPOCH", "1",
             "SOLVER.WARMUP_EPOCHS", "0", "CALIBRATION.NUM_CLIPS", "8", "GRID.WIDTH_STEP", "0.5", "GRID.LATENCY_DEVICES", "[]", "TEST.ENABLE", "False")  # fmt: skip
    run_net.main(["--cfg", "configs/Demo/COCO.yaml", *small])


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_python_blocks_run(world, snippet, monkeypatch, request):
    monkeypatch.chdir(world)
    space = {}
    if "demo/out_coco" in snippet:
        request.getfixturevalue("data")
        train_detector(world)
    if "import ray" in snippet or "from ray" in snippet:
        pytest.importorskip("ray", reason="a large package, which nothing of mutual3d needs")
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
