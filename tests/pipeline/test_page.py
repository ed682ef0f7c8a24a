"""The page of a run is written again from what the run left, and its examples are read once."""

import csv
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_network
from videos import moving_frames, write_video

from mutual3d.data.clips.frames import ClipSampling
from mutual3d.data.datasets.dataset import BadVideo, ClipDataset, Sample
from mutual3d.data.datasets.kinetics import VideoDataset
from mutual3d.data.loader import Batch
from mutual3d.deploy import AdaptiveModel
from mutual3d.metrics.average_precision import MeanAveragePrecision
from mutual3d.metrics.detection import DetectionAveragePrecision
from mutual3d.pipeline.examples import Candidate, candidates_of_one_label, candidates_of_several_labels, read_examples
from mutual3d.pipeline.page import RunFacts, write_page, write_page_without_data
from mutual3d.pipeline.predictions import COLUMNS
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
        lines = [(row.configuration, k, f"{k}.mp4", "", "", k % 2, 1 if k == 0 else k % 2, 0.9, "", "") for k in range(5)]
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


class Keyframes(ClipDataset):
    """Grey keyframes with two boxes each."""

    noun = "keyframe"

    def __len__(self):
        return 3

    def __getitem__(self, key):
        boxes = torch.tensor([[0.1, 0.1, 0.4, 0.9], [0.5, 0.1, 0.9, 0.9]])
        return Sample(torch.full((1, 3, 4, 32, 48), 128, dtype=torch.uint8), torch.ones(2, 3), key[1], boxes, boxes)

    def fingerprint(self):
        return "keyframes"


def test_of_several_labels_the_highest_scores_are_shown_beside_what_holds():
    metric = MeanAveragePrecision()
    scores = torch.tensor([[0.9, 0.2, 0.6], [0.8, 0.7, 0.1], [0.3, 0.1, 0.2]])
    labels = torch.tensor([[1.0, 0, 1], [0, 1, 0], [0, 0, 0]])
    metric.update(scores, Batch(torch.empty(3), labels, torch.tensor([4, 2, 0]), []))
    right, wrong = candidates_of_several_labels(metric, ["walk", "run"])
    assert (right.index, right.is_right, right.boxes) == (4, True, ()) and (wrong.index, wrong.is_right) == (2, False)
    assert right.seen[0].labels == ("walk", "class 2") and [name for name, _ in right.seen[0].scores] == ["walk", "class 2", "run"]
    assert wrong.seen[0].labels == ("run",) and wrong.seen[0].scores[0] == ("walk", pytest.approx(0.8))
    assert Candidate.from_dict(json.loads(json.dumps(wrong.to_dict()))) == wrong


def test_boxes_are_drawn_on_their_keyframe_with_what_was_seen_in_each():
    boxes = [[0.1, 0.1, 0.4, 0.9], [0.5, 0.1, 0.9, 0.9]]
    names = [("a", second) for second in range(3)]
    truth = {name: (np.array([boxes[0], boxes[0], boxes[1]]), np.array([1, 2, 3])) for name in names[:2]}
    metric = DetectionAveragePrecision(names, truth, {names[2]}, [(1, "sit"), (2, "talk"), (3, "walk")])
    # The second box of keyframe 1 is mistaken, keyframe 2 does not count.
    scores = torch.tensor([[0.9, 0.8, 0.1], [0.1, 0.2, 0.7], [0.6, 0.2, 0.1], [0.3, 0.9, 0.2], [0.9, 0, 0], [0.9, 0, 0]])
    rows = torch.cat([torch.arange(3).repeat_interleave(2)[:, None], torch.tensor(boxes).repeat(3, 1)], 1)
    metric.update(scores, Batch(torch.empty(3), torch.empty(6, 3), torch.arange(3), [], rows, rows[:, 1:]))
    right, wrong = candidates_of_several_labels(metric, [])
    assert (right.index, right.is_right, wrong.index, wrong.is_right) == (0, True, 1, False)
    assert [seen.labels for seen in wrong.seen] == [("sit", "talk"), ("walk",)] and wrong.seen[1].scores[0][0] == "talk"
    example, _ = read_examples(Keyframes(), [right, wrong])
    image = np.asarray(Image.open(io.BytesIO(example.strip_JPEG)).convert("RGB")).astype(int)
    height, width = image.shape[:2]
    # Red and yellow lines along the left sides of the two boxes, grey between them.
    middle = image[height // 2]
    assert height >= 240 and np.ptp(middle[round(0.45 * width)]) < 30
    for left in (0.1, 0.5):
        around = middle[round(left * width) - 4 : round(left * width) + 5]
        assert np.ptp(around, axis=1).max() > 60, left


def test_a_video_that_is_rotated_in_its_metadata_is_upright_in_the_examples(tmp_path):
    """As phones record: the frames lie on their side, and the file says by how much."""
    frames_THWC = moving_frames(8, 64, 64)
    frames_THWC[:, :32] = 255
    sampling, numbers = ClipSampling(4, 2), (np.array([0]), np.array([0]), np.array([0]), np.array([0.9]))
    bright = {}
    for rotation in (0, 90, 180):
        lying = np.rot90(frames_THWC, -rotation // 90, axes=(1, 2))
        path = write_video(tmp_path / f"{rotation}.mp4", np.ascontiguousarray(lying), rotation=rotation)
        candidates = candidates_of_one_label(Predictions("1-64-4", (str(path),), *numbers), ["walk"])
        (example,) = read_examples(VideoDataset([(str(path), 0)], sampling, 64), candidates)
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
