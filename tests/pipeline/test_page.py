"""The page of a run is written again from what the run left, and its examples are read once."""

import csv
import io

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_network
from videos import moving_frames, write_video

from mutual3d.data.clips.frames import ClipSampling
from mutual3d.data.datasets.dataset import BadVideo, ClipDataset, Sample
from mutual3d.data.datasets.kinetics import VideoDataset
from mutual3d.deploy import AdaptiveModel
from mutual3d.pipeline.page import RunFacts, write_page, write_page_without_data
from mutual3d.pipeline.predictions import COLUMNS, read_examples
from mutual3d.report.classes import Predictions
from mutual3d.sampling import Preprocessing
from mutual3d.table.query_table import QueryTable, Row


class Videos(ClipDataset):
    """Six videos of which the last cannot be read, and how often each was."""

    def __init__(self):
        self.reads = []

    def __len__(self):
        return 6

    def __getitem__(self, key):
        self.reads.append(key[1])
        if key[1] == 5:
            return BadVideo(5, "5.mp4", "broken")
        return Sample(torch.full((1, 3, 4, 24, 24), 40 * key[1], dtype=torch.uint8), key[1] % 2, key[1])

    def fingerprint(self):
        return "six"

    def name_of(self, index):
        return f"{index}.mp4"


@pytest.fixture
def output(tmp_path):
    """What a run leaves: a table of one row, 4 of 5 videos right, and the network."""
    network = tiny_network()
    row = Row(network.space.largest, network.signature(1.0), 1.0, 9, {"top1_acc": 80.0})
    table = QueryTable([row], {"metric": "top1_acc", "split": "val", "num_views": 1, "crop": 24, "num_videos": 5, "fingerprint": "f"})
    table.save_json(tmp_path / "query_table.json")
    cut = Preprocessing((0.45,) * 3, (0.225,) * 3, num_frames=4, sampling_rate=2, target_fps=30, crop=24)
    AdaptiveModel(network, preprocessing=cut, table=table, class_names=["walk", "run"]).save(tmp_path / "adaptive.pyth")
    with open(tmp_path / "predictions.csv", "w", newline="") as file:
        lines = [(row.configuration, k, f"{k}.mp4", k % 2, 1 if k == 0 else k % 2, 0.9, "", "") for k in range(5)]
        csv.writer(file).writerows([COLUMNS, *lines])
    return tmp_path


def written(output, dataset):
    table = QueryTable.load(output / "query_table.json")
    facts = RunFacts(tiny_network(), "mutual3d run --cfg a.yaml", "A: 1", ["walk", "run"])
    write_page(output, table, facts, dataset)
    return (output / "report.html").read_text()


def test_examples_are_read_once_for_a_table(output):
    videos = Videos()
    first = written(output, videos)
    assert sorted(videos.reads) == [0, 1, 2, 3, 4] and first.count("data:image/jpeg") == 5
    assert written(output, videos) == first and len(videos.reads) == 5
    assert "1 of 6 videos could not be read and is left out of every number here: 5.mp4" in first


def test_a_page_is_written_again_without_the_data(output):
    first = written(output, Videos())
    (output / "report.html").unlink()
    assert write_page_without_data(output).read_text() == first and "mutual3d run --cfg a.yaml" in first


@pytest.mark.parametrize("content", ["{", '{"fingerprint": "other"}', '{"fingerprint": "f", "command": "", "left_out": [], "examples": [{"video": "a"}]}'])
def test_what_was_kept_is_made_anew_where_it_is_damaged_or_of_another_table(output, content):
    first = written(output, Videos())
    (output / "report.json").write_text(content)
    videos = Videos()
    assert written(output, videos) == first and len(videos.reads) == 5


def test_a_video_that_is_rotated_in_its_metadata_is_upright_in_the_examples(tmp_path):
    """As phones record: the frames lie on their side, and the file says by how much."""
    frames_THWC = moving_frames(8, 64, 64)
    frames_THWC[:, :32] = 255
    sampling, numbers = ClipSampling(4, 2), (np.array([0]), np.array([0]), np.array([0]), np.array([0.9]))
    bright = {}
    for rotation in (0, 90, 180):
        lying = np.rot90(frames_THWC, -rotation // 90, axes=(1, 2))
        path = write_video(tmp_path / f"{rotation}.mp4", np.ascontiguousarray(lying), rotation=rotation)
        (example,) = read_examples(VideoDataset([(str(path), 0)], sampling, 64), Predictions("1-64-4", (str(path),), *numbers))
        strip_HWC = np.asarray(Image.open(io.BytesIO(example.strip_JPEG)), np.float64)
        height = len(strip_HWC)
        bright[rotation] = strip_HWC[: height // 3].mean(), strip_HWC[-height // 3 :].mean()
    assert all(top > 240 and bottom < 150 for top, bottom in bright.values()), bright


def test_keyframes_are_called_keyframes(output):
    """And the examples of AVA's samples with them."""
    table = QueryTable.load(output / "query_table.json")
    counted = QueryTable(table.rows, {**table.provenance, "num_videos": 16, "sample": "keyframe"})
    write_page(output, counted, RunFacts(tiny_network()))
    text = (output / "report.html").read_text()
    assert "16 keyframes: an accuracy is known" in text and "16 keyframes are few" in text and "16 videos" not in text
