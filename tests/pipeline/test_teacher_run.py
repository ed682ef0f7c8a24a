"""A network that learns from a larger one's stored logits, by the public commands: from one run to the other."""

import os
import shutil

import pytest
import torch
from tiny import overrides, same, write_set

import mutual3d
from mutual3d import cli
from mutual3d.deploy import AdaptiveModel
from mutual3d.pipeline import load_config, logits_plan, write_logits
from mutual3d.utils.files import load_tensors, save_tensors
from mutual3d.utils.logging import read_json_stats

ALONE = {"GRID.ENABLE": False, "CALIBRATION.ENABLE": False, "TEST.ENABLE": False}
LAST = "checkpoints/checkpoint_epoch_00002.pyth"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A set, a static run of a wider network (`teacher`), its logits (`teacher.pyth`), and a mutual run that learns from them (`taught`)."""
    folder = tmp_path_factory.mktemp("teacher")
    data = write_set(folder / "set", num_videos=8)
    (folder / "tiny.yaml").write_text("RNG_SEED: 3\n")
    run(folder, "teacher", **{"MUTUAL.ENABLE": False, "X3D.WIDTH_FACTOR": 2.0, "SOLVER.MAX_EPOCH": 4})
    assert not cli.main(["logits", str(folder / "teacher/adaptive.pyth"), "--out", str(folder / "teacher.pyth")])
    run(folder, "taught", **taught_by(folder / "teacher.pyth"))
    assert data.is_dir()
    return folder


def run(folder, name, data=None, **changes):
    words = overrides(data or folder / "set", folder / name, **{**ALONE, **changes})
    assert not cli.main(["run", "--cfg", str(folder / "tiny.yaml"), *words])


def taught_by(path, **changes):
    return {"TRAIN.TEACHER_LOGITS": path, "TRAIN.TEACHER_TEMPERATURE": 2.0, "TRAIN.TEACHER_WEIGHT": 0.5, **changes}


def test_the_logits_are_those_of_the_network_itself_by_path(folder, tmp_path):
    content = load_tensors(folder / "teacher.pyth")
    assert content["paths"] == [str(folder / f"set/{i}.mp4") for i in range(8)] and content["classes"] == ["right", "down"]
    model = mutual3d.load(folder / "teacher/adaptive.pyth")
    assert content["logits"].shape == (8, 2) and content["logits"].std() > 0.01
    for path, logits in zip(content["paths"], content["logits"]):
        probabilities = dict(model.predict(path)[0].top(2))
        wanted = torch.tensor([probabilities["right"], probabilities["down"]])
        assert torch.allclose(logits.softmax(0), wanted, atol=1e-5)
    words = ["logits", str(folder / "teacher/adaptive.pyth"), "--split", "val", "--views", "2"]
    cli.main([*words, "--out", str(tmp_path / "two.pyth")])
    two = load_tensors(tmp_path / "two.pyth")
    assert two["paths"] == content["paths"] and not torch.allclose(two["logits"], content["logits"])
    assert os.listdir(tmp_path) == ["two.pyth"]


def test_a_run_learns_from_them_and_says_so(folder):
    stats = [line for line in read_json_stats(folder / "taught/stdout.log") if line["_type"] == "train_epoch"]
    assert len(stats) == 2
    for line in stats:
        assert line["loss_largest"] == pytest.approx(line["label_loss"] + line["teacher_loss"], rel=1e-4)
    run(folder, "untaught")
    assert not same(load_tensors(folder / "untaught" / LAST)["model_state"], load_tensors(folder / "taught" / LAST)["model_state"])


def test_a_resumed_run_equals_the_uninterrupted_one_to_the_bit_from_a_file_that_moved(folder):
    content = load_tensors(folder / "teacher.pyth")
    save_tensors(folder / "moved.pyth", {"paths": content["paths"][::-1], "logits": content["logits"].flip(0)})
    begin(folder, "resumed")
    run(folder, "resumed", **taught_by(folder / "moved.pyth"))
    whole, resumed = (load_tensors(folder / name / LAST) for name in ("taught", "resumed"))
    for state in (whole, resumed):
        assert "TEACHER_LOGITS" in state.pop("cfg")
    assert whole["teacher"] and same(whole, resumed)


def begin(folder, name, source="taught"):
    """A directory in which the first epoch is done."""
    (folder / name / "checkpoints").mkdir(parents=True)
    shutil.copy(folder / source / "checkpoints/checkpoint_epoch_00001.pyth", folder / name / "checkpoints")


def test_a_resume_with_another_teacher_is_refused_or_told(folder):
    content = load_tensors(folder / "teacher.pyth")
    other = folder / "other.pyth"
    save_tensors(other, {**content, "logits": content["logits"] + torch.eye(8, 2)})
    begin(folder, "changed")
    for file, sentence in ((other, "learned from other stored logits than TRAIN.TEACHER_LOGITS names now.*ALLOW_OTHER_DATA"), ("", "TRAIN.TEACHER_LOGITS is empty: name their file")):
        with pytest.raises(ValueError, match=f"checkpoint_epoch_00001.pyth' .*{sentence}.*choose another OUTPUT_DIR"):
            run(folder, "changed", **taught_by(file))
    run(folder, "changed", **taught_by(other, **{"TRAIN.ALLOW_OTHER_DATA": True}))
    assert "going on, since TRAIN.ALLOW_OTHER_DATA is True" in (folder / "changed/stdout.log").read_text()
    run(folder, "labels", **{"SOLVER.MAX_EPOCH": 1})
    with pytest.raises(ValueError, match="learned from labels alone, and TRAIN.TEACHER_LOGITS names stored logits.*leave it empty"):
        run(folder, "labels", **{"TRAIN.TEACHER_LOGITS": other})
    with pytest.raises(ValueError, match="TRAIN.TEACHER_WEIGHT 0.5 -> 2.0"):
        run(folder, "changed", **taught_by(other, **{"TRAIN.TEACHER_WEIGHT": 2.0}))


def test_a_file_that_does_not_fit_the_list_ends_a_run_before_its_first_step(folder):
    content = load_tensors(folder / "teacher.pyth")
    save_tensors(folder / "less.pyth", {name: value[1:] for name, value in content.items() if name != "classes"})
    save_tensors(folder / "turned.pyth", {**content, "classes": ["down", "right"]})
    for name, sentence in (("less", "has no row of 1 of the 8 samples"), ("turned", "was trained on other classes than those of this run's data: number 0 is 'down' there and 'right' here"), ("none", "no such file")):
        with pytest.raises((ValueError, FileNotFoundError), match=f"{name}.pyth'.*{sentence}"):
            run(folder, "refused", **taught_by(folder / f"{name}.pyth"))
    assert not list((folder / "refused").glob("checkpoints/*"))


def test_a_video_that_neither_can_read_misaligns_nothing(folder):
    """The third video is broken: the file has no row of it, and a training that tolerates it finds those of the others."""
    broken = folder / "broken"
    shutil.copytree(folder / "set", broken)
    (broken / "2.mp4").write_bytes(b"no video")
    tolerant = {"DATA_LOADER.MAX_UNREADABLE_TRAIN": 0.2, "DATA_LOADER.MAX_UNREADABLE_TEST": 0.2}
    words = [str(folder / "teacher/adaptive.pyth"), "--out", str(folder / "broken.pyth"), "DATA.PATH_TO_DATA_DIR", str(broken)]
    assert not cli.main(["logits", *words, "DATA_LOADER.MAX_UNREADABLE_TEST", "0.2"])
    whole, content = load_tensors(folder / "teacher.pyth"), load_tensors(folder / "broken.pyth")
    assert content["paths"] == [str(broken / f"{i}.mp4") for i in range(8) if i != 2]
    assert torch.allclose(content["logits"], whole["logits"][[0, 1, 3, 4, 5, 6, 7]], atol=1e-5)
    run(folder, "tolerant", broken, **taught_by(folder / "broken.pyth"), **tolerant)
    assert "no row of 1 of the 8 samples" in (folder / "tolerant/stdout.log").read_text()


def test_a_pass_that_was_killed_goes_on(folder, tmp_path, monkeypatch):
    from mutual3d.pipeline import logits

    words = ["logits", str(folder / "teacher/adaptive.pyth"), "--out", str(tmp_path / "t.pyth"), "TEST.BATCH_SIZE", "2", "PARTIAL_SAVE_SECONDS", "0"]
    save = logits.save_logits
    monkeypatch.setattr(logits, "save_logits", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        cli.main(words)
    assert not (tmp_path / "t.pyth").exists() and len(list(tmp_path.glob(".t.pyth*"))) == 1
    monkeypatch.setattr(logits, "save_logits", save)
    monkeypatch.setattr(mutual3d.models.AdaptiveNetwork, "forward", None)  # nothing is computed again
    cli.main(words)
    assert torch.allclose(load_tensors(tmp_path / "t.pyth")["logits"], load_tensors(folder / "teacher.pyth")["logits"], atol=1e-5)
    assert os.listdir(tmp_path) == ["t.pyth"]


def test_views_of_images_are_refused(tmp_path):
    words = ["TRAIN.DATASET", "digits", "TEST.DATASET", "digits", "WIDERESNET.DEPTH", "10", "TRAIN.ENABLE", "False", "TEST.ENABLE", "False", "NUM_GPUS", "0",
             "OUTPUT_DIR", str(tmp_path / "run"), "TEST.BATCH_SIZE", "64", "DATA_LOADER.NUM_WORKERS", "0"]  # fmt: skip
    cfg = load_config("Methods/INDEPENDENT", words)
    bundle = tmp_path / "adaptive.pyth"
    plan = logits_plan(cfg, bundle, tmp_path / "t.pyth", num_views=2)
    AdaptiveModel(plan.run.make_model(), preprocessing=plan.run.measuring.preprocessing, class_names=plan.run.class_names).save(bundle)
    with pytest.raises(ValueError, match="2 views of each sample are to be averaged, and this data set gives 1: leave --views out"):
        write_logits(plan, torch.device("cpu"))
    assert not (tmp_path / "t.pyth").exists()


def test_what_the_command_refuses(folder, tmp_path, capsys):
    model = str(folder / "teacher/adaptive.pyth")
    with pytest.raises(SystemExit):
        cli.main(["logits", model, "--out", model])
    assert "--out is" in capsys.readouterr().err
    with pytest.raises(ValueError, match="cuts and normalises clips otherwise.*--cfg"):
        cli.main(["logits", model, "--out", str(tmp_path / "t.pyth"), "DATA.SAMPLING_RATE", "1"])
    (tmp_path / "turned.txt").write_text("down\nright\n")
    with pytest.raises(ValueError, match="teacher/adaptive.pyth' was trained on other classes.*number 0 is 'right' there and 'down' here"):
        cli.main(["logits", model, "--out", str(tmp_path / "t.pyth"), "DATA.CLASS_NAMES_PATH", str(tmp_path / "turned.txt")])
    with pytest.raises(FileNotFoundError, match="list"):
        cli.main(["logits", model, "--out", str(tmp_path / "t.pyth"), "--split", "none"])
    with pytest.raises(ValueError, match="0.5-24-4"):
        cli.main(["logits", model, "--out", str(tmp_path / "t.pyth"), "--config", "0.5-24-4"])
    assert os.listdir(tmp_path) == ["turned.txt"]
