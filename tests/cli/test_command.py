"""The command `mutual3d`, as somebody sees it who types it for the first time."""

import importlib

import pytest
from networks import calibrate_at_random
from tiny import ROOT, SPACE, tiny_network

from mutual3d import cli
from mutual3d.cli import demo, export, predict, run, select
from mutual3d.deploy import AdaptiveModel, Preprocessing
from mutual3d.pipeline import load_config
from mutual3d.table.query_table import QueryTable, Row


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    rows = [
        Row("0.5-16-2", (8,), 0.5, 100, {"top1_acc": 50.0}, {"cpu": 10.0}),
        Row("1.0-24-4", (8,), 1.0, 200, {"top1_acc": 60.0}, {"cpu": 30.0}),
    ]
    table = QueryTable(rows, {"metric": "top1_acc", "split": "val", "num_views": 1, "crop": 24})
    network = calibrate_at_random(tiny_network(), SPACE.corners())
    preprocessing = Preprocessing((0.45,) * 3, (0.225,) * 3, num_frames=4, sampling_rate=2, target_fps=30, crop=24)
    path = tmp_path_factory.mktemp("bundle") / "adaptive.pyth"
    AdaptiveModel(network, preprocessing=preprocessing, table=table).save(path)
    return str(path)


def test_the_help_fits_one_screen_and_names_every_command(capsys):
    assert cli.main(["--help"]) == 0
    told = capsys.readouterr().out
    assert len(told.splitlines()) <= 30 and all(f"\n  {name} " in told for name in cli.SUBCOMMANDS)
    assert cli.main([]) == 2


@pytest.mark.parametrize("name", cli.SUBCOMMANDS)
def test_each_commands_help_is_its_own_and_one_page(name, capsys):
    try:
        cli.main([name, "--help"])
    except SystemExit as ended:
        assert ended.code == 0
    told = capsys.readouterr().out
    assert f"mutual3d {name}" in told and "tools/" not in told and len(told.splitlines()) <= 75
    assert f"usage: mutual3d {name} " in told


@pytest.mark.parametrize("word, nearest", [("selct", "select"), ("check", "check-data"), ("predictions", "predict")])
def test_a_wrong_word_names_the_nearest(word, nearest):
    with pytest.raises(ValueError, match=f"there is no command '{word}': did you mean `mutual3d {nearest}`"):
        cli.main([word])


def test_a_wrong_option_of_a_run_names_the_nearest_and_is_no_setting(capsys):
    with pytest.raises(SystemExit):
        run.main(["--cfg", "Demo/MUTUAL_X3D", "--print-confg", "x"])
    assert "there is no option --print-confg: did you mean --print-config?" in capsys.readouterr().err


@pytest.mark.parametrize("words, told", [
    (["init", "videos", "--out", "y", "--minuts", "3"], "error: there is no option --minuts: did you mean --minutes? (mutual3d init --help"),
    (["predict", "a.pyth", "b.mp4", "--windw", "3s"], "there is no option --windw: did you mean --window?"),
    (["complexity", "--cfg", "Demo/MUTUAL_X3D", "--csvv", "a"], "there is no option --csvv: did you mean --csv?"),
    (["select", "--gflops"], "error: argument --gflops: expected one argument (mutual3d select --help"),
])  # fmt: skip
def test_a_wrong_command_line_is_one_line_with_the_nearest_option(words, told, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and told in error and len(error.splitlines()) == 1


def test_options_of_the_command_itself_and_settings_with_an_equals_sign_are_understood():
    with pytest.raises(ValueError, match="did you mean `mutual3d --version`"):
        cli.main(["--verson"])
    for words in (["SOLVER.BASE_LR=0.1"], ["SOLVER.BASE_LR=0.1", "RNG_SEED=1"]):
        with pytest.raises(ValueError, match="; write SOLVER.BASE_LR 0.1, without the sign"):
            load_config("Demo/MUTUAL_X3D", words)


def test_the_printed_config_is_the_merged_one_and_loads_to_itself(tmp_path, capsys):
    words = ["SOLVER.MAX_EPOCH", "70", "OUTPUT_DIR", str(tmp_path / "out"), "--print-config"]
    run.main(["--cfg", "Kinetics/MUTUAL_X3D_M", *words])
    printed = capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    (tmp_path / "printed.yaml").write_text(printed)
    cfg = load_config(tmp_path / "printed.yaml")
    assert cfg.dump() == printed and cfg.SOLVER.MAX_EPOCH == 70 and list(cfg.MUTUAL.SPATIAL_SIZES) == [142, 160, 192, 224]


def test_the_demo_s_own_examples_load():
    lines = [line.split() for line in demo.__doc__.splitlines() if line.startswith("    mutual3d demo")]
    assert len(lines) == 2 and all(load_config(demo.CONFIG, words[2:]).MUTUAL.ENABLE for words in lines)


def test_a_config_that_somebody_wrote_is_never_replaced(tmp_path):
    (tmp_path / "config.yaml").write_text("# mine\n")
    run.save_settings("A: 1\n", "mutual3d run", tmp_path)
    assert (tmp_path / "config.yaml").read_text() == "# mine\n"
    (tmp_path / "config.yaml").unlink()
    for value in "12":
        run.save_settings(f"A: {value}\n", "mutual3d run", tmp_path)
        assert (tmp_path / "config.yaml").read_text().endswith(f"\nA: {value}\n")


def test_a_budget_asks_a_bundle_or_its_table(bundle, tmp_path, capsys):
    assert select.main([bundle, "--gflops", "0.7"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("0.5-16-2: top-1 accuracy 50.00 %")
    assert select.main(["--table", bundle, "--latency-ms", "12", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == told.splitlines()[0]
    with pytest.raises(SystemExit):
        select.main(["--gflops", "1"])
    assert "name one adaptive.pyth or query_table.json" in capsys.readouterr().err


def test_export_takes_its_model_by_place(bundle, capsys):
    assert export.parse([bundle, "--config", "0.5-16-2"]).model == bundle
    with pytest.raises(SystemExit):
        export.parse([bundle, "--model", bundle, "--config", "0.5-16-2"])


def test_the_commands_of_the_readme_are_the_commands_there_are():
    text = (ROOT / "README.md").read_text()
    commands = [line.split("#")[0].split() for line in text.splitlines() if line.startswith("mutual3d ")]
    assert ["mutual3d", "init"] in [words[:2] for words in commands]
    for _, name, *words in commands:
        module = importlib.import_module(f"mutual3d.cli.{cli.SUBCOMMANDS[name].module}")
        parse = getattr(module, "parse", None) or getattr(module, "parse_arguments", None)
        # What select takes depends on the table: test_docs.py runs it.
        assert parse is None and name == "select" or parse(words)


@pytest.mark.parametrize("option", ["--window", "--step", "--events", "--threshold", "--background", "--views", "--batch", "--top"])
def test_what_several_commands_ask_for_alike_is_declared_once(option):
    """predict, scan and stream: one kind, one default, one sentence."""
    files = {name: (ROOT / f"mutual3d/cli/{name}.py").read_text() for name in ("predict", "scan", "stream", "explain", "looking")}
    assert [name for name, text in files.items() if f'add_argument("{option}"' in text] == ["looking"]


def test_windows_of_predict_have_a_step_too(bundle):
    parsed = predict.parse([bundle, "a.mp4", "--window", "2s", "--step", "500ms"])
    assert (parsed.window, parsed.step) == (2.0, 0.5)
