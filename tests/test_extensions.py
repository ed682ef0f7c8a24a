"""What the pages say of extending mutual3d: each page's one file, run as a user would, with nothing else edited."""

import re
import sys

import pytest
import torch
from tiny import ROOT, SPACE, overrides, write_set

import mutual3d
from mutual3d.cli import check_data, select
from mutual3d.cli import run as run_net
from mutual3d.cost.axes import COSTS
from mutual3d.data.sources import SOURCES
from mutual3d.metrics.build import METRICS
from mutual3d.models import NETWORKS, create_model
from mutual3d.pipeline.extend import import_extension
from mutual3d.table.query_table import QueryTable
from mutual3d.training.objectives import LOSS_FUNCTIONS, OBJECTIVES
from mutual3d.utils.files import write_json


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(autouse=True)
def registries():
    """What an extension registers is gone after the test."""
    known = [(registry, dict(registry)) for registry in (NETWORKS, OBJECTIVES, LOSS_FUNCTIONS, METRICS, SOURCES, COSTS)]
    yield
    for registry, before in known:
        registry.clear()
        registry.update(before)
    for name in [name for name in sys.modules if name.startswith("mutual3d_extension_")]:
        del sys.modules[name]


def write_extension(page, directory):
    """The Python file of a page: its first block, named as its docstring says."""
    text = re.search(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)[1]
    path = directory / re.match(r'"""(\w+\.py)', text)[1]
    path.write_text(text)
    return path


def run(data, output, extension, **changes):
    config = output.parent / "tiny.yaml"
    config.write_text("RNG_SEED: 3\n")
    extend = [] if extension is None else ["--extend", extension]
    run_net.main([*extend, "--cfg", config, *overrides(data, output, **{"TEST.ENABLE": False, **changes})])
    return QueryTable.load(output / "query_table.json")


def test_a_method(data, tmp_path):
    extension = write_extension("extend_method.md", tmp_path)
    with pytest.raises(ValueError, match="MUTUAL.OBJECTIVE is 'alpha_divergence': mutual3d has inplace_distillation"):
        run(data, tmp_path / "none", None, **{"MUTUAL.OBJECTIVE": "alpha_divergence"})
    table = run(data, tmp_path / "out", extension, **{"MUTUAL.OBJECTIVE": "alpha_divergence"})
    assert len(table) == 12
    objective = OBJECTIVES["alpha_divergence"](None, 3)
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    assert objective(logits, logits, None) == pytest.approx(0, abs=1e-6)
    assert objective(logits.flip(0), logits, None) > 0.1


def test_a_data_set(data, tmp_path, capsys):
    extension = write_extension("extend_dataset.md", tmp_path)
    rows = [line.rsplit(" ", 1) for line in (data / "train.csv").read_text().splitlines()]
    entries = [{"video": str(data / name), "action": ("right", "down")[int(label)]} for name, label in rows]
    for split in ("train", "val", "test"):
        write_json(tmp_path / f"{split}.json", entries)
    write_json(tmp_path / "actions.json", ["right", "down"])
    words = {"TRAIN.DATASET": "json_lists", "TEST.DATASET": "json_lists", "SOLVER.MAX_EPOCH": 1}
    with pytest.raises(ValueError, match="TRAIN.DATASET is 'json_lists': mutual3d has atari, ava, charades"):
        run(tmp_path, tmp_path / "none", None, **words)
    assert run(tmp_path, tmp_path / "out", extension, **words).provenance["num_videos"] == 12
    checked = ["--extend", str(extension), "--format", "json_lists", "--csv", str(tmp_path / "val.json")]
    assert check_data.main(checked) == 0 and "12 videos checked, 0 bad" in capsys.readouterr().out
    write_json(tmp_path / "val.json", [*entries, {"video": "x.mp4", "action": "up"}])
    assert check_data.main(checked) == 2 and "entry 12: the action 'up'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="val.json', entry 12: the action 'up' is not among right, down"):
        run(tmp_path, tmp_path / "out2", extension, **words)


def test_a_task(data, tmp_path):
    extension = write_extension("extend_task.md", tmp_path)
    for split in ("train", "val", "test"):
        rows = [line.rsplit(" ", 1) for line in (data / f"{split}.csv").read_text().splitlines()]
        (tmp_path / f"{split}.csv").write_text("".join(f"{data / name} {1.5 + int(label)}\n" for name, label in rows))
    words = {"TRAIN.DATASET": "regression", "TEST.DATASET": "regression", "MODEL.NUM_CLASSES": 1, "MODEL.LOSS_FUNC": "squared_error"}
    with pytest.raises(ValueError, match="MODEL.HEAD_ACT.*none"):
        run(tmp_path, tmp_path / "none", extension, **words)
    table = run(tmp_path, tmp_path / "out", extension, **words, **{"MODEL.HEAD_ACT": "none", "TEST.ENABLE": True})
    assert table.provenance["num_videos"] == 12 and len(table) == 12
    best = min(row.accuracy["mean_error"] for row in table.rows)
    front = table.pareto_front("gflops")
    assert front[-1].accuracy["mean_error"] == best and front[0].gflops == min(row.gflops for row in table.rows)
    model = mutual3d.load(tmp_path / "out" / "adaptive.pyth")
    clip = torch.zeros(2, 3, 4, 24, 24, dtype=torch.uint8)
    assert torch.equal(model(clip), model.network(model.inputs(clip), configuration=model.active))
    log = (tmp_path / "out" / "stdout.log").read_text()
    assert '"loss_squares"' in log and "top1_err" not in log


def test_a_cost(data, tmp_path, capsys):
    extension = write_extension("extend_cost.md", tmp_path)
    words = {"GRID.COSTS": "['peak_memory_mb']", "SOLVER.MAX_EPOCH": 1}
    with pytest.raises(ValueError, match="GRID.COSTS is 'peak_memory_mb': mutual3d has gflops, parameters, latency_ms"):
        run(data, tmp_path / "none", None, **words)
    table = run(data, tmp_path / "out", extension, **words)
    memory = {row.configuration: table.cost(row, "peak_memory_mb") for row in table.rows}
    clip = 4 * 3 * 4 * 24 * 24 / 1e6
    assert clip < memory[SPACE.largest] < 100 * clip
    assert memory[SPACE.smallest] == min(memory.values()) < memory[SPACE.largest] == max(memory.values())
    # What was named is measured, and nothing else; GFLOPs and parameters are always there.
    assert list(table.costs) == ["gflops", "parameters", "peak_memory_mb"] and not table.devices
    front = table.pareto_front("peak_memory_mb")
    assert [table.cost(row, "peak_memory_mb") for row in front] == sorted(table.cost(row, "peak_memory_mb") for row in front)
    assert "peak_memory_mb" in (tmp_path / "out" / "query_table.csv").read_text().splitlines()[0].split(",")
    assert (tmp_path / "out" / "accuracy_vs_peak_memory_mb.png").is_file()
    page = (tmp_path / "out" / "report.html").read_text()
    assert "accuracy against peak memory (MB per clip)" in page and "--peak-memory-mb" in page

    # Where nobody registered it, the table's own words do.
    del COSTS["peak_memory_mb"]
    model = mutual3d.load(tmp_path / "out" / "adaptive.pyth")
    budget = memory[front[0].configuration]
    assert model.set_budget(peak_memory_mb=budget).configuration == model.active == front[0].configuration
    with pytest.raises(ValueError, match="no configuration fits 1e-06 MB; the nearest, 0.5-16-2, needs .* MB"):
        model.set_budget(peak_memory_mb=1e-6)
    assert select.main([str(tmp_path / "out" / "adaptive.pyth"), "--peak-memory-mb", str(budget)]) == 0
    assert "MB per clip" in capsys.readouterr().out
    assert select.main([str(tmp_path / "out" / "query_table.json"), "--list", "--cost", "peak_memory_mb"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(front)


def test_a_network(data, tmp_path):
    extension = write_extension("extend_network.md", tmp_path)
    words = {"MODEL.MODEL_NAME": "CSN", "RESNET.WIDTH_PER_GROUP": 16, "SOLVER.MAX_EPOCH": 1}
    with pytest.raises(ValueError, match="MODEL.MODEL_NAME is 'CSN': mutual3d has"):
        run(data, tmp_path / "none", None, **words)
    table = run(data, tmp_path / "out", extension, **words)
    assert len({row.gflops for row in table.rows}) == len(table) > 4
    model = mutual3d.load(tmp_path / "out" / "adaptive.pyth")
    clip = torch.randint(0, 256, (2, 3, 4, 24, 24), dtype=torch.uint8)
    for configuration in (SPACE.smallest, SPACE.largest):
        scores = model(clip, configuration=configuration)
        normalised = (clip / 255 - 0.45) / 0.225
        pathways = model.network.activate(configuration).fit_clip(normalised)
        folded = model.extract(configuration, fold_bn=True)(pathways).softmax(1)
        assert torch.allclose(scores, folded, atol=1e-5)
    with pytest.raises(ValueError, match=r"'csn' \(CSN\) is there already, as 'csn'"):
        extended = sys.modules["mutual3d_extension_channel_separated"]
        extended.register_network("csn", words=("CSN",), build=create_model, classifier_name="fc")


def test_what_cannot_be_imported_is_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file '.*none.py' to import"):
        import_extension(tmp_path / "none.py")
    (tmp_path / "broken.py").write_text("import torch\nnothing_here\n")
    with pytest.raises(ValueError, match="broken.py' cannot be imported: NameError: name 'nothing_here'"):
        import_extension(tmp_path / "broken.py")
    (tmp_path / "text.txt").write_text("x = 1\n")
    with pytest.raises(ValueError, match="text.txt' is no Python file"):
        import_extension(tmp_path / "text.txt")


def test_a_file_is_imported_once(tmp_path):
    path = tmp_path / "once.py"
    path.write_text("from pathlib import Path\nPath(__file__).with_suffix('.txt').open('a').write('x')\n")
    import_extension(path)
    import_extension(path)
    assert (tmp_path / "once.txt").read_text() == "x"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "once.py").write_text("")
    with pytest.raises(ValueError, match="have the same name"):
        import_extension(tmp_path / "other" / "once.py")
