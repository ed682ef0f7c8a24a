"""What the registered data sets say of themselves, and that nobody else knows them by name."""

import ast

import pytest
from PIL import Image
from tiny import ROOT

from mutual3d.cli import check_data as command
from mutual3d.config import get_cfg
from mutual3d.data import sources
from mutual3d.data.build import build_dataset
from mutual3d.data.datasets.kinetics import Video, read_video_list
from mutual3d.data.sources import ONE_LABEL, SOURCES, Source, register_dataset
from mutual3d.metrics.build import METRICS
from mutual3d.pipeline import load_config

# Of packages.
WITHOUT_FILES = {"atari", "minatar", "photographs"}


@pytest.mark.parametrize("word", sorted(SOURCES))
def test_facts_are_of_things_that_there_are(word):
    """Its metric is registered; what it asks of a config is a key of it; what it has of files can be checked."""
    source, cfg = SOURCES[word], get_cfg()
    assert source.task.metric in METRICS and source.task.losses and (source.check_files is not None) == (word not in WITHOUT_FILES)
    for key in [*source.task.wants, *source.wants]:
        section, name = key.split(".")
        assert name in cfg[section], key


def test_a_word_is_registered_once():
    with pytest.raises(ValueError, match="'kinetics' is there already"):
        register_dataset(Source(SOURCES["kinetics"].open, ONE_LABEL), "kinetics")


def test_a_check_without_facts_is_no_format(capsys):
    SOURCES["bare"] = Source(SOURCES["kinetics"].open, ONE_LABEL)
    try:
        with pytest.raises(SystemExit):
            command.main(["--csv", "a.csv", "--format", "bare"])
    finally:
        del SOURCES["bare"]
    assert "invalid choice: 'bare'" in capsys.readouterr().err


def compared_words(path):
    """The words of data sets that a file compares something with."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Compare)]
    constants = {
        leaf.value for node in nodes for leaf in ast.walk(node) if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str)
    }
    return constants & SOURCES.keys()


def test_nobody_asks_for_a_data_set_by_its_name():
    # Folders of images have splits of any name, which the published image sets have not.
    known = {ROOT / "mutual3d" / "data" / "datasets" / "images.py": {"image_folder"}}
    for path in (ROOT / "mutual3d").rglob("*.py"):
        assert compared_words(path) == known.get(path, set()), path


@pytest.mark.parametrize("word, wrong", [("charades", {"MODEL.LOSS_FUNC": "cross_entropy"}), ("ava", {"TEST.SPLIT": "test"})])
def test_what_a_set_asks_for_is_refused_with_its_name(word, wrong):
    (key, value), = wrong.items()
    with pytest.raises(ValueError, match=f"{key} is '{value}': with TRAIN.DATASET {word} it must be"):
        load_config(None, ["TRAIN.DATASET", word, "TEST.DATASET", word, key, value])


@pytest.fixture
def images(tmp_path):
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        path = tmp_path / "set" / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 16), (9, 9, 9)).save(path)
    return tmp_path / "set"


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_folder_of_images_is_checked(images, capsys, num_workers):
    arguments = ["--csv", str(images / "train"), "--format", "image_folder", "--num-workers", str(num_workers)]
    assert command.main(arguments) == 0 and "3 samples checked, 0 bad" in capsys.readouterr().out
    path = images / "train" / "b" / "1.png"
    path.write_bytes(path.read_bytes()[:40])
    assert command.main(arguments) == 1
    told = capsys.readouterr().out
    assert f"{path}: it is not an image" in told and "3 samples checked, 1 bad" in told
    assert command.main([*arguments, "--num-classes", "5"]) == 2
    assert "has 2 classes and MODEL.NUM_CLASSES is 5" in capsys.readouterr().err


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """A config of a list of one video, and the number of times that it was parsed."""
    (tmp_path / "train.csv").write_text("a.mp4 0\n")
    calls = []
    monkeypatch.setattr(sources.kinetics, "read_video_list", lambda path, **named: calls.append(1) or read_video_list(path, **named))
    return load_config(None, ["DATA.PATH_TO_DATA_DIR", str(tmp_path), "DATA_LOADER.NUM_WORKERS", "0"]), tmp_path, calls


def test_a_list_is_parsed_once_until_it_changes(counted):
    cfg, folder, calls = counted
    sets = [build_dataset(cfg, "train", mode) for mode in ("train", "single_view", "multi_view")]
    assert len(calls) == 1 and {tuple(data.videos) for data in sets} == {(Video(str(folder / "a.mp4"), 0),)}
    (folder / "train.csv").write_text("a.mp4 0\nb.mp4 1\n")
    assert len(build_dataset(cfg, "train", "train")) == 2 and len(calls) == 2
    (folder / "train.csv").write_text("a.mp4 0\nb.mp4 dog\n")
    with pytest.raises(ValueError, match="dog"):
        build_dataset(cfg, "train", "train")
    (folder / "classes.txt").write_text("cat\ndog\n")  # no list, but labels are looked up in it
    assert build_dataset(cfg, "train", "train").videos[1].label == 1
    (folder / "classes.txt").write_text("dog\ncat\n")
    assert build_dataset(cfg, "train", "train").videos[1].label == 0
    (folder / "train.csv").unlink()
    with pytest.raises(FileNotFoundError):
        build_dataset(cfg, "train", "train")


def test_a_replaced_video_is_another_fingerprint_though_the_list_is_the_same(counted):
    cfg, folder, calls = counted
    before = build_dataset(cfg, "train", "train").fingerprint()
    (folder / "a.mp4").write_bytes(b"other")
    assert build_dataset(cfg, "train", "train").fingerprint() != before and len(calls) == 1
