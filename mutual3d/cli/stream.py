"""Answers to a long video or a live feed, several a second, each within a deadline whatever else the machine does.

    mutual3d stream out/adaptive.pyth --source long.mp4 --deadline-ms 40
    mutual3d stream out/adaptive.pyth --source 0 --deadline-ms 40 --output seen.csv
    mutual3d stream out/adaptive.pyth --source rtsp://camera/live --deadline-ms 40 --video seen.mp4
    mutual3d stream out/adaptive.pyth --source 0 --events --background nothing --output events.csv

--source 0 is the first camera. Each answer looks at the seconds before it, as many as the network was trained on. Of the
configurations of its table the most accurate one runs that the deadline leaves time for: less when the machine is busy, more
when it is free again. All are made ready and timed before the stream begins. --config or a budget such as --gflops 2 holds
one configuration instead.

In a live source the deadline counts from the arrival of a window's last frame, and a window that nobody is ready for makes room for
the next (--when-late wait keeps all). A file is read as fast as it is answered, and its deadline counts from taking a window
up; with --when-late drop-oldest it is played at its own pace, like a camera. A live source that breaks is connected again.

--events joins the answers into a timeline, as those of predict and scan: each stretch in which a class is seen is printed, and written to
--output, as soon as it has ended.

Ctrl-C or SIGTERM ends it; what --output and --video have so far is kept. Exit status: 0 when the source ended or was ended, 1 when it broke or
something else is wrong, 2 when the arguments are.
"""

import argparse
import collections
import contextlib
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mutual3d.cli.budgets import budgets_of, check_choice
from mutual3d.cli.chosen_model import add_choice, load_chosen
from mutual3d.cli.looking import add_events, add_window, check_events, events_of
from mutual3d.data.video.reader import VideoError
from mutual3d.deploy import AdaptiveModel
from mutual3d.deploy.live import open_source
from mutual3d.deploy.stream import WHEN_LATE, DeadlineStream, StreamPrediction, StreamSettings
from mutual3d.deploy.stream_files import AnnotatedVideo, SegmentCsv, StreamCsv
from mutual3d.deploy.timeline import Segment, TimelineBuilder, check_background
from mutual3d.utils.command_line import (
    CommandParser,
    check_output_argument,
    command_parser,
    path_argument,
    positive_argument,
    print_error,
)  # fmt: skip
from mutual3d.utils.stopping import handled_signals
from mutual3d.utils.text import printable

# Seconds between two changes of the live line.
_LINE_SECONDS = 0.1


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; SystemExit, after a line that says why, for one that cannot be."""
    parser = command_parser("stream", __doc__)
    parser.add_argument("model", metavar="MODEL", type=path_argument, help="the adaptive.pyth of a run")
    parser.add_argument("--source", required=True, type=path_argument,
                        help="a video file, the number of a camera, or an address (http, https, rtsp, rtmp, srt, tcp, udp)")  # fmt: skip
    parser.add_argument("--deadline-ms", type=positive_argument, metavar="MS", help="for an answer (default: until the next is due)")
    parser.add_argument("--fps", type=positive_argument, default=5.0, help="answers a second of the source's time (default 5)")
    add_window(parser, "spread a clip's frames over this time: 2s, 500ms (default: as the network was trained)")
    add_events(parser)
    parser.add_argument("--when-late", choices=WHEN_LATE, help="default: wait for a file, drop-oldest for a live source")
    parser.add_argument("--seconds", type=positive_argument, help="of the source, after which to end (default: at its end)")
    parser.add_argument("--output", type=path_argument, help="a csv with a row for each answer, or event, whole at any time")
    parser.add_argument("--video", type=path_argument, help="an mp4 of the source with the answers drawn into it")
    add_choice(parser, config="hold this configuration: width-pixels-frames, for example 0.8-160-9", runtime="none")
    parsed = parser.parse_args(arguments)
    _check(parser, parsed)
    return parsed


def _check(parser: CommandParser, parsed: argparse.Namespace) -> None:
    """End the program, status 2, where options do not go together or a file that is read would be replaced."""
    check_choice(parser, parsed)
    check_events(parser, parsed)
    for option, path, suffix in (("--output", parsed.output, ".csv"), ("--video", parsed.video, ".mp4")):
        check_output_argument(parser, option, path, [parsed.source, parsed.model])
        if path is not None and Path(path).suffix.lower() != suffix:
            parser.error(f"{option} is '{path}': it needs a name that ends in {suffix}")
        if path is not None and Path(path).is_dir():
            parser.error(f"{option} is '{path}', which is a directory: name a file")


def fixed_configuration(model: AdaptiveModel, options: argparse.Namespace) -> str | None:
    """The configuration that --config or a budget holds; None where the deadline chooses."""
    budgets = budgets_of(options)
    if budgets:
        return str(model.set_budget(device=options.device_key, source="clip", **budgets).configuration)
    return options.config


class LiveLine:
    """One line of a terminal that follows the stream; nothing where there is no terminal."""

    def __init__(self) -> None:
        self._is_shown = sys.stderr.isatty()
        self._next = 0.0

    def show(self, stream: DeadlineStream, prediction: StreamPrediction) -> None:
        """Replace the line by the newest answer, a few times a second."""
        if self._is_shown and time.perf_counter() >= self._next:
            self._next = time.perf_counter() + _LINE_SECONDS
            line = describe(stream, prediction)[: shutil.get_terminal_size().columns - 1]
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Take the line away."""
        if self._is_shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def describe(stream: DeadlineStream, prediction: StreamPrediction) -> str:
    """An answer in a line: second, configuration, latency, share of deadlines met, dropped windows, best classes."""
    best = ", ".join(f"{printable(name)} {100 * value:.0f} %" for name, value in prediction.top(3))
    dropped = f", {stream.num_dropped} dropped" if stream.num_dropped else ""
    return (
        f"{prediction.end:.1f} s  {prediction.configuration}  {prediction.total_ms:.1f} ms, "
        f"{100 * stream.share_met:.1f} % in time{dropped}  {best}"
    )


def summary(stream: DeadlineStream, totals: collections.Counter[str], seconds: float) -> str:
    """What the stream came to, in a few lines. totals: answers by configuration. seconds: that it took."""
    lines = [
        f"{stream.num_answered} {'answer' if stream.num_answered == 1 else 'answers'} in {seconds:.1f} s: {100 * stream.share_met:.2f} % within {stream.deadline_ms:g} ms"
        + (f", {stream.num_dropped} windows dropped" if stream.num_dropped else "")
    ]
    if totals:
        shares = ", ".join(f"{name} {100 * count / totals.total():.0f} %" for name, count in totals.most_common(5))
        more = f", {len(totals) - 5} others" if len(totals) > 5 else ""
        lines.append(f"  at {shares}{more}")
    if stream.num_breaks:
        lines.append(f"  the source broke and was connected again {stream.num_breaks} times")
    if stream.num_bad:
        lines.append(f"  {stream.num_bad} frames or packets did not decode, and were left out")
    return "\n".join(lines)


class EventLines:
    """The timeline of a stream: each segment is printed, and kept in a csv where there is one, as soon as it has ended."""

    def __init__(self, timeline: TimelineBuilder, line: LiveLine, table: SegmentCsv | None) -> None:
        self._timeline, self._line, self._table = timeline, line, table

    def add(self, prediction: StreamPrediction) -> None:
        """Take the next answer."""
        self._tell(self._timeline.add(prediction))

    def end(self) -> None:
        """The stream has ended, and with it what lasted until then."""
        self._tell(self._timeline.end())

    def _tell(self, segments: Iterable[Segment]) -> None:
        for segment in segments:
            self._line.end()
            print(segment.describe(), flush=True)
            if self._table is not None:
                self._table.add(segment)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these words, by default those of the command line; returns its exit status."""
    options = parse(arguments)
    events = events_of(options)
    model = load_chosen(options.model, options.device, options.runtime)
    if events is not None and model.class_names is not None:  # before anything is opened
        check_background(events.background, model.class_names)
    settings = StreamSettings(
        options.deadline_ms, options.fps, options.window, options.when_late, options.seconds, fixed_configuration(model, options)
    )
    totals: collections.Counter[str] = collections.Counter()
    line, failed = LiveLine(), None
    with contextlib.ExitStack() as stack:
        # By SIGTERM a camera's program is ended where nobody sits before it: it does what Ctrl-C does.
        stack.enter_context(handled_signals(signal.default_int_handler, (signal.SIGTERM,)))
        source = open_source(options.source)
        drops = options.when_late == "drop-oldest" or (options.when_late is None and source.is_live)
        video = stack.enter_context(AnnotatedVideo(options.video, waits=not drops)) if options.video else None
        stream = stack.enter_context(DeadlineStream(model, source, settings, video.add if video else None))
        takers: list[Callable[[StreamPrediction], None]] = [] if video is None else [video.show]
        # What an earlier stream wrote is replaced when this one is sure to begin.
        lines = None
        if events is not None:
            table = stack.enter_context(SegmentCsv(options.output, source.name)) if options.output else None
            lines = EventLines(stream.timeline_builder(events.threshold, events.background), line, table)
            takers.append(lines.add)
        elif options.output:
            takers.append(stack.enter_context(StreamCsv(options.output)).add)
        print(f"{printable(source.name)}: {stream.describe()}", flush=True)
        start = time.perf_counter()
        try:
            for prediction in stream:
                totals[str(prediction.configuration)] += 1
                for take in takers:
                    take(prediction)
                line.show(stream, prediction)
        except KeyboardInterrupt:
            pass  # Ctrl-C, or SIGTERM, is how a stream of no end is ended: what there is so far is told below
        except VideoError as error:
            failed = error
        seconds = time.perf_counter() - start
        line.end()
        stream.close()
        if lines is not None:
            lines.end()
    print(summary(stream, totals, seconds))
    if video is not None and video.num_left_out:
        print(f"  {video.num_left_out} frames were left out of the video: drawing them took too long")
    for path in filter(None, (options.output, options.video)):
        print(f"written: {printable(path)}")
    if failed is not None:
        print_error(failed)
    return 0 if failed is None else 1
