"""What several commands ask for alike: how videos are looked at, in windows, and how these are joined into a timeline."""

import argparse

from mutual3d.data.video.decode import CHOICES
from mutual3d.deploy import Decoding, Events
from mutual3d.deploy.predict import Reading, window_seconds
from mutual3d.deploy.timeline import THRESHOLD
from mutual3d.utils.command_line import count_argument, explained, fraction_argument, positive_argument

# Seconds that one video may take without a sign of life.
_TIMEOUT = 600.0


def add_looks(parser: argparse.ArgumentParser, *, batch: int = 16) -> None:
    """Add what a command that looks at files asks for: views, windows, classes, clips at a time, and the decoder.

    batch: clips that are computed together where nothing is said.
    """
    parser.add_argument("--views", type=count_argument, default=1, help="clips of a video or window, averaged (default 1)")
    add_window(parser, "look at each stretch of this length: 2s, 500ms")
    parser.add_argument("--step", type=explained(window_seconds), metavar="TIME", help="from window to window (default: its length)")
    parser.add_argument("--batch", type=count_argument, default=batch, help="clips that are computed together (default %(default)s)")
    parser.add_argument("--top", type=count_argument, default=5, help="classes to tell (default 5)")
    add_decoding(parser)


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """Add what decodes videos, and how long it may take for one."""
    parser.add_argument("--backend", default="pyav", choices=CHOICES, metavar="WORD", help=f"decoder: {', '.join(CHOICES)}; default pyav")
    parser.add_argument("--timeout", type=positive_argument, default=_TIMEOUT, metavar="SECONDS", help="after which a video is given up (default %(default)g)")


def add_window(parser: argparse.ArgumentParser, text: str) -> None:
    """Add --window, a length of time, in seconds where no unit is named. text: its help."""
    parser.add_argument("--window", type=explained(window_seconds), metavar="TIME", help=text)


def add_events(parser: argparse.ArgumentParser, threshold: str = f"min probability in an event (default {THRESHOLD})") -> None:
    """Add what makes a timeline of windows: --events, --threshold, --background. threshold: help of that one."""
    parser.add_argument("--events", action="store_true", help="join windows that say the same into a timeline")
    parser.add_argument("--threshold", type=fraction_argument, metavar="NUMBER", help=threshold)
    parser.add_argument("--background", nargs="+", default=[], metavar="CLASS", help="classes that are no event")


def check_windows(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End the program, status 2, for a step or events without a window."""
    for is_given, what in ((options.step is not None, "--step is from window to window"), (options.events, "--events are joined windows")):
        if is_given and options.window is None:
            parser.error(f"{what}: give --window too, such as --window 2s")


def check_events(parser: argparse.ArgumentParser, options: argparse.Namespace, *, threshold: bool = True) -> None:
    """End the program, status 2, where what is of --events is given without it. threshold: whether --threshold is of it alone."""
    given = [name for name, is_given in (("--threshold", threshold and options.threshold is not None), ("--background", bool(options.background))) if is_given]
    if given and not options.events:
        parser.error(f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} of --events: give that too")


def events_of(options: argparse.Namespace) -> Events | None:
    """How the options say that windows are joined; None where they do not."""
    threshold = THRESHOLD if options.threshold is None else options.threshold
    return Events(threshold, tuple(options.background)) if options.events else None


def reading_of(options: argparse.Namespace) -> Reading:
    """How the options say that files become clips."""
    return Reading(options.views, options.window, options.step, decoding=decoding_of(options))


def decoding_of(options: argparse.Namespace) -> Decoding:
    """How the options say that videos are decoded."""
    return Decoding(options.backend, options.timeout, timeout_option="--timeout")
