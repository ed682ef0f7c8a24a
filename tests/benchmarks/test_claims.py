"""Plans of claims, their database and pages: a plan of digits is trained by the command, and every plan is one that can be."""

import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats

from benchmarks.claims import __main__ as claims
from benchmarks.claims import train
from benchmarks.claims.database import Database, Result
from benchmarks.claims.plan import PLANS, read_plan, runs_of
from benchmarks.claims.report import BESIDE, PAGES, Measured, write_index, write_page
from benchmarks.claims.statistics import estimate, paired
from benchmarks.common import ROOT
from mutual3d.pipeline import load_config

PLAN = {
    "title": "Digits", "question": "Does it run?", "paper": "None.", "config": "Methods/MUTUAL", "metric": "top1_acc", "split": "the test digits",
    "reference": "alone", "configurations": ["0.5-10", "1-16"], "epochs": [1], "seeds": [0, 1],
    "shared": {"GRID.WIDTH_STEP": 0.5, "MUTUAL.SPATIAL_SIZES": [10, 16], "TRAIN.BATCH_SIZE": 64, "WIDERESNET.DEPTH": 10, "CALIBRATION.NUM_CLIPS": 64},
    "methods": {
        "alone": {"config": "Methods/INDEPENDENT", "each": True, "configurations": ["1-16"]},
        "mutual": None,
        "after": {"changes": {"TRAIN.CHECKPOINT_FILE_PATH": "{mutual}/checkpoints/checkpoint_epoch_00001.pyth", "TRAIN.CHECKPOINT_EPOCH_RESET": True}},
    },
}  # fmt: skip


def write_plan(folder, **changes):
    path = folder / "digits.yaml"
    path.write_text(yaml.safe_dump({**PLAN, **changes}, sort_keys=False))
    return path


def result_of(run, **rows):
    rows = {str(c): {"gflops": i + 1.0, "top1_acc": 50.0 + run.seed} for i, c in enumerate(run.configurations)} | rows
    return Result(run.key, "mutual3d run", "v1", "2026-01-01", 60.0, 1000.0, 10, 100, "x86_64", rows)


@pytest.mark.parametrize("path", sorted(PLANS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_plan_of_the_repository_asks_for_configurations_that_its_configs_have(path):
    plan = read_plan(path)
    shortest = {method.name: (method.epochs or plan.epochs)[0] for method in plan.methods.values()}
    for run in runs_of(plan, plan.seeds[:1]):
        if run.epochs > shortest[run.method.name]:
            continue  # the same settings
        words = run.command(Path("runs"), Path("data") if plan.data else None)
        cfg = load_config(words[2], words[3:])
        assert cfg.SOLVER.MAX_EPOCH == run.epochs and cfg.RNG_SEED == run.seed
        for configuration in () if run.method.hidden else run.configurations:
            assert configuration.spatial in (cfg.MUTUAL.SPATIAL_SIZES or [cfg.DATA.TRAIN_CROP_SIZE])
            assert configuration.temporal in (cfg.MUTUAL.TEMPORAL_SIZES or [cfg.DATA.NUM_FRAMES])


def test_runs_are_told_apart_by_what_decides_their_result(tmp_path):
    runs = list(runs_of(read_plan(write_plan(tmp_path))))
    assert [run.describe() for run in runs[:3]] == ["alone 1-16, 1 epochs, seed 0", "mutual, 1 epochs, seed 0", "after, 1 epochs, seed 0"]
    assert len({run.key for run in runs}) == len(runs) == 6
    again = list(runs_of(read_plan(write_plan(tmp_path, title="Another", question="?", configurations=["1-16"]))))
    assert [run.key for run in again] == [run.key for run in runs]
    other = list(runs_of(read_plan(write_plan(tmp_path, shared={**PLAN["shared"], "TRAIN.BATCH_SIZE": 32}))))
    assert not {run.key for run in other} & {run.key for run in runs}
    assert runs[2].starts_from == {"mutual": runs[1]}
    words = runs[2].command(tmp_path, None)
    assert "DATA.PATH_TO_DATA_DIR" not in words
    assert words[words.index("TRAIN.CHECKPOINT_FILE_PATH") + 1].startswith(str(tmp_path / runs[1].key))


def test_an_edited_config_makes_another_run(tmp_path):
    def key(batch_size):
        config = tmp_path / f"{batch_size}.yaml"
        config.write_text(f"TRAIN: {{BATCH_SIZE: {batch_size}}}\nOUTPUT_DIR: {batch_size}\n")
        return next(runs_of(read_plan(write_plan(tmp_path, methods={"mutual": {"config": str(config)}}, reference=None)))).key

    first = key(8)
    (tmp_path / "8.yaml").rename(tmp_path / "other.yaml")
    (tmp_path / "9.yaml").write_text("TRAIN: {BATCH_SIZE: 8}\nOUTPUT_DIR: elsewhere\n")
    plan = read_plan(write_plan(tmp_path, methods={"mutual": {"config": str(tmp_path / "9.yaml")}}, reference=None))
    assert next(runs_of(plan)).key == first != key(16)


def test_the_folder_of_the_data_goes_where_a_method_wants_it(tmp_path):
    methods = {"clips": None, "boxes": {"data": "other", "changes": {"AVA.FRAME_DIR": "{data}/frames"}}}
    clips, boxes = runs_of(read_plan(write_plan(tmp_path, methods=methods, reference=None, data="set", seeds=[0])))
    words = clips.command(tmp_path, Path("there"))
    assert words[words.index("DATA.PATH_TO_DATA_DIR") + 1] == "there" and (clips.data, boxes.data) == ("set", "other")
    words = boxes.command(tmp_path, Path("there"))
    assert words[words.index("AVA.FRAME_DIR") + 1] == "there/frames"
    assert "GRID.WIDTH_STEP" not in words  # what its own set does not share


def test_a_fold_a_seed_is_a_folder_of_the_data(tmp_path):
    plan = read_plan(write_plan(tmp_path, methods={"mutual": None}, reference=None, data="people", repeats="person", shared={"DATA.PATH_TO_DATA_DIR": "{data}/fold_{seed}"}))
    runs = list(runs_of(plan))
    folders = [words[words.index("DATA.PATH_TO_DATA_DIR") + 1] for words in (run.command(tmp_path, Path("there")) for run in runs)]
    assert folders == ["there/fold_0", "there/fold_1"]
    database = Database(tmp_path / "results.sqlite")
    for run in runs:
        database.add(run, result_of(run))
    write_page(plan, database, tmp_path / "pages")
    page = (tmp_path / "pages" / "digits.md").read_text()
    assert "1 epochs, people 0, 1, top1_acc in per cent without intervals of so few" in page and "CPU minutes a person" in page


def test_a_plan_like_another_says_only_what_it_changes(tmp_path):
    write_plan(tmp_path)
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump({"like": "digits", "title": "Other", "question": "?", "paper": "None.", "reference": None, "methods": {"mutual": None}}))
    first, other = read_plan(tmp_path / "digits.yaml"), read_plan(path)
    assert (other.name, other.title, other.reference, list(other.methods)) == ("other", "Other", None, ["mutual"])
    assert [run.key for run in runs_of(other)] == [run.key for run in runs_of(first) if run.method.name == "mutual"]
    path.write_text(yaml.safe_dump({"like": "digist", "title": "Other"}))
    with pytest.raises(ValueError, match="other.yaml: not a plan: like 'digist': there is no such plan beside it"):
        read_plan(path)


@pytest.mark.parametrize(
    "change, told",
    [({"reference": "alnoe"}, "reference 'alnoe' is none of the methods"), ({"seed": [1]}, "seed"), ({"configurations": ["1-x"]}, "1-x")],
)
def test_a_file_that_is_no_plan_is_named(tmp_path, change, told):
    with pytest.raises(ValueError, match=f"digits.yaml: not a plan: .*{told}"):
        read_plan(write_plan(tmp_path, **change))


def test_intervals_are_students():
    values = [51.0, 54.5, 49.0, 53.0]
    low, high = stats.t.interval(0.95, 3, loc=sum(values) / 4, scale=stats.sem(values))
    found = estimate(values)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-3)
    many = [*range(12)]
    assert estimate(many).half == pytest.approx(stats.t.ppf(0.975, 11) * stats.sem(many))
    assert estimate([3.0]).half is None and str(estimate([3.0])) == "3.0"
    difference = paired({0: 5.0, 1: 7.0, 3: 1.0}, {1: 4.0, 0: 1.0})
    assert difference.mean == 3.5 and difference.seeds == 2 and difference.half == pytest.approx(12.706 * 0.5, rel=1e-3)
    assert paired({0: 1.0}, {1: 1.0}) is None


def test_the_mean_over_configurations_has_an_interval_of_its_own(tmp_path):
    plan = read_plan(write_plan(tmp_path, seeds=[0, 1, 2], methods={"alone": {"config": "Methods/INDEPENDENT"}, "mutual": None}))
    gains = {0: (4.0, 2.0), 1: (1.0, 1.0), 2: (3.0, 4.0)}
    results = [
        (run, result_of(run, **{str(c): {"gflops": i + 1.0, "top1_acc": 50.0 + (gains[run.seed][i] if run.method.name == "mutual" else 0.0)}
                                for i, c in enumerate(run.configurations)}))
        for run in runs_of(plan)
    ]  # fmt: skip
    measured = Measured(plan, results)
    mean, count = measured.mean_difference("mutual", 1)
    assert count == 2 and mean == estimate([3.0, 1.0, 3.5])
    assert measured.mean_difference("alone", 1) is None
    # A repetition that has one configuration alone is no part of it.
    del measured.values["mutual", 1, plan.methods["mutual"].configurations[0]][2]
    assert measured.mean_difference("mutual", 1)[0] == estimate([3.0, 1.0])


def test_a_page_says_what_was_measured_and_no_more(tmp_path):
    plan = read_plan(write_plan(tmp_path, seeds=[0, 1, 2], methods={"alone": PLAN["methods"]["alone"] | {"configurations": ["0.5-10", "1-16"]}, "mutual": None}))
    database = Database(tmp_path / "results.sqlite")
    assert write_page(plan, database, tmp_path) is None
    for run in runs_of(plan):
        if run.method.name == "alone" or run.seed == 0:
            gain = 4.0 if run.method.name == "mutual" else 0.0
            rows = {str(c): {"gflops": 0.5 + c.width, "top1_acc": 50.0 + run.seed + gain} for c in run.configurations}
            database.add(run, result_of(run, **rows))
    line = write_page(plan, database, tmp_path)
    page = (tmp_path / "digits.md").read_text()
    assert "| 0.5-10 | 1 | 51.0 ± 2.5 | 54.0 (+4.0) |" in page and "7 of 9 runs" in page and (tmp_path / "digits.png").stat().st_size > 5000
    assert "`mutual` against `alone` after 1 epochs, of one seed: +4.0 points on average over 2 configurations." in line
    write_index([line], database, tmp_path)
    assert "7 trainings of the database: 0.1 hours" in (tmp_path / "README.md").read_text()


def test_a_page_gives_the_gflops_of_the_reference_and_says_whose_differ(tmp_path):
    methods = {"first": {"changes": {"TRAIN.BATCH_SIZE": 8}}, "alone": PLAN["methods"]["alone"], "cheap": None}
    plan, database = read_plan(write_plan(tmp_path, methods=methods, seeds=[0])), Database(tmp_path / "results.sqlite")
    costs = {"first": {"0.5-10": 1.0, "1-16": 9.0}, "alone": {"1-16": 8.0}, "cheap": {"0.5-10": 1.009, "1-16": 8.05}}
    for run in runs_of(plan):
        rows = {name: {"gflops": gflops, "top1_acc": 50.0} for name, gflops in costs[run.method.name].items()}
        database.add(run, result_of(run, **rows))
    write_page(plan, database, tmp_path)
    page = (tmp_path / "digits.md").read_text()
    assert "| 0.5-10 | 1 |" in page and "| 1-16 | 8 |" in page
    assert "The networks of other methods cost other GFLOPs: `first` 9 at 1-16.\n" in page
    measured = Measured(plan, database.results(list(runs_of(plan))))
    assert [gflops for gflops, _ in measured.points("cheap", 1)] == [1.009, 8.05]


def test_a_configuration_that_a_grid_has_not_is_named(tmp_path):
    plan, database = read_plan(write_plan(tmp_path)), Database(tmp_path / "results.sqlite")
    run = next(runs_of(plan))
    database.add(run, Result(**{**vars(result_of(run)), "rows": {"0.5-10": {"gflops": 1.0, "top1_acc": 1.0}}}))
    with pytest.raises(ValueError, match="alone 1-16, 1 epochs, seed 0: its grid has no 1-16; it has 0.5-10"):
        write_page(plan, database, tmp_path)


def test_the_commands_train_what_is_missing_once_and_go_on_after_a_failure(tmp_path, monkeypatch, capsys):
    """On 64 images of noise."""
    monkeypatch.setattr(claims, "PLANS", tmp_path)
    draw = np.random.default_rng(0).integers
    arrays = {name: draw(256, size=(count, 16, 16, 3), dtype=np.uint8) for name, count in (("x_train", 64), ("x_test", 20))}
    np.savez(tmp_path / "noise.npz", y_train=np.arange(64) % 10, y_test=np.arange(20) % 10, **arrays)
    start = {"TRAIN.CHECKPOINT_EPOCH_RESET": True, "TRAIN.CHECKPOINT_FILE_PATH": "{alone}/checkpoints/checkpoint_epoch_00001.pyth"}
    methods = {
        "broken": {"changes": {"TRAIN.CHECKPOINT_FILE_PATH": str(tmp_path / "missing.pyth")}},
        "after": {"changes": start}, "alone": PLAN["methods"]["alone"],
    }  # fmt: skip
    shared = {**PLAN["shared"], "TRAIN.DATASET": "cifar10", "TEST.DATASET": "cifar10", "GRID.CASCADES": 0}
    path = write_plan(tmp_path, seeds=[0], methods=methods, shared=shared, data="noise")

    def command(*words):
        try:
            claims.main(["--database", str(tmp_path / "results.sqlite"), *map(str, words)])
        except SystemExit as stopped:
            return stopped.code, capsys.readouterr().out
        return 0, capsys.readouterr().out

    train = "train", "digits", "--data", f"noise={tmp_path / 'noise.npz'}", "--output"
    status, told = command(*train, tmp_path / "runs", "--jobs", "2")
    runs = list(runs_of(read_plan(path)))
    told += "".join(output.read_text() for output in tmp_path.glob("runs/*/output.txt"))
    assert status == 1 and "2 of 3 runs are in the database; 1 failed" in told, told
    assert "missing.pyth" in (tmp_path / "runs" / runs[0].key / "output.txt").read_text()
    status, told = command(*train, tmp_path / "elsewhere", "--minutes", "0")
    assert status == 0 and "2 of 3 runs are in the database" in told and not (tmp_path / "elsewhere").exists()
    assert command(*train, tmp_path / "elsewhere", "--methods", "alone", "after", "--epochs", "1")[1] == "2 of 2 runs are in the database\n"
    status, told = command(*train, tmp_path / "elsewhere", "--methods", "alnoe")
    assert status == "error: --methods alnoe: the plans have broken, after, alone"
    assert command(*train, tmp_path / "elsewhere", "--epochs", "2")[0] == "error: --epochs 2: the plans have 1"
    assert "2 of 3 runs; Digits" in command("list")[1]
    assert command("report", "--pages", tmp_path / "pages")[0] == 0 and "2 of 3 runs" in (tmp_path / "pages" / "digits.md").read_text()
    (_, after), (_, alone) = Database(tmp_path / "results.sqlite").results(runs)
    assert set(after.rows) == {"0.5-10", "0.5-16", "1-10", "1-16"} and set(alone.rows) >= {"1-16"}
    assert after.cpu_seconds > 1 and "DATA.PATH_TO_DATA_DIR NOISE" in after.command and str(tmp_path) not in after.command
    # 64 images, of which all are seen by the largest and three sub-networks.
    assert 64 * after.rows["1-16"]["gflops"] < after.training_gflops < 4 * 64 * after.rows["1-16"]["gflops"]


FAKE_RUN = """
import signal, sys, time
from pathlib import Path
folder, what = Path(sys.argv[1]), sys.argv[2]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
(folder / "started").touch()
if what == "long":
    time.sleep(60)
if what != "nothing":
    (folder / "query_table.json").write_text("a table")
if what == "dies":
    sys.exit(1)
"""


@pytest.fixture
def trainer_of(monkeypatch, tmp_path):
    """Trainers whose runs are processes of Python alone: seconds fewer than those of the command."""

    def make(what, database="results.sqlite", folders="runs"):
        class Trainer(train.Trainer):
            def _command(self, run):
                return [sys.executable, "-S", "-c", FAKE_RUN, str(self.folders / run.key), what.get(run.method.name, "done")]

            def _result(self, run, folder, seconds):
                return result_of(run)

        return Trainer(Database(tmp_path / database), tmp_path / folders, {}, jobs=3)

    return make


def plan_runs(folder, methods):
    return list(runs_of(read_plan(write_plan(folder, seeds=[0], methods=methods, reference=None))))


def test_a_run_that_ends_when_the_others_are_stopped_is_kept_and_what_was_stopped_has_not_failed(tmp_path, trainer_of, monkeypatch, capsys):
    runs = plan_runs(tmp_path, {"quick": None, "slow": {"changes": {"TRAIN.BATCH_SIZE": 8}}})
    trainer = trainer_of({"slow": "long"})
    started = [tmp_path / "runs" / run.key / "started" for run in runs]
    collect = trainer._collect

    def collected():
        if not trainer._is_stopping:  # both are there, and one has ended, when the minutes are over
            end = time.monotonic() + 60
            while not (started[1].exists() and (started[0].parent / "query_table.json").exists()):
                assert time.monotonic() < end
                time.sleep(0.05)
            time.sleep(0.5)
            raise KeyboardInterrupt
        collect()

    monkeypatch.setattr(trainer, "_collect", collected)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(runs, 60)
    assert [run in trainer.database for run in runs] == [True, False] and not trainer.failed and "failed" not in capsys.readouterr().out


def test_a_run_without_a_table_has_failed_and_what_starts_from_others_waits_for_all_of_them(tmp_path, trainer_of):
    chain = {"third": {"changes": {"TRAIN.CHECKPOINT_FILE_PATH": "{second}/a"}}, "second": {"changes": {"TRAIN.CHECKPOINT_FILE_PATH": "{first}/a"}},
             "first": None}  # fmt: skip
    runs = plan_runs(tmp_path, chain)
    dying = trainer_of({"second": "dies"})
    assert dying.train(runs[:1], 1) == 1 and [run in dying.database for run in runs] == [False, False, True] and len(dying.failed) == 1
    trainer = trainer_of({})
    assert trainer.train(runs[:1], 1) == 0 and all(run in trainer.database for run in runs)
    # Where the folders are gone, a new run needs them again, and the number of those that are left is of those that were asked for.
    other = trainer_of({"second": "nothing"}, folders="others")
    other.database = Database(tmp_path / "others.sqlite")
    other.database.add(runs[2], result_of(runs[2]))
    assert other.train(runs, 1) == 2 and len(other.failed) == 1 and "second" in other.failed[0]


def test_two_trainers_share_the_work(tmp_path, trainer_of):
    runs = plan_runs(tmp_path, {"one": None, "two": {"changes": {"TRAIN.BATCH_SIZE": 8}}, "three": {"changes": {"TRAIN.BATCH_SIZE": 16}}})
    first, second = trainer_of({}), trainer_of({})
    held = first._locked(runs[0])
    first.database.add(runs[2], result_of(runs[2]))
    assert second._locked(runs[0]) is None
    assert second.train(runs, 1) == 1 and not second.failed
    assert [(tmp_path / "runs" / run.key / "started").exists() for run in runs] == [False, True, False]
    held.close()
    assert second.train(runs, 1) == 0


def test_a_table_without_the_metric_of_the_plan_is_named(tmp_path):
    plan, database = read_plan(write_plan(tmp_path, metric="map")), Database(tmp_path / "results.sqlite")
    run = next(runs_of(plan))
    database.add(run, result_of(run))
    with pytest.raises(ValueError, match="alone 1-16, 1 epochs, seed 0: its table has no map, the metric of the plan; it has top1_acc"):
        write_page(plan, database, tmp_path)


def test_words_that_name_nothing_are_refused(capsys):
    for words, told in ((["list", "no_such"], "no plan is called no_such; there are "), (["train", "--data", "cifar10"], "NAME=FOLDER is needed")):
        with pytest.raises(SystemExit, match=told):
            claims.main(words)


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_the_commands_of_a_page_are_understood(page):
    for line in re.findall(r"^python -m benchmarks\.claims (.*)$", page.read_text(), re.MULTILINE):
        options = claims.parse(line.split())
        assert claims.plans_of(options.plans)


def test_a_page_waits_for_something_to_compare_and_tells_of_the_longest_training_that_is(tmp_path):
    plan = read_plan(write_plan(tmp_path, seeds=[0], epochs=[1, 4], methods={"alone": {"config": "Methods/INDEPENDENT"}, "mutual": None}))
    database = Database(tmp_path / "results.sqlite")
    of_alone, of_mutual = ([run for run in runs_of(plan) if run.method.name == name] for name in ("alone", "mutual"))
    for run in of_alone:
        database.add(run, result_of(run))
    assert write_page(plan, database, tmp_path / "pages") is None and not (tmp_path / "pages").exists()
    database.add(of_mutual[0], result_of(of_mutual[0]))
    assert "`mutual` against `alone` after 1 epochs, of one seed: +0.0 points on average over 2 configurations" in write_page(plan, database, tmp_path / "pages")


def test_the_index_names_benchmarks_that_are_there(tmp_path):
    write_index([], Database(tmp_path / "results.sqlite"), tmp_path)
    lines = [line for line in (tmp_path / "README.md").read_text().splitlines() if line.startswith("- ")]
    assert len(lines) == len(BESIDE)
    for line in lines:
        assert (ROOT / re.search(r"`python (benchmarks/\S+)`:", line)[1]).is_file() and len(line.partition(" `python")[0]) > 30
        files = re.findall(r"\]\(\.\./\.\./(\S+?)\)", line)
        assert files and all((ROOT / file).is_file() for file in files)
