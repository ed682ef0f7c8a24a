"""Rows of a path and a label, labels that are names, and files of class names."""

import json

import pytest

from mutual3d.data.build import build_dataset, find_class_names
from mutual3d.data.datasets.charades import read_charades
from mutual3d.data.datasets.kinetics import read_video_list, write_lines
from mutual3d.data.datasets.labels import list_row, parse_separator, read_class_names
from mutual3d.pipeline import load_config


def read(directory, text, separator=" ", num_classes=10):
    """[(path, label)] of a list with this text."""
    (directory / "train.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    videos = read_video_list(directory / "train.csv", "/data", separator, num_classes)
    return [(video.path.removeprefix("/data/"), video.label) for video in videos]


@pytest.mark.parametrize(
    "text, separator, videos",
    [
        ('"a b.mp4" 0\n"c ""d"".mp4" 1\n', " ", [("a b.mp4", 0), ('c "d".mp4', 1)]),
        ('"a,b.mp4","3"\n', ",", [("a,b.mp4", 3)]),
        ("a b.mp4\t0\nc.mp4\t1\n", "\\t", [("a b.mp4", 0), ("c.mp4", 1)]),
        ("a.mp4 0\r\nb.mp4 1\r\n".encode("utf-16"), " ", [("a.mp4", 0), ("b.mp4", 1)]),
        ("a\u2028b.mp4 1\nc\x0bd\x0c\x85e.mp4 0\n", " ", [("a\u2028b.mp4", 1), ("c\x0bd\x0c\x85e.mp4", 0)]),
        ("Dr. No 3.mp4 3\nv 1.25 4\n", " ", [("Dr. No 3.mp4", 3), ("v 1.25", 4)]),
        ('"hello" he said.mp4 1\n', " ", [('"hello" he said.mp4', 1)]),
        ('"take 1.mp4 2" 1\n', " ", [("take 1.mp4 2", 1)]),
    ],
)
def test_what_is_understood(tmp_path, text, separator, videos):
    assert read(tmp_path, text, separator) == videos


@pytest.mark.parametrize(
    "text, separator, words",
    [
        ("a.mp4,1\n", " ", "looks like 'path,label': set DATA.PATH_LABEL_SEPARATOR .--separator. to ','"),
        ("a b.mp4,1\n", " ", "the label 'b.mp4,1' .*set DATA.PATH_LABEL_SEPARATOR .--separator. to ','"),
        ("a.mp4, 1\n", " ", "ends in ','; it looks like 'path,label'"),
        ("a.mp4\t1\n", " ", r"set DATA.PATH_LABEL_SEPARATOR .--separator. to '\\t'"),
        ("a.mp4 1\n", ",", "set DATA.PATH_LABEL_SEPARATOR .--separator. to ' '"),
        ("a.mp4,1,3\n", ",", "line 1: 'a.mp4,1,3' has more than two columns: write 'path,label' alone"),
        ("b.mp4 1\na.mp4 1 3\n", " ", "line 2: .* more than two columns"),
        ("a.mp4 x 2 3\n", " ", "more than two columns"),
        ('"a b.mp4",1,3\n', ",", "more than two columns"),
        ("path label\na.mp4 1\n", " ", "line 1: .* looks like a header, .*leave the line out"),
        ("path,label\na.mp4,1\n", " ", "line 1: .* looks like a header"),
        ("label,youtube_id,time_start,time_end,split\n", " ", "looks like a header"),
        ("0 a.mp4\n", " ", "the path comes first and the label last"),
        ("a.mp4 1.0\n", " ", "the label '1.0' .*: write 1"),
        ("a.mp4 1_0\n", " ", "the label '1_0'"),
        ("a.mp4 \u0663\n", " ", "the label '\u0663'"),
        ("a.mp4 run\n", " ", "write the names, one a line, to '.*classes.txt'"),
        ("vid\xe9.mp4 0\n".encode("latin-1"), " ", "line 1: .* is not UTF-8"),
        ("a.mp4 0\n".encode("utf-16-be"), " ", "NUL"),
        ("a.mp4 1\rb.mp4 0\r", " ", "carriage return"),
        (f"{'a' * 5000}.mp4 0\n", " ", "longer than 4096"),
        (f"a.mp4 {'9' * 23}\n", " ", "out of range, legal are 0 to 9"),
        (f"a.mp4 {'9' * 9000}\n", " ", "out of range, legal are 0 to 9"),
        ("a.mp4 1\nb.mp4 10\n", " ", "line 2: label 10 .*legal are 0 to 9.*run from 1 to 10: they start at 0, so subtract 1"),
    ],
)
def test_what_is_not_is_named_for_what_it_is(tmp_path, text, separator, words):
    with pytest.raises(ValueError, match=words) as caught:
        read(tmp_path, text, separator)
    assert str(tmp_path / "train.csv") in str(caught.value) and len(str(caught.value)) < 1200


def test_a_list_that_knows_class_0_has_only_a_wrong_label(tmp_path):
    with pytest.raises(ValueError, match="label 10 .*MODEL.NUM_CLASSES 10.$"):
        read(tmp_path, "a.mp4 0\nb.mp4 10\n")
    with pytest.raises(ValueError, match="legal are 0 to 2147483647"):
        read(tmp_path, f"a.mp4 {'9' * 23}\n", num_classes=None)


@pytest.mark.parametrize("text", ["", "1", "a", "\n", "/", '"', "."])
def test_impossible_separators(tmp_path, text):
    with pytest.raises(ValueError, match="DATA.PATH_LABEL_SEPARATOR"):
        read(tmp_path, "a.mp4 0\n", text)
    assert parse_separator("\\t") == parse_separator("\t") == "\t"


def test_names_of_classes_are_labels(tmp_path):
    (tmp_path / "classes.txt").write_text("yoga\nair drumming\ndrumming\nplaying\nplaying\n")
    text = "a.mp4 air drumming\nb c.mp4 yoga\nd.mp4 drumming\ne.mp4 2\n"
    videos = [("a.mp4", 1), ("b c.mp4", 0), ("d.mp4", 2), ("e.mp4", 2)]
    assert read(tmp_path, text) == videos
    assert read(tmp_path, text.replace(".mp4 ", ".mp4,").replace("e.mp4,2", "e.mp4,drumming"), ",") == videos
    for text, words in (
        ("a.mp4 yga\n", "no name in '.*classes.txt': did you mean 'yoga'"),
        ("a b.mp4\tyoga\n", r"looks like 'path\\tlabel': set DATA.PATH_LABEL_SEPARATOR"),
        ("a.mp4,yoga\n", "looks like 'path,label': set DATA.PATH_LABEL_SEPARATOR"),
        ("a.mp4 playing\n", "has this name more than once: write numbers"),
        ("a air drumming\n", "ends in several names of '.*classes.txt': put the path in quotes"),
    ):
        with pytest.raises(ValueError, match=f"train.csv', line 1: .*{words}"):
            read(tmp_path, text)
    assert read(tmp_path, '"a air" drumming\n') == [("a air", 2)]
    names = tmp_path / "other.json"
    names.write_text('{"0": "left", "1": "right"}')
    (tmp_path / "train.csv").write_text("a.mp4 right\n")
    assert read_video_list(tmp_path / "train.csv", num_classes=2, class_names_path=names)[0].label == 1
    (tmp_path / "train.csv").write_text("a.mp4;yoga,air drumming\n")
    assert [label for label, *_ in read_charades(tmp_path / "train.csv", num_classes=5, separator=";")[0].actions] == [0, 1]


@pytest.mark.parametrize("written", ["\\t", '"\\t"', "','"])
def test_a_separator_of_the_config(tmp_path, written):
    """As YAML hands it over, and as the command line does."""
    separator = "," if "," in written else "\t"
    (tmp_path / "train.csv").write_text(f"a b.mp4{separator}right\nc.mp4{separator}1\n")
    (tmp_path / "names.txt").write_text("0,left\n1,right\n")
    (tmp_path / "run.yaml").write_text(f"DATA:\n  PATH_LABEL_SEPARATOR: {written}\n")
    words = ["DATA.PATH_TO_DATA_DIR", str(tmp_path), "DATA.CLASS_NAMES_PATH", f"{tmp_path}/names.txt", "MODEL.NUM_CLASSES", "2"]
    given = ["DATA.PATH_LABEL_SEPARATOR", "," if "," in written else "\\t"]
    for overrides in (words, [*words, *given]):
        cfg = load_config(tmp_path / "run.yaml", overrides)
        assert [video.label for video in build_dataset(cfg, "train", "single_view").videos] == [1, 1]
        assert find_class_names(cfg) == ["left", "right"]


def test_what_is_listed_twice_is_told_once(tmp_path, caplog):
    for _ in range(2):
        read(tmp_path, "a.mp4 1\nb.mp4 1\na.mp4 2\nb.mp4 1\nb.mp4 1\n")
    contradicted, twice = caplog.messages
    assert "1 rows list a video again with other labels" in contradicted and "a.mp4' (lines 1 and 3)" in contradicted
    assert "2 rows list a video again with the same label" in twice and "b.mp4' (lines 2 and 4)" in twice


def test_labels_from_1_are_told_where_the_number_of_classes_is_not_known(tmp_path, caplog):
    read(tmp_path, "a.mp4 1\nb.mp4 2\n", num_classes=None)
    assert "labels start at 0" in caplog.text


def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "train.csv").write_text("~/a.mp4 0\nb.mp4 1\n~c.mp4 1\n")
    videos = read_video_list(tmp_path / "train.csv", path_prefix="~/videos")
    assert [video.path for video in videos] == ["/home/me/a.mp4", "/home/me/videos/b.mp4", "/home/me/videos/~c.mp4"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(read_video_list("~/train.csv")) == len(read_charades("~/train.csv", num_classes=2)) == 3


def test_a_folder_in_the_way(tmp_path):
    for reader in (read_video_list, read_class_names, lambda path: read_charades(path, num_classes=3)):
        with pytest.raises(IsADirectoryError, match=f"'{tmp_path}' is a folder: name a file"):
            reader(tmp_path)


@pytest.mark.parametrize(
    "path", ["a.mp4", "a b.mp4", " a.mp4", "a.mp4 3", 'the "end"', '"end".mp4', '"end"', "a,", "a\u2028b.mp4", "a.mp4 "]
)
def test_a_row_that_is_written_is_read(tmp_path, path):
    write_lines(tmp_path / "train.csv", [list_row(path, 7)])
    (video,) = read_video_list(tmp_path / "train.csv", "/data")
    assert video == (f"/data/{path}", 7)


@pytest.mark.parametrize(
    "name, text, names",
    [
        ("a.txt", "right\nleft\n", ["right", "left"]),
        ("a.txt", "a\u2028b\x0bc\nd\n", ["a\u2028b\x0bc", "d"]),
        ("a.txt", "0,right\n1,left\n", ["right", "left"]),
        ("a.txt", "1,left\n0,right\n", ["right", "left"]),
        ("a.txt", "0 right\n1 left\n", ["right", "left"]),
        ("a.txt", "0: right\n1: left\n", ["right", "left"]),
        ("a.txt", "right\t0\nleft\t1\n", ["right", "left"]),
        ("a.csv", 'id,name\n0,"right, up"\n1,left\n', ["right, up", "left"]),
        ("a.txt", "3 hands\n2 hands\n", ["3 hands", "2 hands"]),
        ("a.txt", "class 0\nclass 1\n", ["class 0", "class 1"]),
        ("a.json", '{"0": "right", "1": "left"}', ["right", "left"]),
        ("a.json", '{"left": 1, "right": 0}', ["right", "left"]),
        ("a.json", '["right", 5]', ["right", "5"]),
    ],
)
def test_class_names_that_are_understood(tmp_path, name, text, names):
    (tmp_path / name).write_text(text)
    assert read_class_names(tmp_path / name) == names


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("a.txt", "1,right\n2,left\n", "must be 0 to 1, each once; they start at 0, so subtract 1"),
        ("a.txt", "1 right\n2 left\n", "they start at 0, so subtract 1"),
        ("a.txt", "0,right\n2,left\n", "must be 0 to 1, each once"),
        ("a.json", '{"1": "right", "2": "left"}', "they start at 0, so subtract 1"),
        ("a.json", '{"a": [0]}', "must be whole numbers"),
        ("a.json", '{"a": true}', "must be whole numbers"),
        ("a.json", '{"0": "a", "1": 5}', "must be whole numbers"),
        ("a.json", '["a", null]', "a json list of names"),
        ("a.json", '[{"name": "a"}]', "a json list of names"),
        ("a.json", "3", "a json list of names"),
        ("a.json", "{}", "are empty"),
        ("a.json", '["a", ""]', "are empty"),
        ("a.json", "[" * 100_000, "a.json"),
        ("a.txt", "\n \n", "are empty"),
    ],
)
def test_class_names_that_are_named_for_what_they_are(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        read_class_names(tmp_path / name)
    assert name in str(caught.value)


def test_class_names_in_another_encoding(tmp_path):
    (tmp_path / "a.txt").write_bytes("lancer\nfrappé\n".encode("latin-1"))
    with pytest.raises(ValueError, match="a.txt', line 2: .*not UTF-8"):
        read_class_names(tmp_path / "a.txt")
    for name, text in (("a.txt", "lancer\nfrappé\n"), ("a.json", json.dumps(["lancer", "frappé"], ensure_ascii=False))):
        (tmp_path / name).write_bytes(text.encode("utf-16"))
        assert read_class_names(tmp_path / name) == ["lancer", "frappé"]
