"""AVA's protocol against recorded results of the official code, and against its definition."""

import csv
import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from batches import prepare
from tiny import NETWORK, SPACE

from mutual3d.data.loader import Batch
from mutual3d.evaluation import Scoring, measure
from mutual3d.metrics.detection import DetectionAveragePrecision, detection_average_precision
from mutual3d.models import create_model

VECTORS = Path(__file__).resolve().parents[2] / "../shared/data/ava_vectors"
FOLDERS = ("mmaction2_eval_detection", "mmeval_ava_map", "mmeval_ava_map_classes13")


# ---- The official code -----------------------------------------------------------------------------------------------


def read_rows(path):
    """{(video, second): (boxes, actions, last column)} of a csv."""
    rows = {}
    with open(path, newline="") as file:
        for video, second, x1, y1, x2, y2, action, last in csv.reader(file):
            boxes, actions, others = rows.setdefault((video, int(second)), ([], [], []))
            boxes.append([float(x1), float(y1), float(x2), float(y2)])
            actions.append(int(action))
            others.append(float(last))
    return rows


def read_classes(path):
    names, ids = ([line.split(":")[1].strip(' "\n') for line in open(path) if key in line] for key in ("name:", "id:"))
    return [(int(number), name) for number, name in zip(ids, names)]


@pytest.mark.skipif(not VECTORS.is_dir(), reason="the recorded results are not here")
@pytest.mark.parametrize("folder", FOLDERS)
def test_it_is_the_official_codes(folder):
    expected = json.loads((VECTORS / folder / "expected.json").read_text())
    truth = {key: rows[:2] for key, rows in read_rows(VECTORS / folder / "gt.csv").items()}
    classes = read_classes(VECTORS / folder / "labelmap.pbtxt")
    precisions = detection_average_precision(truth, read_rows(VECTORS / folder / "pred.csv"), set(), classes)
    mean = expected.pop("PascalBoxes_Precision/mAP@0.5IOU")
    assert np.mean(list(precisions.values())) == pytest.approx(mean, abs=1e-6)
    own = {f"PascalBoxes_PerformanceByCategory/AP@0.5IOU/{name}": precisions[action] for action, name in classes}
    assert own == pytest.approx(expected, abs=1e-6)


# ---- The definition --------------------------------------------------------------------------------------------------


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def average_precision_by_definition(truth, found, excluded, action):
    """None without ground truth. For every recall the highest precision at that recall or more, one by one."""
    wanted = {key: [b for b, a in zip(*rows) if a == action] for key, rows in truth.items() if key not in excluded}
    total = sum(map(len, wanted.values()))
    counted = [(key, *row) for key, rows in found.items() if key not in excluded for row in zip(*rows)]
    ranked = sorted((row for row in counted if row[2] == action), key=lambda row: -row[3])
    taken, right, points = set(), 0, []
    for rank, (key, box, _, _) in enumerate(ranked, start=1):
        overlaps = [iou(box, other) for other in wanted.get(key, [])]
        best = max(range(len(overlaps)), key=overlaps.__getitem__, default=None)
        if best is not None and overlaps[best] >= 0.5 and (key, best) not in taken:
            taken.add((key, best))
            right += 1
        points.append((right / total if total else 0, right / rank))
    if not total:
        return None
    levels = [(i + 1) / total for i in range(total)]
    return sum(max((p for r, p in points if r >= level - 1e-12), default=0) for level in levels) / total


def random_boxes(rng, count):
    """Of moderate size, so that shifted ones overlap by all shares."""
    corner, size = rng.uniform(0, 0.5, (count, 2)), rng.uniform(0.2, 0.5, (count, 2))
    return np.concatenate([corner, corner + size], 1).round(3)


def random_truth(rng, keys, actions=4):
    """Some keyframes have no annotation, some an empty one, some a box with several actions."""
    truth = {}
    for key in keys[: len(keys) * 9 // 10]:
        boxes = random_boxes(rng, rng.integers(0, 5)).repeat(2, axis=0)
        truth[key] = boxes, np.array([rng.permutation(actions)[:2] + 1 for _ in boxes[::2]], np.int64).reshape(-1)
    return truth


def random_detections(rng, keys, truth, actions=4):
    """Shifted and repeated ground truth among boxes of anything; a few have no area."""
    found = {}
    for key in keys:
        near = truth[key][0] if key in truth else np.zeros((0, 4))
        near = np.concatenate([near, near]) + rng.normal(0, 0.04, (2 * len(near), 1))
        boxes = np.concatenate([near, random_boxes(rng, 3)]).round(3)
        boxes[rng.random(len(boxes)) < 0.05, 2] = 0
        found[key] = boxes, rng.integers(1, actions + 1, len(boxes)), rng.permutation(1000)[: len(boxes)] / 1000
    return found


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_definitions_on_random_boxes_with_excluded_timestamps(seed):
    rng = np.random.default_rng(seed)
    keys = [(f"v{i // 5}", 902 + i % 5) for i in range(30)]
    excluded = {keys[3], keys[17], ("v9", 902)}
    truth = random_truth(rng, keys)
    found = random_detections(rng, keys, truth)
    real = {key: [x[(rows[0][:, 2] > rows[0][:, 0])].tolist() for x in rows] for key, rows in found.items()}
    expected = {a: average_precision_by_definition(truth, real, excluded, a) for a in (1, 2, 4)}
    own = detection_average_precision(truth, found, excluded, [(a, str(a)) for a in (1, 2, 4)])
    assert own == pytest.approx(expected, abs=1e-12)
    assert all(0.05 < precision < 0.95 for precision in own.values())
    assert own != detection_average_precision(truth, found, set(), [(a, str(a)) for a in (1, 2, 4)])


KEY, OTHER = ("v", 902), ("v", 903)
LEFT, RIGHT = [0.0, 0.0, 0.4, 1.0], [0.5, 0.0, 0.9, 1.0]


def precision_of(found, truth, action=1):
    """One class; found: [(box, score)] and truth: [box] of one keyframe."""
    boxes, scores = zip(*found)
    rows = {KEY: (np.array(boxes), np.ones(len(boxes), int), np.array(scores))}
    return detection_average_precision({KEY: (np.array(truth), [1] * len(truth))}, rows, set(), [(1, "one")])[1]


def test_a_second_box_on_the_same_person_is_wrong():
    assert precision_of([(LEFT, 0.9), (RIGHT, 0.8)], [LEFT, RIGHT]) == 1
    assert precision_of([(LEFT, 0.9), (LEFT, 0.8), (RIGHT, 0.7)], [LEFT, RIGHT]) == pytest.approx((1 + 2 / 3) / 2)
    assert precision_of([(LEFT, 0.9), (LEFT, 0.8)], [LEFT, RIGHT]) == 0.5


def test_a_box_does_not_fall_back_on_its_second_best_overlap():
    # Both ground truth boxes overlap the second detection by half or more; its best one is taken.
    nearby = [0.05, 0.0, 0.45, 1.0]
    assert precision_of([(LEFT, 0.9), (LEFT, 0.8)], [LEFT, nearby]) == 0.5


def test_an_overlap_of_exactly_half_counts_though_boxes_travel_as_float32():
    truth, box = torch.tensor([[0.01, 0.2, 0.19, 0.9], [0.1, 0.2, 0.19, 0.9]]).numpy()
    assert iou(truth.tolist(), box.tolist()) < 0.5
    assert precision_of([(box, 0.5)], [truth]) == 1
    assert precision_of([(np.array([0.101, 0.2, 0.19, 0.9]), 0.5)], [truth]) == 0


def test_a_class_without_ground_truth_is_left_out_and_one_without_detections_is_zero():
    truth = {KEY: (np.array([LEFT, RIGHT]), [1, 2])}
    found = {KEY: (np.array([LEFT, RIGHT]), [1, 3], [0.5, 0.5])}
    precisions = detection_average_precision(truth, found, set(), [(1, "a"), (2, "b"), (3, "c")])
    assert precisions == {1: 1.0, 2: 0.0}


def test_without_detections_all_is_zero():
    assert detection_average_precision({KEY: ([LEFT], [1])}, {}, set(), [(1, "a")]) == {1: 0.0}


# ---- The metric ------------------------------------------------------------------------------------------------------

CLASSES = [(1, "stand"), (2, "sit"), (4, "swim")]
KEYFRAMES = [(f"v{i // 5}", 902 + i % 5) for i in range(20)]


@pytest.fixture
def made():
    """(ground truth, {index: boxes n, 4}, {index: scores n, 5}) of twenty keyframes."""
    rng = np.random.default_rng(3)
    truth = random_truth(rng, KEYFRAMES)
    boxes = {i: random_detections(rng, KEYFRAMES, truth)[key][0] for i, key in enumerate(KEYFRAMES)}
    boxes = {i: torch.from_numpy(own[own[:, 2] > own[:, 0]]).float() for i, own in boxes.items()}
    return truth, boxes, {i: torch.from_numpy(rng.random((len(own), 5))).float() for i, own in boxes.items()}


def metric_of(made, parts, excluded=()):
    """A metric that saw the keyframes of each part (a list of indices) as one batch."""
    truth, boxes, scores = made
    metric = DetectionAveragePrecision(KEYFRAMES, truth, set(excluded), CLASSES)
    for part in parts:
        metric.update(torch.cat([scores[i] for i in part]), batch_of(part, boxes))
    return metric


def batch_of(part, boxes):
    """What the network sees (`boxes`) is another box than the annotation's: only its clip must count."""
    positions = torch.cat([torch.full((len(boxes[i]), 1), position) for position, i in enumerate(part)])
    seen = torch.cat([positions, torch.zeros(len(positions), 4)], 1)
    return Batch(None, None, torch.tensor(part), [], seen, torch.cat([boxes[i] for i in part]))


def test_the_metric_is_the_protocols(made):
    truth, boxes, scores = made
    found = {
        KEYFRAMES[i]: (own.repeat(5, 1), torch.arange(1, 6).repeat_interleave(len(own)), scores[i].T.flatten())
        for i, own in boxes.items()
    }
    for excluded in ((), KEYFRAMES[4:7]):
        expected = detection_average_precision(truth, found, set(excluded), CLASSES)
        metric = metric_of(made, [[0, 1, 2], list(range(3, 20))], excluded)
        assert metric.per_class() == pytest.approx({name: 100 * expected[action] for action, name in CLASSES})
        assert metric.values() == pytest.approx({"map": 100 * np.mean(list(expected.values()))})
        assert 0 < metric.values()["map"] < 100 and metric.num_videos == 20


def test_order_and_processes_make_no_difference(made):
    joined = metric_of(made, [])
    for parts in ([[8, 3], [15, 19, 4]], [[7, 6, 5], [10, 9]], [[0, 1, 2], [18, 17, 16], [14, 13, 12, 11], [7]]):
        joined.merge(metric_of(made, parts))
    assert joined.values() == metric_of(made, [list(range(20))]).values()
    assert joined.num_videos == 20


def test_it_goes_on_from_its_state(made, tmp_path):
    torch.save(metric_of(made, [[2, 1], [0, 5]]).state(), tmp_path / "state")
    metric = metric_of(made, [])
    metric.load_state(torch.load(tmp_path / "state", weights_only=True))
    metric.merge(metric_of(made, [[3, 4], list(range(6, 20))]))
    assert metric.values() == metric_of(made, [list(range(20))]).values()


def test_keyframes_that_were_not_evaluated_count_as_missed(made):
    whole, part = metric_of(made, [list(range(20))]), metric_of(made, [list(range(10))])
    assert part.values()["map"] < whole.values()["map"]


def test_results_on_disk_are_what_was_scored(made, tmp_path):
    truth, boxes, scores = made
    metric = metric_of(made, [[4, 2], [0, 1, 3, *range(5, 20)]], KEYFRAMES[4:7])
    metric.write_results(tmp_path / "results.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv"]
    first = (tmp_path / "results.csv").read_text().splitlines()[0].split(",")
    assert first[:2] == ["v0", "0902"] and first[6] == "1"
    assert [float(value) for value in first[2:6]] == pytest.approx(boxes[0][0].tolist(), abs=1e-6)
    assert torch.tensor(float(first[7])) == scores[0][0, 0]
    written = read_rows(tmp_path / "results.csv")
    assert sum(len(rows[0]) for rows in written.values()) == 3 * sum(map(len, boxes.values()))
    again = detection_average_precision(truth, written, set(KEYFRAMES[4:7]), CLASSES)
    assert 100 * np.mean(list(again.values())) == pytest.approx(metric.values()["map"], abs=1e-9)


def test_results_without_boxes_are_an_empty_file(made, tmp_path):
    metric_of(made, []).write_results(tmp_path / "results.csv")
    assert (tmp_path / "results.csv").read_text() == ""


def test_nothing_to_evaluate_is_an_error(made):
    with pytest.raises(ValueError, match="no box was evaluated"):
        metric_of(made, []).values()
    metric = metric_of(made, [[0, 1]])
    metric.excluded = set(KEYFRAMES)
    with pytest.raises(ValueError, match="no box of any class of the label map"):
        metric.values()


def test_a_label_map_of_more_classes_than_the_network_has_is_refused(made):
    metric = DetectionAveragePrecision(KEYFRAMES, made[0], set(), [(1, "stand"), (80, "swim")])
    with pytest.raises(ValueError, match="gives 5 scores .MODEL.NUM_CLASSES., and the label map has class 80"):
        metric.update(made[2][0], batch_of([0], made[1]))


def test_a_network_is_measured_with_it():
    torch.manual_seed(0)
    model = create_model("x3d", space=SPACE, num_classes=5, detection={"resolution": 7, "aligned": True}, **NETWORK).eval()
    boxes = torch.tensor([[0, 0.1, 0.2, 0.6, 0.9], [1, 0.2, 0.2, 0.7, 0.9], [1, 0.5, 0.1, 0.9, 0.8]])
    clips = torch.randint(0, 256, (2, 1, 3, 4, 24, 24), dtype=torch.uint8)
    batch = Batch(clips, torch.zeros(3, 5), torch.tensor([1, 0]), [], boxes, boxes[:, 1:])
    truth = {KEY: (boxes[1:, 1:], [2, 1]), OTHER: (boxes[:1, 1:], [4])}
    metric = functools.partial(DetectionAveragePrecision, [KEY, OTHER], truth, set(), CLASSES)
    options = dict(prepare=prepare, metric=metric, scoring=Scoring("sigmoid"))
    measured = measure(model, lambda skip: [batch][skip:], [SPACE.largest], **options)[SPACE.largest]
    scores = model([prepare(clips[:, 0])], boxes).sigmoid().detach()
    expected = metric()
    expected.update(scores, batch)
    assert measured.values() == expected.values() and measured.num_videos == 2
    torch.testing.assert_close(measured.rows()["scores"], scores[[1, 2, 0]][:, [0, 1, 3]])
