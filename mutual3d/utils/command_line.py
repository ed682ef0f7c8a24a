"""What the command lines share: mistakes of the user end in one clear line instead of a traceback."""

import argparse
import difflib
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from mutual3d.utils.stopping import REQUEUE_STATUS, StopRequestedError
from mutual3d.utils.streams import forgiving_streams
from mutual3d.utils.text import printable

T = TypeVar("T")


def run_command(main: Callable[..., int | None]) -> None:
    """Exit with what `main()` returns; errors that explain themselves are printed without a traceback, status 1.

    What is printed never ends it: see `forgiving_streams`.
    """
    with forgiving_streams():
        sys.exit(_status(main))


def _status(main: Callable[..., int | None]) -> int | None:
    try:
        return main()
    except StopRequestedError as stop:
        print(f"stopped ({stop}) with status {REQUEUE_STATUS}; the same command goes on from what is saved", file=sys.stderr)
        return REQUEUE_STATUS
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


class CommandParser(argparse.ArgumentParser):
    """A parser whose mistakes are one sentence, status 2, and that names the nearest option for one that there is not."""

    _words: Sequence[str] = ()

    def parse_known_args(  # type: ignore[override]  # argparse's has overloads, for other kinds of namespace
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's, of `args`; a required option that was mistyped is told as that."""
        self._words = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(args, namespace)

    def _is_option(self, word: str) -> bool:
        """Whether argparse takes the word for one of its options, which may be cut short."""
        name = word.partition("=")[0]
        return any(option.startswith(name) for action in self._actions for option in action.option_strings)

    def error(self, message: str) -> NoReturn:
        """End the program, status 2, with `message` in one line."""
        start, is_unknown, word = message.partition("unrecognized arguments: ")
        if is_unknown and not start:
            self.refuse_options(word.split()[:1])
        if message.startswith("the following arguments are required"):
            self.refuse_options([word for word in self._words if not self._is_option(word)])
        print_error(f"{message} ({self.prog} --help tells every option)")
        sys.exit(2)

    def refuse_options(self, words: Sequence[str]) -> None:
        """End the program where one of the words that were not understood is an option."""
        for word in words:
            if word.startswith("--"):
                options = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
                nearest = difflib.get_close_matches(word.partition("=")[0][:100], options, n=1, cutoff=0.5)
                self.error(f"there is no option {word}{f': did you mean {nearest[0]}?' if nearest else ''}")


def command_parser(name: str, page: str | None) -> CommandParser:
    """The parser of the subcommand `mutual3d NAME`, whose help shows `page` as it is written."""
    return CommandParser(
        prog=f"mutual3d {name}", description=page, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def parse_with_settings(
    parser: CommandParser, arguments: Sequence[str] | None = None
) -> tuple[argparse.Namespace, list[str]]:
    """Read the options of `parser`, and the `KEY VALUE` words that stand among them or follow --opts: (options, words).

    An option that there is not ends the program, status 2, with the nearest.
    """
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE",
                        help="settings that replace the config's; the word --opts may be left out")  # fmt: skip
    parsed, bare = parser.parse_known_args(arguments)
    parser.refuse_options(bare)
    return parsed, [*bare, *parsed.opts]


def explained(read: Callable[[str], T]) -> Callable[[str], T]:
    """The type of an argument that `read` turns into a value, and whose ValueError is told as it is."""

    def typed(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return typed


def path_argument(text: str) -> str:
    """The type of an argument that names a file or a folder: `~` is the home folder; an empty name is refused."""
    if not text.strip() or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a file or folder")
    return os.path.expanduser(text)


def count_argument(text: str) -> int:
    """The type of an argument that counts something: a whole number, 1 or more."""
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 1 or more")
    return int(text)


def check_output_argument(parser: argparse.ArgumentParser, option: str, output: str | None, inputs: list[str | None]) -> None:
    """End the program, status 2, where an output file would replace one of its inputs.

    option: the name of the output's option, for the message.
    """
    if output is not None and Path(output).resolve() in {Path(path).resolve() for path in inputs if path}:
        parser.error(f"{option} is '{output}', which is read: it would be replaced; name another file")


def positive_argument(text: str) -> float:
    """The type of an argument that is a finite number above 0."""
    return _number(text, lambda value: 0 < value < math.inf, "a number above 0")


def fraction_argument(text: str) -> float:
    """The type of an argument that is a number in [0, 1]."""
    return _number(text, lambda value: 0 <= value <= 1, "a number in [0, 1]")


def _number(text: str, is_legal: Callable[[float], bool], legal: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not is_legal(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {legal}")
    return value
