"""Lists from the files that data sets are published with."""

import re

import published
import pytest

from mutual3d.data.datasets.charades import read_charades
from mutual3d.data.datasets.kinetics import read_video_list
from mutual3d.data.datasets.labels import read_class_names
from mutual3d.data.prepare.extraction import Layout, extract_frames, list_videos
from mutual3d.data.prepare.official_lists import write_charades_frames


def rows(path):
    return path.read_text().splitlines()


def test_kinetics(lists_tool, tmp_path, capsys):
    published.write_kinetics(tmp_path)
    annotations = tmp_path / "annotations"
    arguments = ["kinetics", "--train", f"{annotations}/train.csv", "--val", f"{annotations}/validate.csv"]
    assert lists_tool.main([*arguments, "--videos", f"{tmp_path}/videos", "--output", f"{tmp_path}"]) == 0
    assert rows(tmp_path / "train.csv") == [
        "videos/air drumming/a_000000_000010.mp4 0", "videos/yoga/b_000001_000011.mp4 1",
        "videos/air drumming/c_000002_000012.mp4 0",
    ]  # fmt: skip
    assert rows(tmp_path / "train_missing.txt") == ["d_000003_000013"] and not (tmp_path / "val_missing.txt").exists()
    assert "train.csv: 3 videos, 1 more" in capsys.readouterr().out
    assert read_class_names(tmp_path / "classes.txt") == list(published.CLASSES)
    assert all((tmp_path / path).is_file() for path, _ in read_video_list(tmp_path / "val.csv"))


def test_kinetics_classes_in_an_order_of_ones_own(lists_tool, tmp_path, capsys):
    published.write_kinetics(tmp_path)
    (tmp_path / "names.txt").write_text("yoga\nair drumming\n")
    annotations = tmp_path / "annotations"
    arguments = ["kinetics", "--train", f"{annotations}/train.csv", "--val", f"{annotations}/validate.csv"]
    arguments += ["--videos", f"{tmp_path}/videos", "--output", f"{tmp_path}/lists", "--classes"]
    assert lists_tool.main([*arguments, f"{tmp_path}/names.txt"]) == 0
    assert rows(tmp_path / "lists/train.csv")[1] == f"{tmp_path}/videos/yoga/b_000001_000011.mp4 0"
    (tmp_path / "names.txt").write_text("yoga\n")
    assert lists_tool.main([*arguments, f"{tmp_path}/names.txt"]) == 1
    assert "'air drumming' is none of the 1 classes" in capsys.readouterr().err


def test_ucf101(lists_tool, tmp_path):
    published.write_ucf101(tmp_path)
    arguments = ["ucf101", "--lists", f"{tmp_path}/ucfTrainTestlist", "--videos", f"{tmp_path}/UCF-101"]
    assert lists_tool.main([*arguments, "--output", f"{tmp_path}"]) == 0
    assert rows(tmp_path / "train.csv")[1] == "UCF-101/YoYo/v_YoYo_g08_c01.avi 1"
    assert rows(tmp_path / "val.csv") == rows(tmp_path / "test.csv")
    assert rows(tmp_path / "test.csv")[0] == "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi 0"
    assert rows(tmp_path / "classes.txt") == ["ApplyEyeMakeup", "YoYo"]


def test_hmdb51(lists_tool, tmp_path):
    published.write_hmdb51(tmp_path)
    arguments = ["hmdb51", "--lists", f"{tmp_path}/testTrainMulti_7030_splits", "--videos", f"{tmp_path}/videos"]
    assert lists_tool.main([*arguments, "--output", f"{tmp_path}"]) == 0
    assert rows(tmp_path / "train.csv") == ["videos/brush_hair/brush_hair_1.avi 0", "videos/wave/wave_1.avi 1"]
    assert rows(tmp_path / "val.csv") == ["videos/brush_hair/brush_hair_2.avi 0", "videos/wave/wave_2.avi 1"]


def test_charades_frames_have_the_labels_of_their_time(lists_tool, tmp_path):
    published.write_charades(tmp_path)
    extract_frames(list_videos(tmp_path / "Charades_v1_480"), tmp_path / "frames", Layout(24), num_workers=1)
    (tmp_path / "Charades/Charades_v1_test.csv").write_text(f"{published.CHARADES_HEADER}\nEEEEE,,,,,,,,,c001 0 1,9\n")
    arguments = ["charades", "--train", f"{tmp_path}/Charades/Charades_v1_train.csv", "--val"]
    folders = ["--videos", f"{tmp_path}/frames", "--output", f"{tmp_path}"]
    assert lists_tool.main([*arguments, f"{tmp_path}/Charades/Charades_v1_test.csv", *folders]) == 1
    assert lists_tool.main([*arguments, f"{tmp_path}/Charades/Charades_v1_train.csv", *folders]) == 0
    lines = rows(tmp_path / "train.csv")
    assert lines[1] == 'AAAAA 0 0 AAAAA/AAAAA_000000.jpg "92"' and lines[24] == 'AAAAA 0 23 AAAAA/AAAAA_000023.jpg "3"'
    assert lines[13].endswith('.jpg ""') and lines[25].startswith("BBBBB 1 0 ")
    first, second = read_charades(tmp_path / "train.csv", num_classes=157, path_prefix=tmp_path / "frames")
    assert first.label_of(None, None).nonzero().flatten().tolist() == [3, 92] and not second.label_of(None, None).any()


@pytest.mark.parametrize(
    "file, text, words",
    [
        ("classInd.txt", "1 A\n3 B\n", "line 2: '3 B' is not '2 ClassName'"),
        ("trainlist01.txt", "Yo/v.avi 1\n", "line 1: 'Yo/v.avi' is in no folder of classInd.txt"),
        ("testlist01.txt", None, "there is no file .*testlist01.txt"),
        ("testlist01.txt", "\n", "testlist01.txt' is empty"),
        ("trainlist01.txt", "YoYo/v\x00.avi 1\n", "line 1: .*NUL"),
    ],
)
def test_wrong_files_are_named(lists_tool, tmp_path, capsys, file, text, words):
    published.write_ucf101(tmp_path)
    wrong = tmp_path / "ucfTrainTestlist" / file
    wrong.unlink()
    if text:
        wrong.write_text(text)
    arguments = ["--lists", f"{tmp_path}/ucfTrainTestlist", "--videos", f"{tmp_path}/UCF-101", "--output", f"{tmp_path}"]
    assert lists_tool.main(["ucf101", *arguments]) == 1
    error = capsys.readouterr().err
    assert re.search(words, error) and file in error


def test_videos_of_one_name(lists_tool, tmp_path, capsys):
    published.write_hmdb51(tmp_path)
    copy = tmp_path / "videos/wave/copy"
    copy.mkdir()
    (copy / "wave_1.avi").write_bytes(b"0")
    arguments = ["hmdb51", "--lists", f"{tmp_path}/testTrainMulti_7030_splits", "--output", f"{tmp_path}", "--videos"]
    assert lists_tool.main([*arguments, f"{tmp_path}/videos"]) == 0
    assert rows(tmp_path / "train.csv")[1] == "videos/wave/wave_1.avi 1"
    copy.rename(tmp_path / "videos/other")
    (tmp_path / "videos/wave/wave_1.avi").rename(tmp_path / "videos/wave_1.avi")
    assert lists_tool.main([*arguments, f"{tmp_path}/videos"]) == 1
    assert "have the same name: keep one of them" in capsys.readouterr().err
    assert lists_tool.main([*arguments, f"{tmp_path}/testTrainMulti_7030_splits"]) == 1
    assert "there are no videos" in capsys.readouterr().err


KINETICS = "label,youtube_id,time_start,time_end\n"


@pytest.mark.parametrize(
    "text, words",
    [
        (KINETICS, "is empty: it has a header and no video"),
        ("", "line 1: no column label"),
        ("label,youtube_id\nyoga,a\n", "line 1: no column time_start, time_end"),
        (KINETICS + "yoga,a,0,inf\n", "line 2: .*no times in seconds"),
        (KINETICS + "yoga,a,nan,10\n", "line 2: .*no times in seconds"),
        (KINETICS + "yoga,a,-1,10\n", "line 2: .*no times in seconds"),
        (KINETICS + "yoga,a,10,1\n", "line 2: .*the start before the end"),
        (KINETICS + "yoga,a,0\n", "line 2: .*has not the 4 columns"),
        (KINETICS + "yoga,a,0,10,train\n", "line 2: .*has not the 4 columns"),
        (KINETICS + ",a,0,10\n", "line 2: .*no label"),
        (KINETICS + '"yoga,a,0,10\nyoga,b,0,10\n', "line 2: .*a quote is opened"),
        (KINETICS + f"{'y' * 140_000},a,0,10\n", "line 2: the line is longer"),
    ],
)
def test_wrong_kinetics_files_are_named(lists_tool, tmp_path, capsys, text, words):
    (tmp_path / "train.csv").write_text(text)
    (tmp_path / "videos").mkdir()
    paths = [f"{tmp_path}/train.csv"] * 2
    arguments = ["kinetics", "--train", paths[0], "--val", paths[1], "--videos", f"{tmp_path}/videos", "--output", f"{tmp_path}/out"]
    assert lists_tool.main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: '{tmp_path}/train.csv'") and re.search(words, error) and len(error) < 800


def test_names_of_videos_come_back_from_the_lists(lists_tool, tmp_path):
    names = ["a 1.mp4 2", "b\u2028c", "d\x0be"]
    (tmp_path / "videos").mkdir()
    for name in names:
        (tmp_path / f"videos/{name}_000000_000010.mp4").write_bytes(b"0")
    (tmp_path / "train.csv").write_text(KINETICS + "".join(f"yoga,{name},0,10\n" for name in names))
    arguments = ["kinetics", "--train", f"{tmp_path}/train.csv", "--val", f"{tmp_path}/train.csv", "--videos", f"{tmp_path}/videos"]
    assert lists_tool.main([*arguments, "--output", f"{tmp_path}/out"]) == 0
    paths = [video.path for video in read_video_list(tmp_path / "out/train.csv")]
    assert paths == [f"{tmp_path}/videos/{name}_000000_000010.mp4" for name in names]


def test_published_files_are_not_replaced(lists_tool, tmp_path, capsys):
    published.write_kinetics(tmp_path)
    annotations = tmp_path / "annotations"
    before = (annotations / "train.csv").read_bytes()
    arguments = ["kinetics", "--train", f"{annotations}/train.csv", "--val", f"{annotations}/validate.csv"]
    with pytest.raises(SystemExit):
        lists_tool.main([*arguments, "--videos", f"{tmp_path}/videos", "--output", f"{annotations}"])
    assert "which is read: it would be replaced" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        lists_tool.main([*arguments, "--videos", "", "--output", f"{tmp_path}"])
    assert "--videos: '' is no name of a file or folder" in capsys.readouterr().err
    assert (annotations / "train.csv").read_bytes() == before


def test_classes_of_one_name_are_refused(lists_tool, tmp_path, capsys):
    published.write_kinetics(tmp_path)
    (tmp_path / "names.txt").write_text("yoga\nair drumming\nyoga\n")
    annotations = tmp_path / "annotations"
    arguments = ["kinetics", "--train", f"{annotations}/train.csv", "--val", f"{annotations}/validate.csv"]
    arguments += ["--videos", f"{tmp_path}/videos", "--output", f"{tmp_path}/lists", "--classes", f"{tmp_path}/names.txt"]
    assert lists_tool.main(arguments) == 1 and "two classes have the name 'yoga'" in capsys.readouterr().err


def test_charades_frames_are_in_the_order_of_their_numbers(tmp_path):
    (tmp_path / "frames/A").mkdir(parents=True)
    for k in (1, 2, 10):
        (tmp_path / f"frames/A/A-{k}.jpg").write_bytes(b"0")
    (tmp_path / "train.csv").write_text("id,script,actions\nA,y,c001 0 1\n")
    write_charades_frames(tmp_path / "list.csv", tmp_path / "train.csv", tmp_path / "frames")
    assert [line.split(" ")[3] for line in rows(tmp_path / "list.csv")[1:]] == ["A/A-1.jpg", "A/A-2.jpg", "A/A-10.jpg"]
    for fps in (0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="--fps"):
            write_charades_frames(tmp_path / "list.csv", tmp_path / "train.csv", tmp_path / "frames", fps)
