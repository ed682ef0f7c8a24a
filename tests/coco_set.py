"""A set in COCO's form, in little: two classes with gaps in their numbers, polygons, both kinds of run lengths, a crowd."""

import copy
import json

import numpy as np
from PIL import Image
from pycocotools import mask as tools

CONTENT = {
    "info": {"year": 2017},
    "images": [
        {"id": 7, "file_name": "a.jpg", "height": 40, "width": 60},
        {"id": 3, "file_name": "b.jpg", "height": 60, "width": 40},
        {"id": 9, "file_name": "c.jpg", "height": 40, "width": 60},
    ],
    "categories": [{"id": 18, "name": "dog", "supercategory": "animal"}, {"id": 1, "name": "person"}],
    "annotations": [
        {
            "id": 0, "image_id": 7, "category_id": 18, "bbox": [10, 5, 20, 15], "area": 300, "iscrowd": 0,
            "segmentation": [[10, 5, 30, 5, 30, 20, 10, 20]],
        },
        {
            "id": 1, "image_id": 7, "category_id": 1, "bbox": [40.5, 20.25, 20.0, 19.5], "iscrowd": 0,
            "segmentation": [[40.5, 20.25, 60, 20.25, 60, 30, 40.5, 30], [45, 30, 60, 30, 60, 39.75, 45, 39.75]],
        },
        {
            "id": 2, "image_id": 3, "category_id": 1, "bbox": [0, 0, 40, 60], "area": 1200, "iscrowd": 1,
            "segmentation": {"size": [60, 40], "counts": [0, 1200, 1200]},
        },
        {
            "id": 3, "image_id": 3, "category_id": 1, "bbox": [8, 12, 16, 24], "area": 384, "iscrowd": 0,
            "segmentation": {"size": [60, 40], "counts": None},
        },
    ],
}  # fmt: skip


def content():
    """What instances_*.json holds; image 9 has no object."""
    made = copy.deepcopy(CONTENT)
    mask = np.zeros((60, 40), np.uint8)
    mask[12:36, 8:24] = 1
    made["annotations"][3]["segmentation"]["counts"] = tools.encode(np.asfortranarray(mask))["counts"].decode()
    return made


def write_coco(directory, changed=None):
    """(path of the json, folder of the images). changed: what it holds instead."""
    made = content() if changed is None else changed
    folder = directory / "images"
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for image in content()["images"]:
        pixels = generator.integers(0, 256, (image["height"], image["width"], 3), np.uint8)
        Image.fromarray(pixels).save(folder / image["file_name"], quality=95)
    path = directory / "instances_val.json"
    path.write_text(json.dumps(made))
    return path, folder
