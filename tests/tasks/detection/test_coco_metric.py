"""Average precision as pycocotools gives it for a file of the same detections."""

import contextlib
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from coco_set import write_coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mutual3d.data.prepare.demo_coco import make_demo_coco
from mutual3d.metrics.build import build_metric
from mutual3d.metrics.metrics import NotFiniteError
from mutual3d.tasks.detection.coco import read_instances
from mutual3d.tasks.detection.dataset import CocoDataset
from mutual3d.tasks.detection.metric import WORD, as_results
from mutual3d.utils.files import load_tensors, save_tensors


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    directory = make_demo_coco(tmp_path_factory.mktemp("coco"), num_train=1, num_val=24, num_workers=1)
    return CocoDataset(read_instances(directory / "annotations" / "instances_val.json", directory / "val"), 96, 200)


def detections(dataset, index, generator):
    """What a fair detector might find: the objects, moved and now and then of another class, and things that are none."""
    image = dataset.images[index]
    height, width = dataset.instances.sizes_N2[image]
    own = dataset.instances.objects_of(image)
    boxes = dataset.instances.boxes_inside(own, image) / [width, height, width, height]
    boxes = np.concatenate([boxes + generator.normal(0, 0.02, boxes.shape), np.sort(generator.random((3, 2, 2)), 1).reshape(3, 4)])
    labels = np.concatenate([dataset.instances.classes_M[own], generator.integers(0, len(dataset.instances.class_names), 3)])
    labels[generator.random(len(labels)) < 0.1] = 0
    order = np.argsort(-(scores := generator.random(len(labels)) * 0.9 + 0.05))
    masks = torch.from_numpy(generator.random((len(labels), 1, 28, 28))) * 0.4 + 0.35
    return {
        "boxes": torch.from_numpy(np.clip(boxes, 0, 1)[order]).float(), "labels": torch.from_numpy(labels[order]),
        "scores": torch.from_numpy(scores[order]).float(), "masks": masks.float(),
    }  # fmt: skip


def batch_of(indices):
    return SimpleNamespace(indices=torch.tensor(indices))


def filled(dataset, seed=0, indices=None):
    metric, generator = build_metric(WORD, dataset)(), np.random.default_rng(seed)
    for index in range(len(dataset)):
        found = detections(dataset, index, generator)
        if indices is None or index in indices:
            metric.update([found], batch_of([index]))
    return metric


def of_pycocotools(dataset, results, kind):
    """AP, AP50, AP75 in percent, of a file of results."""
    results = [{**each, "segmentation": {**each["segmentation"], "counts": each["segmentation"]["counts"].decode()}} for each in results]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(dataset.instances.path)
        evaluation = COCOeval(truth, truth.loadRes(json.loads(json.dumps(results))), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return 100 * evaluation.stats[:3]


def test_the_numbers_are_those_of_pycocotools_for_the_same_file(dataset):
    assert dataset.instances.crowds_M.any(), "one image at least has a crowd"
    generator = np.random.default_rng(0)
    results = [row for index in range(len(dataset)) for row in as_results(detections(dataset, index, generator), dataset.instances, dataset.images[index])]
    values = filled(dataset).values()
    for name, kind in (("box", "bbox"), ("mask", "segm")):
        expected = of_pycocotools(dataset, results, kind)
        assert 1 < expected[0] < 99
        np.testing.assert_allclose([values[f"{name}_ap{at}"] for at in ("", "50", "75")], expected, rtol=1e-12)
    assert list(values)[:2] == ["box_ap", "mask_ap"]


def test_what_is_all_found_is_100_percent(dataset):
    metric = build_metric(WORD, dataset)()
    for index in range(len(dataset)):
        image, instances = dataset.images[index], dataset.instances
        own = [each for each in instances.objects_of(image) if not instances.crowds_M[each]]
        height, width = instances.sizes_N2[image]
        boxes = torch.from_numpy(instances.boxes_inside(own, image) / [width, height, width, height]).float()
        found = {"boxes": boxes, "labels": torch.from_numpy(instances.classes_M[own]), "scores": torch.full((len(own),), 0.5),
                 "masks": torch.ones(len(own), 1, 28, 28)}  # fmt: skip
        metric.update([found], batch_of([index]))
    values = metric.values()
    assert values["box_ap"] == pytest.approx(100) and values["mask_ap"] < 90
    assert metric.per_class() == pytest.approx(dict.fromkeys(range(4), 100.0))


def test_parts_join_to_the_whole_through_files(dataset, tmp_path):
    whole, half = filled(dataset), set(range(0, len(dataset), 2))
    parts = [filled(dataset, indices=half), filled(dataset, indices=set(range(len(dataset))) - half)]
    restored = []
    for number, part in enumerate(parts):
        save_tensors(tmp_path / f"{number}.pyth", part.state())
        metric = build_metric(WORD, dataset)()
        metric.load_state(load_tensors(tmp_path / f"{number}.pyth"))
        assert metric.num_videos == part.num_videos == 12
        restored.append(metric)
    restored[1].merge(restored[0])
    assert restored[1].values() == whole.values() and restored[1].num_videos == len(dataset)
    assert restored[1].per_class() == whole.per_class()


def test_an_empty_metric_has_a_state_and_no_values(dataset):
    metric = build_metric(WORD, dataset)()
    other = build_metric(WORD, dataset)()
    other.load_state(metric.state())
    assert other.num_videos == 0
    with pytest.raises(ValueError, match="no image was evaluated"):
        metric.values()


def test_nothing_found_counts_as_nothing_found(dataset):
    metric = build_metric(WORD, dataset)()
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0), "masks": torch.zeros(0, 1, 28, 28)}
    metric.update([nothing] * 3, batch_of([0, 1, 2]))
    assert metric.values()["box_ap"] == metric.values()["mask_ap50"] == 0 and metric.num_videos == 3


def test_images_without_objects_alone_have_no_average_precision(tmp_path):
    dataset = CocoDataset(read_instances(*write_coco(tmp_path)), 40, 100)
    metric = build_metric(WORD, dataset)()
    index = dataset.images.index(2)
    metric.update([detections(dataset, index, np.random.default_rng(0))], batch_of([index]))
    with pytest.raises(ValueError, match="of 1 images none has an object to be found"):
        metric.values()


def test_states_and_data_of_another_kind_are_refused(dataset, tmp_path):
    metric = filled(dataset, indices={0})
    for spoil in (lambda state: {}, lambda state: [1], lambda state: {**state, "images": torch.tensor([10**6])},
                  lambda state: {**state, "bbox": {**state["bbox"], "scores": state["bbox"]["scores"][:-1]}},
                  lambda state: {**state, "segm": {**state["segm"], "matched": state["segm"]["matched"].float()}},
                  lambda state: {**state, "segm": {**state["segm"], "num_classes": torch.tensor([-1])}}):  # fmt: skip
        with pytest.raises(ValueError):
            build_metric(WORD, dataset)().load_state(spoil(metric.state()))
    with pytest.raises(TypeError, match="measures a CocoDataset, not a object"):
        build_metric(WORD, object())()


def test_numbers_that_are_not_finite_are_refused(dataset):
    found = detections(dataset, 0, np.random.default_rng(0))
    found["scores"][0] = float("nan")
    with pytest.raises(NotFiniteError, match="the scores of what is found in an image are NaN or infinite"):
        build_metric(WORD, dataset)().update([found], batch_of([0]))
