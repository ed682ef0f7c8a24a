"""What one network sees in videos, at a budget or at a configuration of your choice.

    mutual3d predict out/adaptive.pyth clip.mp4 --latency-ms 5
    mutual3d predict out/adaptive.pyth a.mp4 b.mp4 folder --config 0.8-160-9 --views 10 --output found.csv
    mutual3d predict out/adaptive.pyth folder --mean-latency-ms 3
    mutual3d predict out/adaptive.pyth long.mp4 --window 2s --events --background nothing
    mutual3d predict ava/adaptive.pyth clip.mp4 --boxes boxes.csv --output drawn.mp4

A clip is a second or two: of a longer video one look is at its middle; --views looks at more of it, and --window says what is
seen when, a line for each stretch; --events joins those that say the same into a timeline. --output keeps all of it, and what
could not be read, as .csv or .json. A file of one image is shown as it is; one of several (an animated GIF, PNG or WebP, a TIFF
stack) is a video, as in lists of videos.

A budget on the mean over clips, --mean-gflops or --mean-latency-ms, may run a cascade: a dearer configuration where a cheap one is not
sure, as often as the budget pays for. --config takes one too, as `mutual3d select` prints it. Other budgets bound every clip.

A model that classifies boxes (AVA) takes them from a csv, `second,x1,y1,x2,y2[,score]` with sides in [0, 1], or from a
detector of people, --detector WEIGHTS (torchvision's fasterrcnn_resnet50_fpn), and draws them into --output.

Exit status: 0 when every video was read, 1 when some are unreadable (named at the end) or else, 2 where the arguments are wrong.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from mutual3d.cli.budgets import check_choice
from mutual3d.cli.chosen_model import MANY_VIDEOS, add_choice, choose, describe_active, load_chosen
from mutual3d.cli.looking import add_events, add_looks, check_events, check_windows, decoding_of, events_of, reading_of
from mutual3d.data.video.reader import VideoError
from mutual3d.deploy import AdaptiveModel, predict_boxes
from mutual3d.deploy.detect import detect_people, load_detector
from mutual3d.deploy.draw import describe_boxes, draw_boxes, read_boxes_csv
from mutual3d.deploy.gives import check_gives_classes
from mutual3d.deploy.predict import predict_each
from mutual3d.deploy.prediction import SUFFIXES, Prediction, Predictions
from mutual3d.deploy.sources import list_inputs
from mutual3d.deploy.timeline import THRESHOLD
from mutual3d.utils.command_line import (
    check_output_argument,
    command_parser,
    path_argument,
    print_error,
)  # fmt: skip
from mutual3d.utils.text import printable

# The score from which on a box's label is shown.
_LABEL_THRESHOLD = 0.3
# Below this share of a video that was looked at, the way to look at more is told.
_SMALL_SHARE = 0.5


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; SystemExit, after a line that says why, for one that cannot be."""
    parser = command_parser("predict", __doc__)
    parser.add_argument("files", nargs="*", metavar="MODEL SOURCE", type=path_argument,
                        help="the adaptive.pyth of a run; then videos, images, folders of them, and patterns such as 'videos/*.mp4'")  # fmt: skip
    parser.add_argument("--model", type=path_argument, help="another way to name MODEL")
    parser.add_argument("--video", default=[], nargs="+", type=path_argument, metavar="SOURCE", help="another way to name SOURCE")
    config = "width-pixels-frames, for example 0.8-160-9, or a cascade, 0.25-64-4@0.83+0.8-160-9"
    add_choice(parser, config=config, runtime=f"auto from {MANY_VIDEOS} videos on", with_means=True)
    add_looks(parser, batch=1)
    add_events(parser, threshold=f"min score of a label (default {_LABEL_THRESHOLD}) or event ({THRESHOLD})")
    parser.add_argument("--boxes", type=path_argument, help="csv of boxes to classify, for a model of AVA's kind")
    parser.add_argument(
        "--detector", type=path_argument, help="weights of torchvision's fasterrcnn_resnet50_fpn, to find people instead"
    )
    parser.add_argument("--output", type=path_argument, help=".csv or .json; for boxes an mp4 to draw them into")
    parsed = parser.parse_intermixed_args(arguments)
    if parsed.model is None and parsed.files:
        parsed.model = parsed.files.pop(0)
    parsed.video = [*parsed.files, *parsed.video]
    if parsed.model is None or not parsed.video:
        parser.error("name a model and what it is to look at: mutual3d predict out/adaptive.pyth clip.mp4")
    check_choice(parser, parsed)
    if parsed.boxes and parsed.detector:
        parser.error("give --boxes or --detector, not both")
    check_windows(parser, parsed)
    check_events(parser, parsed, threshold=False)
    if parsed.events and parsed.output:
        parser.error("--events are printed: leave --output out; mutual3d scan --events writes a table")
    if parsed.output:
        _check_output(parser, parsed)
    return parsed


def _check_output(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> None:
    """Refuse an output that would be written over what is read, or cannot be written at all."""
    output = Path(parsed.output)
    if output.is_dir():
        parser.error(f"--output '{output}' is a directory: name an mp4 in it (for boxes), or a csv or json")
    is_drawing = output.suffix.lower() not in SUFFIXES
    if is_drawing and (len(parsed.video) > 1 or Path(parsed.video[0]).is_dir()):
        parser.error("--output is one file to draw into: give one video; or a name that ends in .csv or .json")
    check_output_argument(parser, "--output", parsed.output, [*parsed.video, parsed.boxes, parsed.model, parsed.detector])


def show_videos(model: AdaptiveModel, paths: Sequence[Path], options: argparse.Namespace) -> list[VideoError]:
    """Print the best classes of each video, and save them; the errors of those that cannot be read."""
    predictions, shown = Predictions(), None
    description = describe_active(model)
    how = reading_of(options)._replace(chunk=max(options.batch, 8))
    for found in predict_each(model, paths, how, batch=options.batch):
        # The windows of one video stand under its name.
        if found.path != shown or options.window is None:
            show_events(predictions, model, options)
            shown = found.path
            print(f"{printable(shown)}: {description}")
        if isinstance(found, VideoError):
            predictions.bad.append(found)
            if len(paths) > 1:  # of one alone the end of the program tells it
                print(f"  cannot be read: {printable(found.cause)}")
            continue
        predictions.append(found)
        if options.events:
            continue
        show_window(found, options.top) if found.window else show_prediction(found, options.top)
    show_events(predictions, model, options)
    if options.output:
        predictions.save(options.output, options.top)
        print(f"written: {printable(options.output)}")
    if model.spending is not None:
        print(f"cascade: {model.spending}")
    return predictions.bad


def show_events(predictions: Predictions, model: AdaptiveModel, options: argparse.Namespace) -> None:
    """Print the timeline of a video whose windows are there, and forget them; nothing where no events are asked for."""
    events = events_of(options)
    if events is None or not predictions:
        return
    windows = Predictions((each for each in predictions if each.window), several=model.preprocessing.has_several_labels)
    found = windows.timeline(events.threshold, events.background)
    lines = [f"  {segment.describe()}" for segments in found.values() for segment in segments]
    print("\n".join(lines or ["  no event"]))
    predictions.clear()


def show_window(prediction: Prediction, top: int) -> None:
    """Print the `top` best classes of a stretch of a video, in one line."""
    best = ", ".join(f"{printable(name)} {100 * probability:.1f} %" for name, probability in prediction.top(top))
    print(f"  {prediction.window}: {best}")


def show_prediction(prediction: Prediction, top: int) -> None:
    """Print the `top` best classes, and what the network looked at."""
    for name, probability in prediction.top(top):
        print(f"  {100 * probability:5.1f} %  {printable(name)}")
    clips = prediction.clips
    if clips.seconds:
        more = "; --views looks at more of it" if clips.share < _SMALL_SHARE else ""
        print(f"  {clips.describe()}{more}")
    times = f"decoding {prediction.decode_ms:.0f} ms, network {prediction.network_ms:.0f} ms"
    print(f"  {times} ({max(1, len(clips.seconds))} view(s))")


def find_boxes(path: Path, options: argparse.Namespace) -> dict[float, torch.Tensor]:
    """{second: boxes} from the csv or the detector; ValueError where neither is given."""
    if options.boxes:
        found = read_boxes_csv(options.boxes)
    elif options.detector:
        detector = load_detector(options.detector).to(options.device)
        found = detect_people(detector, path, decoding=decoding_of(options))
    else:
        raise ValueError("this model classifies boxes: give --boxes CSV or --detector WEIGHTS")
    return {second: boxes for second, (boxes, _) in found.items()}


def show_all_boxes(model: AdaptiveModel, paths: Sequence[Path], options: argparse.Namespace) -> list[VideoError]:
    """Print the labels of every box of each video; the errors of those that cannot be read."""
    bad = []
    description = describe_active(model)
    for path in paths:
        print(f"{printable(path)}: {description}")
        try:
            show_boxes(model, path, options)
        except VideoError as error:
            bad.append(error)
            if len(paths) > 1:
                print(f"  cannot be read: {printable(error.cause)}")
    return bad


def show_boxes(model: AdaptiveModel, path: Path, options: argparse.Namespace) -> None:
    """Print the labels of every box, and draw them into the output."""
    start = time.perf_counter()
    boxes = find_boxes(path, options)
    scores = predict_boxes(model, path, boxes, decoding_of(options))
    texts = {s: describe_boxes(scores[s], model.class_names, threshold=_LABEL_THRESHOLD if options.threshold is None else options.threshold) for s in boxes}
    for second, labels in texts.items():
        for box, label in zip(boxes[second].tolist(), labels):
            sides = " ".join(f"{side:.2f}" for side in box)
            print(f"  second {second:6.2f}  box {sides}  {printable(label.replace(chr(10), ', '))}")
    print(f"  {sum(map(len, boxes.values()))} boxes, {1000 * (time.perf_counter() - start):.0f} ms")
    if options.output:
        shown = draw_boxes(path, options.output, {s: (boxes[s], texts[s]) for s in boxes}, decoding=decoding_of(options))
        print(f"  {printable(options.output)}: boxes on {shown} frames")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these words, by default those of the command line; returns its exit status."""
    options = parse(arguments)
    paths = list_inputs(options.video)
    model = load_chosen(options.model, options.device, options.runtime or ("auto" if len(paths) >= MANY_VIDEOS else None))
    check_gives_classes(model, "predicting files")
    choose(model, options)
    takes_boxes = model.network.takes_boxes
    if not takes_boxes and (options.boxes or options.detector):
        raise ValueError("--boxes and --detector are for models that classify boxes; this one classifies clips")
    is_table = options.output is not None and Path(options.output).suffix.lower() in SUFFIXES
    if options.output and takes_boxes == is_table:
        ending = "an mp4 to draw boxes into" if takes_boxes else "a name that ends in .csv or .json; boxes are drawn into videos"
        raise ValueError(f"--output is '{printable(options.output)}': this model needs {ending}")
    if model.choice is not None:
        print(model.choice)
    show = show_all_boxes if takes_boxes else show_videos
    bad = show(model, paths, options)
    if bad and len(paths) == 1:
        print_error(bad[0])
    elif bad:
        print(f"{len(bad)} of {len(paths)} videos cannot be read:", file=sys.stderr)
        for error in bad:
            print(f"  {printable(error.path)}: {printable(error.cause)}", file=sys.stderr)
    return 1 if bad else 0
