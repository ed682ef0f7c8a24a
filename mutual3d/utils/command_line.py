"""What the command lines share: mistakes of the user end in one clear line instead of a traceback."""

import argparse
import math
import sys

from mutual3d.utils.streams import forgiving_streams
from mutual3d.utils.text import printable


def run_command(main):
    """Exit with what `main()` returns; errors that explain themselves are printed without a traceback, status 1.

    What is printed never ends it: see `forgiving_streams`.
    """
    with forgiving_streams():
        sys.exit(_status(main))


def _status(main):
    try:
        return main()
    except KeyboardInterrupt:
        print("stopped; the same command goes on from what is saved", file=sys.stderr)
        return 130
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        # A bare RuntimeError comes from inside torch and needs its traceback; the others were written for the user.
        if type(error) is RuntimeError:
            raise
        print_error(error)
        return 1


def print_error(error: object) -> None:
    """One `error: ...` on stderr, whatever the names of files in it hold; lines that the message means are kept."""
    print("error: " + printable(error, keep="\n"), file=sys.stderr)


def file_name(text: str) -> str:
    """For argparse: the name of a file or folder; an empty one, as an unset variable of a shell gives, is refused."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty: give the name of a file")
    return text


def positive(text: str) -> float:
    """For argparse: a finite number above 0."""
    return _number(text, lambda value: 0 < value < math.inf, "a number above 0")


def fraction(text: str) -> float:
    """For argparse: a number in [0, 1]."""
    return _number(text, lambda value: 0 <= value <= 1, "a number in [0, 1]")


def _number(text, is_legal, legal):
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not is_legal(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {legal}")
    return value
