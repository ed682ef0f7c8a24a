"""What one network sees in a video, at a budget or at a configuration of your choice.

python tools/predict.py --model out/adaptive.pyth --video clip.mp4 --gflops 2.0
python tools/predict.py --model out/adaptive.pyth --video clip.mp4 --config 0.8-160-9
python tools/predict.py --model ava/adaptive.pyth --video clip.mp4 --boxes boxes.csv --output drawn.mp4

A model that classifies boxes (AVA) takes them from a csv, `second,x1,y1,x2,y2[,score]` with sides in [0, 1], or from a
detector of people, --detector WEIGHTS (torchvision's fasterrcnn_resnet50_fpn), and draws them into --output.
"""

import argparse
import time

import torch

import mutual3d
from mutual3d.deploy import predict_boxes, predict_video
from mutual3d.deploy.detect import detect_people, load_detector
from mutual3d.deploy.predict import is_image
from mutual3d.deploy.draw import describe_boxes, draw_boxes, read_boxes_csv
from mutual3d.evaluation.grid import count_costs
from mutual3d.utils.command_line import run_command


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="the adaptive.pyth of a run")
    parser.add_argument("--video", required=True, nargs="+", help="one or more video files, or images")
    parser.add_argument("--config", help="width-pixels-frames, for example 0.8-160-9")
    parser.add_argument("--gflops", type=float, help="most GFLOPs a view may cost")
    parser.add_argument("--latency-ms", type=float, help="most milliseconds a clip may take")
    parser.add_argument("--device-key", help="whose latency: a key of the table, such as cpu-fp32-b1-t2")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where the network runs (default cpu)")
    parser.add_argument("--views", type=int, default=1, help="clips spread over the video, averaged (default 1)")
    parser.add_argument("--top", type=int, default=5, help="classes to print (default 5)")
    parser.add_argument("--backend", default="pyav", help="pyav or decord")
    parser.add_argument("--boxes", help="csv of boxes to classify, for a model of AVA's kind")
    parser.add_argument("--detector", help="weights of torchvision's fasterrcnn_resnet50_fpn, to find people instead")
    parser.add_argument("--threshold", type=float, default=0.3, help="least score of a label that is shown (default 0.3)")
    parser.add_argument("--output", help="mp4 to draw boxes and labels into")
    parsed = parser.parse_args(arguments)
    if parsed.config and (parsed.gflops or parsed.latency_ms):
        parser.error("give --config or a budget, not both")
    if parsed.top < 1:
        parser.error(f"--top is {parsed.top}: show one class or more")
    if parsed.boxes and parsed.detector:
        parser.error("give --boxes or --detector, not both")
    if parsed.output and len(parsed.video) > 1:
        parser.error("--output is one file: give one --video")
    return parsed


def load_onto(device, path):
    """The model on `cpu` or `cuda`; ValueError where torch sees no GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device is cuda, and torch sees no GPU here: leave --device out to run on the CPU")
    model = mutual3d.load(path)
    model.network.place(torch.device(device))
    return model


def choose(model, options):
    """Activate what the options ask for: a configuration, a budget, or the largest."""
    if options.gflops is not None or options.latency_ms is not None:
        model.set_budget(gflops=options.gflops, latency_ms=options.latency_ms, device=options.device_key)
    elif options.config:
        model.activate(options.config)


def describe_active(model):
    cost = count_costs(model.network, [model.active], model.preprocessing.crop)[model.active]
    return f"configuration {model.active}, {cost.gflops:.4g} GFLOPs a view, {cost.parameters:,} parameters"


def show_video(model, path, options):
    """Print the best classes of a video."""
    prediction = predict_video(model, path, num_views=options.views, backend=options.backend)
    for name, probability in prediction.top(options.top, model.class_names):
        print(f"  {100 * probability:5.1f} %  {name}")
    times = f"decoding {prediction.decode_ms:.0f} ms, network {prediction.network_ms:.0f} ms"
    print(f"  {times} ({1 if is_image(path) else options.views} view(s))")


def find_boxes(path, options):
    """{second: boxes} from the csv or the detector; ValueError where neither is given."""
    if options.boxes:
        found = read_boxes_csv(options.boxes)
    elif options.detector:
        detector = load_detector(options.detector).to(options.device)
        found = detect_people(detector, path, backend=options.backend)
    else:
        raise ValueError("this model classifies boxes: give --boxes CSV or --detector WEIGHTS")
    return {second: boxes for second, (boxes, _) in found.items()}


def show_boxes(model, path, options):
    """Print the labels of every box, and draw them into the output."""
    start = time.perf_counter()
    boxes = find_boxes(path, options)
    scores = predict_boxes(model, path, boxes, backend=options.backend)
    texts = {s: describe_boxes(scores[s], model.class_names, threshold=options.threshold) for s in boxes}
    for second, labels in texts.items():
        for box, label in zip(boxes[second].tolist(), labels):
            sides = " ".join(f"{side:.2f}" for side in box)
            print(f"  second {second:6.2f}  box {sides}  {label.replace(chr(10), ', ')}")
    print(f"  {sum(map(len, boxes.values()))} boxes, {1000 * (time.perf_counter() - start):.0f} ms")
    if options.output:
        shown = draw_boxes(path, options.output, {s: (boxes[s], texts[s]) for s in boxes}, backend=options.backend)
        print(f"  {options.output}: boxes on {shown} frames")


def main(arguments=None):
    options = parse(arguments)
    model = load_onto(options.device, options.model)
    choose(model, options)
    description = describe_active(model)
    takes_boxes = model.network.takes_boxes
    if not takes_boxes and (options.boxes or options.detector or options.output):
        raise ValueError("--boxes, --detector and --output are for models that classify boxes; this one classifies clips")
    show = show_boxes if takes_boxes else show_video
    for path in options.video:
        print(f"{path}: {description}")
        show(model, path, options)


if __name__ == "__main__":
    run_command(main)
