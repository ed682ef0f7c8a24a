"""Where the configurations of a network look, compared with boxes: the share of the heat in them, and localisation (paper, Table 2).

python benchmarks/explain.py --model demo/out/adaptive.pyth --demo demo/data
python benchmarks/explain.py --name weizmann --model out/adaptive.pyth --videos /data/weizmann --list val.csv --boxes boxes.csv
python benchmarks/explain.py --name imagenet --model out/adaptive.pyth --images /data/imagenet/val --annotations /data/imagenet/boxes

The boxes are those of the demo set's actors; of a csv of `path,frame,x1,y1,x2,y2`, normalised, frames from 0, with a header or without
(datasets/JHMDB.md); or of an annotation in Pascal VOC's form for each image, IMAGE.xml. The class that is explained is the video's or
image's own (annotations name it, where the model has classes of these names, and it is the predicted one elsewhere). Every frame that a configuration looks at counts. --stages s3 last compares features of an earlier part of the network. The box of the
largest part above a fifth of the frame's largest heat is right where it overlaps an object's by more than 0.5: of all, of objects under
20 % of the frame, and over 50 %. Writes benchmarks/results/explain_NAME.csv, a row a configuration.
"""

import argparse
import json
import os
import statistics
from pathlib import Path
from typing import NamedTuple

import torch
from common import save_rows

import mutual3d
from mutual3d.data.datasets.frame_boxes import read_frame_boxes
from mutual3d.data.datasets.kinetics import read_video_list
from mutual3d.data.datasets.voc_boxes import read_voc_boxes
from mutual3d.data.prepare.demo import CLASS_NAMES, boxes_of
from mutual3d.data.video.decode import open_video
from mutual3d.data.video.stills import is_still, read_image
from mutual3d.deploy.explain import explain_clip, seconds_of
from mutual3d.deploy.explain_files import view_share
from mutual3d.deploy.predict import read_clips
from mutual3d.metrics.localization import LocalizationAccuracy, box_of_heat, heat_inside
from mutual3d.utils.files import files_under
from mutual3d.utils.logging import progress_bar


class Annotated(NamedTuple):
    """A file, the class that it shows (None: the predicted one), and its boxes by frame, normalised xyxy."""

    path: Path
    class_name: str | int | None
    boxes: dict[int, list[tuple[float, ...]]]


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="the adaptive.pyth of a run")
    parser.add_argument("--name", default="demo", help="of the results (default demo)")
    parser.add_argument("--demo", type=Path, help="the folder of a demo set")
    parser.add_argument("--split", default="test", help="of the demo set (default test)")
    parser.add_argument("--videos", type=Path, help="the folder of the videos that --list and --boxes name")
    parser.add_argument("--list", default="val.csv", help="`path label` rows in --videos (default val.csv)")
    parser.add_argument("--boxes", default="boxes.csv", help="a csv in --videos, or anywhere (default boxes.csv)")
    parser.add_argument("--images", type=Path, help="a folder of images, in any folders")
    parser.add_argument("--annotations", type=Path, help="the folder of their annotations, in any folders")
    parser.add_argument("--configs", nargs="+", help="default: the smallest and the largest of the space")
    parser.add_argument("--stages", nargs="+", default=["last"], help="parts of the network whose features are explained (default: the last ones)")
    parser.add_argument("--limit", type=int, help="files to look at, spread over all (default: all)")
    return parser.parse_args()


def demo_videos(directory, split):
    arguments = json.loads((directory / "demo.json").read_text())
    for index, video in enumerate(read_video_list(directory / f"{split}.csv")):
        boxes = boxes_of(split, index, arguments["seed"])
        yield Annotated(Path(video.path), CLASS_NAMES[video.label], dict(enumerate(boxes)))


def listed_videos(directory, list_name, boxes_name):
    boxes = read_frame_boxes(directory / boxes_name)
    for video in read_video_list(directory / list_name):
        yield Annotated(Path(video.path), video.label, boxes.get(os.path.realpath(video.path), {}))


def images(directory, annotations, class_names):
    found = {path.stem: path for path in files_under(annotations) if path.suffix == ".xml"}
    for path in files_under(directory):
        if path.stem in found:
            boxes = read_voc_boxes(found[path.stem])
            name = boxes.names[0] if boxes.names[0] in (class_names or ()) else None
            yield Annotated(path, name, {0: [tuple(box) for box in boxes.boxes_N4.tolist()]})


def frame_shape(path, seconds):
    """Height and width of a file's frames, and the frames that are shown at these seconds."""
    if is_still(path):
        image = read_image(path)
        return (image.height, image.width), [0] * len(seconds)
    with open_video(path) as reader:
        indices = reader.indices_at(list(seconds))
        ((_, frame),) = reader.frames(indices[:1])
        return frame.shape[:2], indices


def to_view(boxes, shape, share):
    """Boxes of the frame as those of the square in its middle; those outside are left out."""
    (height, width), side = shape, min(shape) * share
    offset = torch.tensor([(width - side) / 2, (height - side) / 2] * 2)
    found = ((boxes * torch.tensor([width, height, width, height]) - offset) / side).clamp(0, 1)
    return found[(found[:, 2] > found[:, 0]) & (found[:, 3] > found[:, 1])]


def from_view(box, shape, share):
    """A box of the square as one of the frame."""
    (height, width), side = shape, min(shape) * share
    offset, sides = ((width - side) / 2, (height - side) / 2) * 2, (width, height) * 2
    return tuple((value * side + start) / whole for value, start, whole in zip(box, offset, sides))


class Seen:
    """What was seen of one configuration."""

    def __init__(self):
        self.inside, self.covered, self.hits, self.methods = [], [], [], set()
        self.accuracy = LocalizationAccuracy()

    def add(self, explanation, annotated, indices, shape, share):
        self.methods.add(explanation.method)
        inside = covered = frames = 0
        for place in explanation.seen:
            truth = torch.tensor(annotated.boxes.get(indices[place], []))
            in_view = to_view(truth, shape, share) if len(truth) else truth
            if not len(in_view):
                continue
            heat = explanation.heat_THW[place]
            box = box_of_heat(heat)
            self.accuracy.update(None if box is None else from_view(box, shape, share), truth)
            # Over all frames: a frame without heat has none in its boxes and none outside.
            of_frame, area = heat_inside(heat, in_view)
            inside, covered, frames = inside + of_frame * float(heat.sum()), covered + area, frames + 1
            if float(heat.max()) > 0:
                row, column = divmod(int(heat.argmax()), heat.shape[1])
                x, y = (column + 0.5) / heat.shape[1], (row + 0.5) / heat.shape[0]
                self.hits.append(bool(((in_view[:, :2] < torch.tensor([x, y])) & (in_view[:, 2:] > torch.tensor([x, y]))).all(1).any()))
        total = float(explanation.heat_THW[list(explanation.seen)].sum())
        if frames and total > 0:
            self.inside.append(inside / total)
            self.covered.append(covered / frames)

    def row(self, configuration, stage):
        values = self.accuracy.values()
        return {
            "configuration": configuration, "features": stage, "method": "+".join(sorted(self.methods)), "files": len(self.inside),
            "heat_in_boxes": f"{statistics.mean(self.inside):.3f}", "area_of_boxes": f"{statistics.mean(self.covered):.3f}",
            "heat_over_area": f"{statistics.mean(self.inside) / statistics.mean(self.covered):.2f}",
            "hottest_in_boxes": f"{statistics.mean(self.hits):.3f}", "frames": self.accuracy.total["all"],
            **{f"localization_{group}": f"{value:.1f}" for group, value in values.items()},
            "small": self.accuracy.total["small"], "large": self.accuracy.total["large"],
        }  # fmt: skip


def compare(model, files, configurations, stages):
    """A row for each configuration and stage."""
    space, share = model.network.space, view_share(model.preprocessing)
    configurations = [space.check(text) for text in configurations or [str(space.smallest), str(space.largest)]]
    seen = {(configuration, stage): Seen() for stage in stages for configuration in configurations}
    for annotated in progress_bar(files, "explaining", len(files), unit="file"):
        clips = read_clips(annotated.path, model.preprocessing)
        shape, indices = frame_shape(annotated.path, seconds_of(clips, model))
        for stage in stages:
            for each in explain_clip(model, clips, configurations, annotated.class_name, None if stage == "last" else stage):
                seen[each.configuration, stage].add(each, annotated, indices, shape, share)
    return [each.row(*key) for key, each in seen.items()]


def main():
    options = parse()
    model = mutual3d.load(options.model)
    if options.demo:
        files = list(demo_videos(options.demo, options.split))
    elif options.videos:
        files = list(listed_videos(options.videos, options.list, options.boxes))
    else:
        files = list(images(options.images, options.annotations, model.class_names))
    if options.limit:
        files = files[:: max(1, len(files) // options.limit)][: options.limit]
    save_rows(f"explain_{options.name}", compare(model, files, options.configs, options.stages))


if __name__ == "__main__":
    main()
