"""Average precision of boxes and masks as COCO measures it, by pycocotools (Lin et al., ECCV 2014)."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mutual3d.metrics.build import METRICS
from mutual3d.metrics.metrics import Metric, MetricFacts, NotFiniteError
from mutual3d.tasks.detection.coco import CocoInstances
from mutual3d.tasks.detection.dataset import CocoDataset
from mutual3d.tasks.detection.tools import coco_tools, silently

WORD = "coco_average_precision"
KINDS = {"box": "bbox", "mask": "segm"}
# Numbers of the thresholds among IoU 0.50, 0.55, ... 0.95.
THRESHOLDS = {"": slice(None), "50": slice(0, 1), "75": slice(5, 6)}
NUM_THRESHOLDS = 10
# What is kept of an image for one kind: dimensions and type of each tensor. The first four are of the detections, the others of the objects.
FIELDS = {
    "classes": (1, torch.int64), "scores": (1, torch.float64), "matched": (2, torch.bool), "ignored": (2, torch.bool),
    "truth_classes": (1, torch.int64), "truth_ignored": (1, torch.bool),
}  # fmt: skip
# What says how many of each there are.
COUNTED = ("classes", "truth_classes")
# An object of any size, in pixels: COCO's range that is called all.
ANY_AREA = [0, 1e5**2]

Kept = dict[str, dict[str, torch.Tensor]]


class CocoAveragePrecision(Metric):
    """AP of boxes and masks in percent, averaged over classes and over IoU 0.50, 0.55, ... 0.95; and at 0.50 and 0.75 alone.

    Every image is matched when it is seen, by pycocotools, which leaves a few numbers for each detection; the precision of all of them is
    pycocotools' too. So the numbers are those that it gives for a file of the same detections. instances: the ground truth. images: which of its images each
    sample is.
    """

    facts = MetricFacts(
        {f"{kind}_ap{at}": f"{kind} AP{at}" for at in THRESHOLDS for kind in KINDS}, "boxes and masks of the objects in an image",
        of_class="box AP",
    )  # fmt: skip

    def __init__(self, instances: CocoInstances, images: Sequence[int]) -> None:
        self.instances, self.images = instances, images
        # {id of an image: {bbox or segm: what FIELDS says}}.
        self.seen: dict[int, Kept] = {}

    @classmethod
    def of_dataset(cls, dataset: Any) -> "CocoAveragePrecision":
        """An empty metric for the samples of a `CocoDataset`. dataset: the evaluated one."""
        if not isinstance(dataset, CocoDataset):
            raise TypeError(f"the metric {WORD} measures a CocoDataset, not a {type(dataset).__name__}")
        return cls(dataset.instances, dataset.images)

    def update(self, scores: Any, batch: Any) -> None:
        """scores: for each image of the batch what `MaskRCNNHeads` finds, on the CPU; batch: what the loader gave."""
        for found, index in zip(scores, batch.indices.tolist()):
            wrong = [name for name, tensor in found.items() if not torch.isfinite(tensor).all()]
            if wrong:
                raise NotFiniteError(
                    f"the {' and '.join(wrong)} of what is found in an image are NaN or infinite: the weights or statistics are not finite; go on "
                    "from an earlier checkpoint, or calibrate again"
                )
            image = self.images[index]
            results = as_results(found, self.instances, image)
            self.seen[int(self.instances.image_ids[image])] = {
                kind: match_image(self.instances, image, results, kind) for kind in KINDS.values()
            }

    def merge(self, other: Any) -> None:
        self.seen.update(other.seen)

    def values(self) -> dict[str, float]:
        """{name: percent}; ValueError when no image, or none with an object, was seen."""
        numbers = {}
        for name, kind in KINDS.items():
            precision = self._precision(kind)
            for at, thresholds in THRESHOLDS.items():
                values = precision[thresholds]
                if not (values > -1).any():
                    raise ValueError(f"of {self.num_videos} images none has an object to be found: there is no average precision")
                numbers[f"{name}_ap{at}"] = 100 * float(values[values > -1].mean())
        return {name: numbers[name] for name in self.names}

    def per_class(self) -> dict[int, float]:
        """{class: its box AP in percent}, of the classes that there are objects of."""
        precision = self._precision("bbox")
        by_class = {number: precision[:, :, number] for number in range(precision.shape[2])}
        return {number: 100 * float(values[values > -1].mean()) for number, values in by_class.items() if (values > -1).any()}

    def _precision(self, kind: str) -> np.ndarray:
        """IoU thresholds x recalls x classes; -1 for a class without objects."""
        ids = sorted(self.seen)
        evaluation = _evaluation(kind)
        evaluation.params.imgIds, evaluation.params.catIds = ids, list(self.instances.category_ids)
        evaluation._paramsEval = copy.deepcopy(evaluation.params)
        by_image = [_by_class(self.seen[number][kind]) for number in ids]
        evaluation.evalImgs = [own.get(index) for index in range(len(self.instances.category_ids)) for own in by_image]
        if not evaluation.evalImgs:
            raise ValueError("no image was evaluated")
        with silently():
            evaluation.accumulate()
        # The only range of areas, and the most detections, 100 an image.
        return evaluation.eval["precision"][:, :, :, 0, -1]

    @property
    def num_videos(self) -> int:
        return len(self.seen)

    def state(self) -> dict[str, Any]:
        """images: ids; for each kind its tensors of all images, one after the other, and how many numbers of each are an image's."""
        own = list(self.seen.values())
        return {"images": torch.tensor(list(self.seen), dtype=torch.int64), **{kind: _packed([each[kind] for each in own]) for kind in KINDS.values()}}

    def load_state(self, state: Any) -> None:
        """Take what `state` gave; ValueError for anything else."""
        try:
            ids = state["images"].tolist()
            kinds = {kind: _unpacked(state[kind], len(ids)) for kind in KINDS.values()}
        except (TypeError, KeyError, AttributeError, RuntimeError, IndexError) as error:
            raise ValueError(f"matches of boxes and masks are needed, not {state!r:.80}") from error
        if len(set(ids)) != len(ids) or not set(ids) <= set(self.instances.image_ids.tolist()):
            raise ValueError(f"the results are not those of images of '{self.instances.path}', each once")
        self.seen = {number: {kind: images[place] for kind, images in kinds.items()} for place, number in enumerate(ids)}


def as_results(found: Mapping[str, torch.Tensor], instances: CocoInstances, image: int) -> list[dict[str, Any]]:
    """What was found in image number `image` in the form of COCO's results, in the pixels of the image's file.

    found: of one image, as `MaskRCNNHeads` gives it: masks are pasted into their boxes, and are where a pixel is above a half.
    """
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    tools = coco_tools("mask")
    height, width = instances.sizes_N2[image].tolist()
    boxes = found["boxes"].double() * torch.tensor([width, height, width, height])
    pasted = paste_masks_in_image(found["masks"].float(), boxes, (height, width))[:, 0] > 0.5
    results = []
    for box, label, score, mask in zip(boxes.tolist(), found["labels"].tolist(), found["scores"].tolist(), pasted):
        results.append({
            "image_id": int(instances.image_ids[image]), "category_id": instances.category_ids[label], "score": score,
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "segmentation": tools.encode(np.asfortranarray(mask.numpy().astype(np.uint8))),
        })  # fmt: skip
    return results


def match_image(instances: CocoInstances, image: int, results: Sequence[Mapping[str, Any]], kind: str) -> dict[str, torch.Tensor]:
    """What pycocotools finds of the results of one image, number `image`: for each detection its class and score, and at each IoU whether it is right
    and whether it does not count; for each object its class, and whether it is a crowd. kind: bbox or segm."""
    evaluation = _evaluation(kind)
    number, own = int(instances.image_ids[image]), instances.objects_of(image)
    height, width = instances.sizes_N2[image].tolist()
    picture = {"id": number, "height": height, "width": width}
    # Numbers from 1: pycocotools takes the object of number 0 for none.
    truth = [
        {
            "id": position, "image_id": number, "category_id": instances.category_ids[instances.classes_M[each]],
            "bbox": instances.boxes_M4[each].tolist(), "area": float(instances.areas_M[each]), "iscrowd": int(instances.crowds_M[each]),
            "segmentation": instances.encoded(each, image),
        }
        for position, each in enumerate(own, start=1)
    ]  # fmt: skip
    found = [{**each, "id": position, "area": 0.0, "iscrowd": 0} for position, each in enumerate(results, start=1)]
    categories = [{"id": category} for category in instances.category_ids]
    evaluation.cocoGt, evaluation.cocoDt = (_indexed(picture, each, categories) for each in (truth, found))
    evaluation.params.imgIds = [number]
    evaluation.params.catIds = sorted({each["category_id"] for each in (*truth, *found)})
    with silently():
        evaluation.evaluate()
    return _kept([each for each in evaluation.evalImgs if each is not None], instances.category_ids)


def _evaluation(kind: str) -> Any:
    evaluation = coco_tools("cocoeval").COCOeval(iouType=kind)
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [ANY_AREA], ["all"]
    return evaluation


def _indexed(picture: dict, annotations: list[dict], categories: list[dict]) -> Any:
    coco = coco_tools("coco").COCO()
    coco.dataset = {"images": [picture], "annotations": annotations, "categories": categories}
    with silently():
        coco.createIndex()
    return coco


def _kept(matches: Sequence[Mapping[str, Any]], category_ids: Sequence[int]) -> dict[str, torch.Tensor]:
    """The matches of an image, one for each class, as tensors."""
    classes = [category_ids.index(each["category_id"]) for each in matches]
    counts = [len(each["dtScores"]) for each in matches], [len(each["gtIgnore"]) for each in matches]
    empty = np.zeros((NUM_THRESHOLDS, 0))
    return {
        "classes": torch.from_numpy(np.repeat(np.array(classes, np.int64), counts[0])),
        "scores": torch.from_numpy(np.concatenate([np.zeros(0), *(np.asarray(each["dtScores"], np.float64) for each in matches)])),
        "matched": torch.from_numpy(np.concatenate([empty, *(each["dtMatches"] for each in matches)], 1) > 0),
        "ignored": torch.from_numpy(np.concatenate([empty, *(each["dtIgnore"] for each in matches)], 1).astype(bool)),
        "truth_classes": torch.from_numpy(np.repeat(np.array(classes, np.int64), counts[1])),
        "truth_ignored": torch.from_numpy(np.concatenate([np.zeros(0), *(each["gtIgnore"] for each in matches)]).astype(bool)),
    }


def _by_class(kept: Mapping[str, torch.Tensor]) -> dict[int, dict[str, np.ndarray]]:
    """{class: the match as pycocotools has it}, the reverse of `_kept`."""
    found = {}
    for number in torch.cat([kept["classes"], kept["truth_classes"]]).unique().tolist():
        own, true = kept["classes"] == number, kept["truth_classes"] == number
        found[number] = {
            "dtScores": kept["scores"][own].numpy(), "dtMatches": kept["matched"][:, own].numpy(),
            "dtIgnore": kept["ignored"][:, own].numpy(), "gtIgnore": kept["truth_ignored"][true].numpy(),
        }  # fmt: skip
    return found


def _packed(images: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """What is kept of each image, joined: a file holds few tensors well, and many badly."""
    images = [_kept([], ()), *images]
    joined = {name: torch.cat([image[name] for image in images], -1) for name in FIELDS}
    counts = {name: torch.tensor([len(image[name]) for image in images[1:]], dtype=torch.int64) for name in COUNTED}
    return {**joined, **{f"num_{name}": count for name, count in counts.items()}}


def _unpacked(packed: Mapping[str, torch.Tensor], num_images: int) -> list[dict[str, torch.Tensor]]:
    """The reverse of `_packed`; ValueError, or what wrong types raise, for what it did not give."""
    counts = [packed[f"num_{name}"] for name in COUNTED]
    if any(len(count) != num_images or bool((count < 0).any()) for count in counts):
        raise ValueError(f"there are counts of {[len(count) for count in counts]} images, and {num_images} images")
    parts = {}
    for name, (dimensions, dtype) in FIELDS.items():
        tensor = packed[name]
        if tensor.ndim != dimensions or tensor.dtype != dtype or (dimensions == 2 and len(tensor) != NUM_THRESHOLDS):
            raise ValueError(f"{name} is {tensor.dtype} of the shape {tuple(tensor.shape)}")
        parts[name] = tensor.split(counts[name.startswith("truth")].tolist(), -1)
    return [{name: parts[name][place].clone() for name in FIELDS} for place in range(num_images)]


METRICS[WORD] = CocoAveragePrecision
