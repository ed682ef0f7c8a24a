"""Mistakes in typing, as somebody makes them who has the command for the first time: a sentence, no traceback, a status.

2 where the words are wrong (as argparse has it), 1 where what they name is; `check-data` and `select` say their own in their help.
"""

import pytest
from networks import calibrate_at_random
from tiny import SPACE, tiny_network

from mutual3d import cli
from mutual3d.deploy import AdaptiveModel, Preprocessing
from mutual3d.table.query_table import QueryTable, Row
from mutual3d.utils.command_line import run_command


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """bundle.pyth and table.json, which are sound; text.txt, which is nothing; empty/, a folder."""
    folder = tmp_path_factory.mktemp("typos")
    rows = [Row("0.5-16-2", (8,), 0.5, 100, {"top1_acc": 50.0}, {"cpu": 10.0}), Row("1.0-24-4", (8,), 1.0, 200, {"top1_acc": 60.0}, {"cpu": 30.0})]
    table = QueryTable(rows, {"metric": "top1_acc", "split": "val", "num_views": 1, "crop": 24})
    preprocessing = Preprocessing((0.45,) * 3, (0.225,) * 3, num_frames=4, sampling_rate=2, target_fps=30, crop=24)
    network = calibrate_at_random(tiny_network(), SPACE.corners())
    AdaptiveModel(network, preprocessing=preprocessing, table=table).save(folder / "bundle.pyth")
    table.save_json(folder / "table.json")
    (folder / "text.txt").write_text("hello\n")
    (folder / "empty").mkdir()
    return folder


def told(words, capsys):
    """(status, what stands on stderr) of a command."""
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: cli.main(words.split()))
    return ended.value.code, capsys.readouterr().err


# A sound beginning of each command, so that what follows it is what is wrong.
SOUND = {
    "init": "init empty --out out", "run": "run --cfg Demo/MUTUAL_X3D", "predict": "predict bundle.pyth text.txt",
    "select": "select bundle.pyth --gflops 1", "compare": "compare a=table.json", "export": "export bundle.pyth --config 0.5-16-2",
    "convert": "convert --from bundle.pyth --output out.pyth --to pyslowfast", "complexity": "complexity --cfg Demo/MUTUAL_X3D",
    "check-data": "check-data --csv text.txt", "demo": "demo", "stream": "stream bundle.pyth --source text.txt",
    "cache": "cache --model bundle.pyth",
    "report": "report empty",
    "bench": "bench bundle.pyth",
    "submit": "submit --cfg Demo/MUTUAL_X3D",
    "prepare": "prepare --videos empty --out cache",
    "explain": "explain bundle.pyth text.txt",
    "push": "push bundle.pyth shared", "pull": "pull shared --output out.pyth",
    "scan": "scan bundle.pyth text.txt --out found.csv",
    "serve": "serve bundle.pyth",
    "score-timeline": "score-timeline found.csv text.txt",
    "slim": "slim bundle.pyth --gflops 1",
    "logits": "logits bundle.pyth --out teacher.pyth",
}  # fmt: skip


def test_every_command_is_tried():
    assert SOUND.keys() == cli.SUBCOMMANDS.keys()


@pytest.mark.parametrize("words, nearest", [("run --cgf Demo/MUTUAL_X3D", "--cfg"), ("init empty --uot=out", "--out"), ("stream bundle.pyth --sorce 0", "--source")])
def test_a_required_option_that_is_mistyped_is_named_as_that(words, nearest, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    status, error = told(words, capsys)
    assert status == 2 and f"did you mean {nearest}?" in error


@pytest.mark.parametrize("name", SOUND)
def test_an_option_that_there_is_not_names_the_nearest(name, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    status, error = told(f"{SOUND[name]} --hepl", capsys)
    assert status == 2 and error == f"error: there is no option --hepl: did you mean --help? (mutual3d {name} --help tells every option)\n"


WRONG = [
    ("explain bundle.pyth", 2, "required: CLIP"),
    ("explain bundle.pyth empty", 2, "CLIP is 'empty', which is a folder: name one video or image"),
    ("explain bundle.pyth text.txt", 1, "cannot read video 'text.txt': it is not a video"),
    ("explain bundle.pyth text.txt --output text.txt", 2, "which is a file: name a folder"),
    ("push bundle.pyth", 2, "name a FOLDER to write, or a repository to send it to, --hub ORG/NAME"),
    ("push bundle.pyth --hub walker", 2, "--hub is 'walker': give ORG/NAME"),
    ("push bundle.pyth shared --private", 2, "--private is for a repository"),
    ("push bundle.pyth shared --license Apache", 1, "give the hub's word for it, such as apache-2.0"),
    ("push text.txt shared", 1, "text.txt' is not a readable checkpoint"),
    ("pull empty", 1, "there is no adaptive.pyth in the folder 'empty'"),
    ("export bundle.pyth --front --config 0.5-16-2", 2, "leave --config out"),
    ("pull bundle.pyth --revision main", 2, "is no ORG/NAME"),
    ("scan bundle.pyth empty", 2, "required: --out"),
    ("scan bundle.pyth empty --out found.csv", 1, "there are no videos and no images in the folder 'empty'"),
    ("scan bundle.pyth text.txt --out found.json", 1, "found.json' ends in '.json': give a name that ends in .parquet or .csv"),
    ("score-timeline found.csv", 2, "required: TRUTH"),
    ("score-timeline found.csv text.txt", 1, "text.txt', line 1: 'hello' is not 'path label'"),
    ("score-timeline found.csv text.txt --ious 2", 2, "'2' is not a number in [0, 1]"),
    ("score-timeline found.csv text.txt --output text.txt", 2, "which is read: it would be replaced"),
    ("score-timeline found.csv text.txt --output score.txt", 2, "give a name that ends in .csv or .json"),
    ("prepare --videos empty", 2, "required: --out"),
    ("prepare --videos nowhere --out cache", 2, "there is no video list 'nowhere'"),
    ("prepare --out cache", 2, "--videos"),
    ("bench", 2, "required: MODEL"),
    ("bench text.txt", 1, "text.txt' is not a readable checkpoint"),
    ("bench bundle.pyth --all --config 0.5-16-2", 2, "--config: not allowed with argument --all"),
    ("bench bundle.pyth --config 0.5-17-2", 1, "size 17 is not one of 16, 24"),
    ("bench bundle.pyth --runtime openvno", 2, "did you mean 'openvino'?"),
    ("bench bundle.pyth --repeats 0", 2, "'0' is not a whole number, 1 or more"),
    ("bench bundle.pyth --output table.txt", 2, "--output is 'table.txt': let it end in .pyth, .json, .csv"),
    ("bench bundle.pyth --video text.txt --runtime eager --repeats 1", 1, "cannot read video 'text.txt'"),
    ("bench bundle.pyth --video nowhere.mp4 --runtime eager --repeats 1", 1, "cannot read video 'nowhere.mp4'"),
    ("select bundle.pyth --latency-ms 5 --runtime openvno", 1, "did you mean 'openvino'?"),
    ("select table.json --latency-ms 5", 1, "the table has no latency of this machine"),
    ("select bundle.pyth --latency-ms 5 --device cpu --runtime torch", 2, "give one of them"),
    ("init", 2, "required: videos, --out"),
    ("init empty --out out --minutes x", 2, "'x' is not a number above 0"),
    ("init empty --out", 2, "argument --out: expected one argument"),
    ("init nowhere --out out", 1, "there is no folder or list 'nowhere'"),
    ("init empty --out text.txt", 1, "choose another directory"),
    ("run", 2, "required: --cfg"),
    ("run --cfg", 2, "argument --cfg: expected one argument"),
    ("run --cfg empty", 1, "the config 'empty' is a folder"),
    ("run --cfg text.txt", 1, "'text.txt' is not a config"),
    ("run --cfg Kinetics/MUTUAL_X3DM", 1, "did you mean Kinetics/MUTUAL_X3D_M?"),
    ("run --cfg demo/coco", 1, "did you mean Demo/COCO?"),
    ("run --cfg Demo/MUTUAL_X3D SOLVER.MAX_EPOCHS 3", 1, "unknown config key SOLVER.MAX_EPOCHS (override): did you mean SOLVER.MAX_EPOCH?"),
    ("run --cfg Demo/MUTUAL_X3D SOLVER.MAX_EPOCH", 1, "'SOLVER.MAX_EPOCH' stands alone"),
    ("run --cfg Demo/MUTUAL_X3D SOLVER.MAX_EPOCH=3", 1, "write SOLVER.MAX_EPOCH 3, without the sign"),
    ("run --cfg Demo/MUTUAL_X3D SOLVER.MAX_EPOCH three", 1, "it must be of type int, like 15"),
    ("run --cfg Demo/MUTUAL_X3D SOLVER.MAX_EPOCH -3", 1, "SOLVER.MAX_EPOCH is -3: it must be above 0"),
    ("run --cfg Demo/MUTUAL_X3D --extend empty", 1, "give --extend the path of a Python file"),
    ("run --cfg Demo/MUTUAL_X3D OUTPUT_DIR text.txt", 1, "choose another directory"),
    ("predict bundle.pyth", 2, "name a model and what it is to look at"),
    ("predict empty text.txt", 1, "give the path of a .pyth file"),
    ("predict bundle.pyth empty", 1, "there are no videos and no images in the folder 'empty'"),
    ("predict bundle.pyth text.txt", 1, "cannot read video 'text.txt': it is not a video"),
    ("stream bundle.pyth", 2, "required: --source"),
    ("stream bundle.pyth --source text.txt", 1, "cannot read video 'text.txt'"),
    ("stream bundle.pyth --source 973", 1, "there is no /dev/video973 on this machine"),
    ("stream bundle.pyth --source text.txt --deadline-ms -1", 2, "'-1' is not a number above 0"),
    ("predict bundle.pyth text.txt --config 0.5-17-2", 1, "the size 17 is not one of 16, 24"),
    ("predict bundle.pyth text.txt --device gpu", 2, "choose from"),
    ("slim bundle.pyth", 2, "give budgets of one cost (--gflops, --parameters, --latency-ms, --weights-mb); none was given"),
    ("logits bundle.pyth", 2, "required: --out"),
    ("logits bundle.pyth --out bundle.pyth", 2, "--out is 'bundle.pyth', which is read: it would be replaced"),
    ("logits bundle.pyth --out t.pyth", 1, "there is no 'config.yaml', the config of the run that made 'bundle.pyth': name it with --cfg"),
    ("logits none.pyth --out t.pyth", 1, "there is no file 'none.pyth': give the adaptive.pyth"),
    ("slim bundle.pyth --gflops 1", 1, "there is no 'config.yaml', the config of the run that made 'bundle.pyth': name it with --cfg"),
    ("select bundle.pyth", 2, "give --gflops, --parameters, --latency-ms, --weights-mb, or several of them; or --list"),
    ("select bundle.pyth --gflops x", 2, "argument --gflops"),
    ("select empty --gflops 1", 1, "there is no query table 'empty'"),
    ("select text.txt --gflops 1", 1, "is not valid JSON"),
    ("select bundle.pyth --latency-ms 20 --device gpu", 1, "no median latency on 'gpu': name one of cpu"),
    ("compare table.json", 1, "is not NAME=TABLE"),
    ("compare a=empty", 1, "there is no query table 'empty'"),
    ("compare a=table.json --point a 1", 2, "argument --point: expected 3 arguments"),
    ("export bundle.pyth", 2, "one of them is required"),
    ("export empty --config 0.5-16-2", 1, "give the path of a .pyth file"),
    ("export bundle.pyth --config x", 1, "write width-pixels-frames"),
    ("export bundle.pyth --config 0.5-16-2 --format tflite", 2, "choose from"),
    ("export bundle.pyth --config 0.5-16-2 --gflops 1", 2, "give --config or a budget (--gflops, "),
    ("export bundle.pyth --config 0.5-16-2 --int8", 2, "--int8 is for --format openvino, and needs --clips"),
    ("export bundle.pyth --config 0.5-16-2 --clips empty", 2, "--clips are what --int8 chooses its ranges by"),
    ("cache --model text.txt --clear", 1, "'text.txt' is not a readable checkpoint"),
    ("complexity --cfg empty", 1, "the config 'empty' is a folder"),
    ("complexity --cfg Demo/MUTUAL_X3D --crop 1", 1, "--crop is 1: it must be 8 or more"),
    ("complexity --cfg Demo/MUTUAL_X3D --csv empty", 1, "--csv 'empty' is a directory"),
    ("check-data --csv empty", 2, "the video list 'empty' is a folder"),
    ("check-data --csv text.txt --format kinetcs", 2, "choose from"),
    ("demo SOLVER.MAX_EPOCHS 3", 1, "did you mean SOLVER.MAX_EPOCH?"),
    ("demo OUTPUT_DIR text.txt", 1, "choose another directory"),
    ("slect", 1, "there is no command 'slect': did you mean `mutual3d select`?"),
    ("--hlep", 1, "did you mean `mutual3d --help`?"),
]


@pytest.mark.parametrize("words, status, sentence", WRONG, ids=[words for words, _, _ in WRONG])
def test_a_mistake_is_a_sentence_and_a_status(words, status, sentence, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    found, error = told(words, capsys)
    assert found == status and sentence in error, error
    assert "Traceback" not in error and "usage:" not in error
