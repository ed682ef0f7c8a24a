"""docs/troubleshooting.md quotes messages as they are: each is raised here, or found among the sentences of the package."""

import ast
import errno
import re
from pathlib import Path

import av
import pytest
import torch
from tiny import ROOT, SPACE, tiny_network, write_set
from videos import moving_frames, write_video

from mutual3d import cli
from mutual3d.config import find_config
from mutual3d.data.datasets.kinetics import read_video_list
from mutual3d.data.prepare.class_folders import read_labelled_videos
from mutual3d.data.video.decode import open_video
from mutual3d.data.video.forward import ForwardReader, open_camera
from mutual3d.data.video.reader import VideoError
from mutual3d.deploy.adaptive_model import load
from mutual3d.deploy.live import Feed
from mutual3d.evaluation.unreadable import UnreadableVideos
from mutual3d.pipeline import load_config
from mutual3d.table.query_table import QueryTable, Row
from mutual3d.utils.command_line import run_command
from mutual3d.utils.files import atomic_write, load_tensors, save_tensors
from mutual3d.utils.run_lock import run_lock

# Heading -> the message below it.
QUOTED = dict(re.findall(r"^### (.*?)\n\n```text\n(.*?)\n```", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE | re.DOTALL))


def cut_video():
    write_set("set", num_videos=1)
    with open("set/0.mp4", "rb") as source, open("cut.mp4", "wb") as target:
        target.write(source.read()[:600])
    open_video("cut.mp4")


def unreadable_videos():
    videos = UnreadableVideos(0.01, 40, key="DATA_LOADER.MAX_UNREADABLE_TRAIN")
    videos.causes = {"videos/cut.mp4": "the file is empty"}
    videos.check_everywhere()


def locked_directory():
    with run_lock("."), run_lock("."):
        pass


def not_calibrated():
    network = tiny_network().eval()
    network.activate("0.5-16-2")
    network(network.fit_clip(torch.zeros(1, 3, 4, 24, 24)))


def full_disk():
    with atomic_write("adaptive.pyth"):
        raise OSError(errno.ENOSPC, "No space left on device")


def out_of_memory():
    def main():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 512.00 MiB.")

    with pytest.raises(SystemExit):
        run_command(main)


def damaged_checkpoint():
    save_tensors("checkpoint.pyth", {"model_state": {"a": torch.zeros(100)}})
    with open("checkpoint.pyth", "rb+") as file:
        file.truncate(700)
    load_tensors("checkpoint.pyth")


def too_small_budget():
    rows = [Row("0.5-16-2", (8,), 0.5, 100, {"top1_acc": 50.0}, {}), Row("1.0-24-4", (8,), 1.0, 200, {"top1_acc": 60.0}, {})]
    QueryTable(rows, {"metric": "top1_acc", "split": "val", "num_views": 1, "crop": 24}).select(gflops=0.001)


def not_a_bundle():
    save_tensors("checkpoint.pyth", {"model_state": {"a": torch.zeros(1)}})
    load("checkpoint.pyth")


def broken_feed():
    def connect():
        raise VideoError("rtsp://camera/live", "the address cannot be opened (Connection refused)")

    write_video(Path("feed.ts"), moving_frames(30))
    readers = [ForwardReader(av.open("feed.ts"), "feed")]
    feed = Feed("rtsp://camera/live", lambda: readers.pop() if readers else connect(), retries=[0.0] * 8)
    feed.is_live = True
    list(feed.frames())


def listed(text, **options):
    with open("train.csv", "w") as file:
        file.write(text)
    read_video_list("train.csv", **options)


def stray_video():
    write_set("my_videos", num_videos=1)
    read_labelled_videos("my_videos")


# Heading -> what raises the message; the others are sentences of the package that need more than a moment to come to.
RAISED = {
    "A key that there is not": lambda: load_config("Demo/MUTUAL_X3D", ["SOLVER.BASELR", "0.1"]),
    "A value that is not legal": lambda: load_config("Demo/MUTUAL_X3D", ["TRAIN.BATCH_SIZE", "0"]),
    "A setting without its value": lambda: load_config("Demo/MUTUAL_X3D", ["SOLVER.BASE_LR=0.1"]),
    "A config that there is not": lambda: find_config("Kinetics/MUTUAL_X3DM"),
    "A command that there is not": lambda: cli.main(["predictions"]),
    "A word that nobody registered": lambda: load_config("Demo/MUTUAL_X3D", ["MUTUAL.OBJECTIVE", "alpha_divergence"]),
    "A switch of PySlowFast's that is not here": lambda: load_config("Demo/MUTUAL_X3D", ["DEMO.ENABLE", "True"]),
    "A list that is not there": lambda: read_video_list("my_run/train.csv"),
    "Another separator": lambda: listed("walk/1.mp4,0\n"),
    "Labels that start at 1": lambda: listed("walk/1.mp4 1\nrun/1.mp4 2\n", num_classes=2),
    "A video in no class folder": stray_video,
    "A video that cannot be read": cut_video,
    "More bad videos than a run tolerates": unreadable_videos,
    "A directory that another run holds": locked_directory,
    "A configuration that was never calibrated": not_calibrated,
    "A configuration outside the search space": lambda: SPACE.check("0.3-16-2"),
    "A budget that is too small": too_small_budget,
    "A full disk": full_disk,
    "Out of memory": out_of_memory,
    "A damaged checkpoint": damaged_checkpoint,
    "A checkpoint where a bundle is needed": not_a_bundle,
    "A camera that is not there": lambda: open_camera(7, 1.0),
    "A feed that broke": broken_feed,
}  # fmt: skip


def pattern_of(quoted):
    """A quoted message as a regular expression: `...` stands for anything."""
    return ".*".join(map(re.escape, quoted.removeprefix("error: ").split("...")))


def test_every_message_has_a_heading_and_every_error_is_quoted():
    text = (ROOT / "docs/troubleshooting.md").read_text()
    assert len(QUOTED) == text.count("\n### ") == text.count("```text") >= 25
    assert set(RAISED) <= set(QUOTED)


@pytest.mark.parametrize("heading", RAISED)
def test_a_quoted_message_is_what_is_raised(heading, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        RAISED[heading]()
        told = capsys.readouterr().err.strip().removeprefix("error: ")
    except (ValueError, OSError, RuntimeError) as error:
        told = str(error)
    assert re.fullmatch(pattern_of(QUOTED[heading]), told, re.DOTALL), told


@pytest.fixture(scope="module")
def sentences():
    """Regular expressions of the texts of the package: what is put into one at run time stands for anything."""
    patterns = []
    for path in sorted((ROOT / "mutual3d").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            texts = [part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else None for part in parts]
            if sum(len(text or "") for text in texts) > 30:
                patterns.append(re.compile("".join(".*" if text is None else re.escape(text) for text in texts), re.DOTALL))
    return patterns


@pytest.mark.parametrize("heading", [heading for heading in QUOTED if heading not in RAISED])
def test_a_quoted_message_is_a_sentence_of_the_package(heading, sentences):
    told = QUOTED[heading].removeprefix("error: ")
    assert any(pattern.fullmatch(told) for pattern in sentences), told
