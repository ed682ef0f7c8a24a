"""Weakly supervised localisation in little (paper, Table 2): one network of images of shapes, at every end of its space.

python benchmarks/localization.py --output out/localization

Makes images of six shapes of any size and place before a textured ground, with an annotation in Pascal VOC's form for each that is looked
at, trains a small Wide ResNet at all configurations, and compares the box of each one's class activation map with that of the shape, as
benchmarks/explain.py does with ImageNet's. What is there is kept. Writes benchmarks/results/localization.csv, a row a configuration.
"""

import argparse
from pathlib import Path

import explain
import numpy as np
from common import save_rows
from PIL import Image

import mutual3d
from mutual3d.cli.run import main as run_net
from mutual3d.utils.files import atomic_write

SIDE = 24
COUNTS = {"train": 900, "val": 240}
# Of the normalised distances down and right of the centre: whether a place belongs to the shape.
SHAPES = {
    "bars": lambda y, x: (np.maximum(abs(y), abs(x)) <= 1) & (np.floor((x + 1) * 2.5) % 2 == 0),
    "cross": lambda y, x: (np.minimum(abs(y), abs(x)) <= 0.33) & (np.maximum(abs(y), abs(x)) <= 1),
    "disc": lambda y, x: np.hypot(y, x) <= 1,
    "ring": lambda y, x: abs(np.hypot(y, x) - 0.75) <= 0.25,
    "square": lambda y, x: np.maximum(abs(y), abs(x)) <= 1,
    "triangle": lambda y, x: (abs(x) <= (y + 1) / 2) & (abs(y) <= 1),
}
SETTINGS = {
    "TRAIN.DATASET": "image_folder", "TEST.DATASET": "image_folder", "MODEL.NUM_CLASSES": len(SHAPES), "NUM_GPUS": 0,
    "DATA.TRAIN_JITTER_SCALES": [SIDE, SIDE], "DATA.TRAIN_CROP_SIZE": SIDE, "DATA.TEST_CROP_SIZE": SIDE, "DATA.CROP_PADDING": 0,
    "MUTUAL.SPATIAL_SIZES": [12, 16, 20, SIDE], "SOLVER.MAX_EPOCH": 12, "GRID.WIDTH_STEP": 0.25, "GRID.RUNTIMES": [],
}  # fmt: skip


def draw(name, generator):
    """An image with a shape in it, uint8 H, W, 3, and the shape's x1, y1, x2, y2 in pixels."""
    reach = generator.uniform(0.16, 0.48) * SIDE
    y, x = (generator.uniform(reach, SIDE - reach) for _ in range(2))
    down, right = np.mgrid[:SIDE, :SIDE] + 0.5
    ground = np.kron(generator.uniform(0.25, 0.75, (6, 6, 3)), np.ones((SIDE // 6, SIDE // 6, 1)))
    colour = generator.uniform(0.8, 1, 3) if generator.random() < 0.5 else generator.uniform(0, 0.2, 3)
    image = np.where(SHAPES[name]((down - y) / reach, (right - x) / reach)[..., None], colour, ground)
    image = np.clip(image + generator.normal(0, 0.03, image.shape), 0, 1)
    return (255 * image).astype(np.uint8), np.array([x - reach, y - reach, x + reach, y + reach])


def annotation(name, box):
    left, top, right, bottom = np.rint(box).astype(int)
    sides = f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
    size = f"<size><width>{SIDE}</width><height>{SIDE}</height><depth>3</depth></size>"
    return f"<annotation>{size}<object><name>{name}</name><bndbox>{sides}</bndbox></object></annotation>"


def make_images(directory):
    for part, (split, count) in enumerate(COUNTS.items()):
        for number in range(count):
            name = list(SHAPES)[number % len(SHAPES)]
            image, box = draw(name, np.random.default_rng([part, number]))
            path = directory / split / name / f"{split}_{number:04d}.png"
            with atomic_write(path) as temporary:
                Image.fromarray(image).save(temporary, "PNG")
            if split == "val":
                with atomic_write(directory / "annotations" / f"{path.stem}.xml") as temporary:
                    temporary.write_text(annotation(name, box))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("out/localization"))
    options, settings = parser.parse_known_args()
    data, output = options.output / "data", options.output / "run"
    if not (data / "annotations").is_dir():
        make_images(data)
    if not (output / "adaptive.pyth").is_file():
        words = {**SETTINGS, "DATA.PATH_TO_DATA_DIR": data, "OUTPUT_DIR": output}
        run_net(["--cfg", "Methods/MUTUAL", *(str(word) for pair in words.items() for word in pair), *settings])
    model = mutual3d.load(output / "adaptive.pyth")
    files = list(explain.images(data / "val", data / "annotations", model.class_names))
    rows = explain.compare(model, files, [str(corner) for corner in model.network.space.corners()], ["last"])
    accuracy = {row.configuration: row.accuracy[model.table.metric] for row in model.table.rows}
    save_rows("localization", [{**row, "top1_acc": f"{accuracy[row['configuration']]:.1f}"} for row in rows])


if __name__ == "__main__":
    main()
