import pytest
import torch

from mutual3d.data.datasets.dataset import Sample
from mutual3d.data.loader import collate
from mutual3d.utils.targets import Targets, map_tensors


def targets(count):
    return Targets([{"boxes": torch.full((i, 4), float(i)), "labels": torch.arange(i)} for i in range(count)])


def test_every_tensor_is_mapped_and_everything_else_stays():
    found = map_tensors(torch.neg, {"a": [torch.ones(1), 2], "b": (torch.ones(2), "c"), "d": None})
    assert found["a"][0].item() == -1 and found["a"][1] == 2 and found["b"][1] == "c" and found["d"] is None
    assert isinstance(found["b"], tuple) and found["b"][0].tolist() == [-1, -1]


@pytest.mark.parametrize("length, count", [(4, 2), (5, 2), (7, 3), (5, 4), (2, 3)])
def test_parts_are_cut_where_a_tensor_is_cut(length, count):
    parts = targets(length).chunk(count)
    assert [[len(each["labels"]) for each in part.samples] for part in parts] == [p.tolist() for p in torch.arange(length).chunk(count)]


def test_targets_move_as_tensors_do():
    moved = targets(3).to("meta")
    assert len(moved) == 3 and {tensor.device.type for each in moved.samples for tensor in each.values()} == {"meta"}
    assert {tensor.device.type for each in targets(3).samples for tensor in each.values()} == {"cpu"}


def test_a_loader_joins_what_any_task_learns_from():
    clips = torch.zeros(1, 3, 1, 4, 4, dtype=torch.uint8)
    maps = collate([Sample(clips, torch.full((4, 4), i), i) for i in range(2)])
    assert maps.labels.shape == (2, 4, 4) and maps.labels[1].eq(1).all()
    objects = collate([Sample(clips, each, i) for i, each in enumerate(targets(3).samples)])
    assert isinstance(objects.labels, Targets) and [len(each["boxes"]) for each in objects.labels.samples] == [0, 1, 2]
