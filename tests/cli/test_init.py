"""`mutual3d init`, from folders and from a list, to a config that needs no further key."""

import re
import shlex
import shutil
from fractions import Fraction
from pathlib import Path

import av
import av.filter
import pytest
import torch
from networks import calibrate_at_random
from PIL import Image
from tiny import SPACE, tiny_network, write_set

from mutual3d.cli import init, predict, run
from mutual3d.data.datasets.kinetics import read_video_list
from mutual3d.data.prepare.class_folders import LabelledVideos
from mutual3d.deploy import AdaptiveModel, Preprocessing
from mutual3d.pipeline import recipe
from mutual3d.pipeline.recipe import NetworkChoice, StepTime
from mutual3d.pipeline.survey import Survey
from mutual3d.utils.files import save_tensors


@pytest.fixture
def folders(tmp_path):
    """Two class folders of six videos; the first three are anna's and so on."""
    data = write_set(tmp_path / "set")
    for i in range(12):
        target = tmp_path / "videos" / ("down" if i % 2 else "right") / f"{('anna', 'ben', 'cleo')[i // 4]}_{i}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        (data / f"{i}.mp4").rename(target)
    return tmp_path / "videos"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A small network whose steps need no timing."""
    monkeypatch.setattr(init, "CHOICES", (NetworkChoice(32, 2, 1.0, 0.5, 32),))
    monkeypatch.setattr(recipe, "time_step", lambda *arguments: StepTime(0.01, 0.001, 30))


def groups(path):
    return set(re.findall(r"(anna|ben|cleo)", path.read_text()))


def test_folders_become_lists_and_a_config_that_a_run_needs_nothing_beside(folders, tmp_path, capsys):
    out = tmp_path / "it is mine"
    init.main([str(folders), "--out", str(out), "--group", r"(\w+)_\d+\.mp4", "--cpu"])
    told = capsys.readouterr().out
    lists = [groups(out / f"{split}.csv") for split in ("train", "val", "test")]
    assert [len(names) for names in lists] == [1, 1, 1] and len(set.union(*lists)) == 3
    assert (out / "classes.txt").read_text() == "down\nright\n"
    assert "12 videos of 2 classes (6 to 6 each)" in told and "val is a coarse ruler: one of its 4 videos is 25.0 points" in told
    assert f"now: mutual3d run --cfg '{out}/config.yaml'" in told
    with pytest.raises(ValueError, match="config.yaml' is there: choose another --out, or delete"):
        init.main([str(folders), "--out", str(out)])
    run.main(["--cfg", str(out / "config.yaml"), "SOLVER.MAX_EPOCH", "1", "SOLVER.WARMUP_EPOCHS", "0", "GRID.WIDTH_STEP", "0.5", "GRID.LATENCY_REPEATS", "1", "GRID.RUNTIMES", "[]"])
    assert predict.main([str(out / "out" / "adaptive.pyth"), str(folders)]) == 0


def test_a_list_is_taken_with_its_names_and_other_classes_weights(folders, tmp_path):
    rows = [f"{path} {int(path.parent.name == 'right') * 2}\n" for path in sorted(folders.rglob("*.mp4"))]
    (tmp_path / "all.csv").write_text("".join(rows))
    (tmp_path / "classes.txt").write_text("down\nnever\nright\n")
    init.main([str(tmp_path / "all.csv"), "--out", str(tmp_path / "run"), "--cpu"])
    assert (tmp_path / "run" / "classes.txt").read_text() == "down\nright\n"
    labels = {line.split()[-1] for line in (tmp_path / "run" / "train.csv").read_text().splitlines()}
    assert labels == {"0", "1"}
    torch.save({"model_state": {"a": torch.zeros(1)}}, tmp_path / "bare.pyth")
    with pytest.raises(ValueError, match="does not say which network"):
        init.main([str(tmp_path / "all.csv"), "--out", str(tmp_path / "other"), "--weights", str(tmp_path / "bare.pyth")])


def test_what_is_no_set_of_videos_is_refused(folders, tmp_path):
    with pytest.raises(ValueError, match="--group 'x(' is no regular expression".replace("(", r"\(")):
        init.main([str(folders), "--out", str(tmp_path / "a"), "--group", "x("])
    with pytest.raises(FileNotFoundError, match="there is no folder or list"):
        init.main([str(tmp_path / "nowhere"), "--out", str(tmp_path / "b")])
    (tmp_path / "one").mkdir()
    (folders / "right").rename(tmp_path / "one" / "right")
    with pytest.raises(ValueError, match="has the one class 'right'"):
        init.main([str(tmp_path / "one"), "--out", str(tmp_path / "c")])


# ---- Sets of every kind ------------------------------------------------------------------------------------------------


def copies(source, root, layout):
    """{class folder: number of videos} -> such a tree of copies of one video; returns its root."""
    for folder, count in layout.items():
        (root / folder).mkdir(parents=True)
        for i in range(count):
            shutil.copy(source, root / folder / f"{folder.replace('/', '_')} {i}.mp4")
    return root


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("one"), num_videos=1) / "0.mp4"


@pytest.mark.parametrize("layout, sentence", [
    ({"a": 2, "b": 2}, "no class has three videos: each wants three or more"),
    ({"a": 1, "b": 1, "c": 1}, "no class has three videos"),
    ({"a": 1, "b": 1}, "the videos form 2 groups: three or more are needed"),
    ({"a": 0, "b": 0}, "there are no videos (.mp4,"),
])  # fmt: skip
def test_too_few_videos_are_refused_in_words(layout, sentence, video, tmp_path):
    with pytest.raises((ValueError, OSError), match=re.escape(sentence)):
        init.main([str(copies(video, tmp_path / "set", layout)), "--out", str(tmp_path / "out"), "--cpu"])


@pytest.mark.parametrize("layout, told_of", [
    ({"walks fast": 4, "sits  down": 4}, "8 videos of 2 classes (4 to 4 each)"),
    ({"walk/anna/may": 3, "walk/ben": 2, "run/anna": 5}, "10 videos of 2 classes (5 to 5 each)"),
    ({"a": 4, "b": 4, "rare": 1}, "val has no video of rare: too few videos"),
])  # fmt: skip
def test_spaces_nested_folders_and_rare_classes_are_taken(layout, told_of, video, tmp_path, capsys):
    init.main([str(copies(video, tmp_path / "my set", layout)), "--out", str(tmp_path / "out"), "--cpu", "--minutes", "1e9"])
    assert told_of in capsys.readouterr().out
    assert (tmp_path / "out" / "classes.txt").read_text().splitlines() == sorted({folder.split("/")[0] for folder in layout})
    videos = read_video_list(tmp_path / "out" / "train.csv")
    assert len(videos) >= 3 and all(Path(found.path).is_file() for found in videos)


@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_lists_with_other_separators_are_taken_and_a_wrong_one_names_the_option(separator, video, tmp_path):
    (tmp_path / "all.csv").write_text("".join(f"{shutil.copy(video, tmp_path / f'{i}.mp4')}{separator}{i % 2}\n" for i in range(8)))
    words = [str(tmp_path / "all.csv"), "--out", str(tmp_path / "out"), "--cpu"]
    with pytest.raises(ValueError, match="is not 'path label'.*--separator" if separator != ";" else "is not 'path label'"):
        init.main(words)
    init.main([*words, "--separator", separator])
    assert (tmp_path / "out" / "config.yaml").is_file()


def test_images_are_told_from_videos(tmp_path):
    for name in "ab":
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / name / "1.jpg")
    with pytest.raises(ValueError, match="holds images, such as '1.jpg', and no videos"):
        init.main([str(tmp_path / "images"), "--out", str(tmp_path / "out")])


def test_another_runs_folder_is_not_mixed_with(folders, tmp_path):
    for name in ("lists/train.csv", "run/out/checkpoints/checkpoint_epoch_00001.pyth", "older/stdout.log"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine\n")
        with pytest.raises(ValueError, match="choose another --out"):
            init.main([str(folders), "--out", str(tmp_path / name.split("/")[0])])
        assert (tmp_path / name).read_text() == "mine\n"


@pytest.mark.parametrize("words, sentence", [
    (["--minutes", "0"], "'0' is not a number above 0"),
    (["--minutes", "-1"], "'-1' is not a number above 0"),
    (["--minutes", "nan"], "'nan' is not a number above 0"),
    (["--seed", "-1"], "'-1' is not a whole number from 0"),
])  # fmt: skip
def test_words_that_are_no_numbers_of_their_kind_end_it(words, sentence, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        init.main([str(tmp_path), "--out", str(tmp_path / "out"), *words])
    assert ended.value.code == 2 and sentence in capsys.readouterr().err


def test_a_group_that_matches_nothing_and_weights_that_are_no_network_of_its_own_are_refused(folders, tmp_path):
    def refused(sentence, *words):
        with pytest.raises((ValueError, OSError), match=sentence):
            init.main([str(folders), "--out", str(tmp_path / "out"), "--cpu", *map(str, words)])

    refused("--group 'zzz' does not match .*: it must match the path of every video", "--group", "zzz")
    refused("the videos form 2 groups", "--group", "(down|right)")
    refused(r"give --minutes \d+ or more", "--minutes", "0.001")
    (tmp_path / "text.pyth").write_text("hello")
    refused("text.pyth' is not a", "--weights", tmp_path / "text.pyth")
    refused("there is no checkpoint", "--weights", tmp_path / "nowhere.pyth")
    save_tensors(tmp_path / "foreign.pyth", {"model_state": {"s1.pathway0_stem.conv.weight": torch.zeros(24, 3, 1, 3, 3)}})
    refused("`mutual3d convert` makes one of another project's weights", "--weights", tmp_path / "foreign.pyth")


def test_a_bundle_is_a_start_and_its_network_is_the_plans(folders, tmp_path, capsys):
    network = calibrate_at_random(tiny_network(), SPACE.corners())
    preprocessing = Preprocessing((0.45,) * 3, (0.225,) * 3, num_frames=4, sampling_rate=2, target_fps=30, crop=24)
    AdaptiveModel(network, preprocessing=preprocessing).save(tmp_path / "bundle.pyth")
    init.main([str(folders), "--out", str(tmp_path / "out"), "--cpu", "--weights", str(tmp_path / "bundle.pyth")])
    assert "X3D for 4 frames of 24 pixels" in capsys.readouterr().out


@pytest.mark.parametrize("width, height", [(640, 360), (360, 640), (300, 300)])
def test_large_videos_are_told_of_with_a_command_that_makes_small_copies(width, height, capsys):
    videos = LabelledVideos((Path("a"), Path("b")), (0, 1), ("x", "y"))
    survey = Survey(looked_at=2, seconds=2, short_seconds=2, fps=25, short_side=1080, read_seconds=1)
    init._tell(videos, {"train": [0], "val": [1], "test": [1]}, survey)
    told = capsys.readouterr().out
    assert "the videos are large to decode (short side 1080)" in told
    words = shlex.split(told[told.index("ffmpeg") :])
    assert words[:2] == ["ffmpeg", "-i"] and words[4].startswith("scale=")
    # The filter of the same libraries, whether or not their program is installed.
    graph = av.filter.Graph()
    source = graph.add_buffer(width=width, height=height, format="yuv420p", time_base=Fraction(1, 25))
    scale, sink = graph.add("scale", words[4].removeprefix("scale=")), graph.add("buffersink")
    source.link_to(scale)
    scale.link_to(sink)
    graph.configure()
    frame = av.VideoFrame(width, height, "yuv420p")
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    source.push(frame)
    small = sink.pull()
    assert min(small.width, small.height) == 256 and abs(small.width / small.height - width / height) < 0.02
