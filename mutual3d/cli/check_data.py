"""Find what is wrong with a data set before training does.

    mutual3d check-data --csv train.csv --output bad.csv
    mutual3d check-data --csv train.csv --format charades --num-classes 157 --path-prefix frames
    mutual3d check-data --csv ssv2/train.csv --format ssv2 --path-prefix frames
    mutual3d check-data --csv frame_lists/val.csv --format ava --path-prefix frames \\
        --ground-truth ava_val_v2.2.csv --detected ava_val_predicted_boxes.csv

The formats are the words of TRAIN.DATASET; of images, --csv names the folder and the split, as in /data/imagenet/train.
It prints each bad file or row with its cause and a summary. Exit status: 0 when all is well, 1 when some videos are not
readable or some rows of annotations are wrong, 2 when the list itself is wrong. Files are decoded in processes of
their own: one that crashes its decoder, or that no decoder ends with, is bad, and the others are checked all the same.
"""

import argparse
import contextlib
import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mutual3d.data.datasets.check import CheckOptions, ListToCheck, SetCheck
from mutual3d.data.datasets.kinetics import write_table
from mutual3d.data.datasets.lists import user_path
from mutual3d.data.sources import SOURCES
from mutual3d.data.video.decode import CHOICES
from mutual3d.data.workers.pool import WorkerError
from mutual3d.utils.command_line import check_output_argument, command_parser, path_argument, print_error
from mutual3d.utils.text import printable

# What a list is taken for that looks like nobody's.
_PLAIN = "kinetics"


def known_checks() -> dict[str, SetCheck]:
    """How the registered data sets are checked, by their words."""
    return {word: source.check_files for word, source in SOURCES.items() if source.check_files}


@dataclass(frozen=True)
class CheckArguments:
    """format: the word of a data set, None to guess. own: {word: {flag: value}} of the flags that a set alone has."""

    format: str | None
    given: ListToCheck
    how: CheckOptions
    own: Mapping[str, Mapping[str, object]]
    output: str | None


def parse_arguments(arguments: Sequence[str] | None = None) -> CheckArguments:
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--extend", action="append", default=[], type=path_argument)
    for path in first.parse_known_args(arguments)[0].extend:
        from mutual3d.pipeline.extend import import_extension  # it brings all of the pipeline, which is seldom needed here

        import_extension(path)
    checks = known_checks()
    parser = command_parser("check-data", __doc__)
    parser.add_argument("--csv", required=True, type=path_argument, help="list of videos, or of their frames")
    parser.add_argument(
        "--format", choices=sorted(checks), metavar="SET", help="whose form the list has; default: what it looks like"
    )
    parser.add_argument("--path-prefix", type=path_argument, help="folder of the relative paths; default: the csv's own folder")
    parser.add_argument("--separator", default=" ", help="what separates path and label; default: a space")
    parser.add_argument("--num-classes", type=_whole_from(1), help="check that labels are below this number")
    parser.add_argument("--backend", default="pyav", choices=CHOICES, help="decoder")
    parser.add_argument("--full", action="store_true", help="decode every frame, not only first, middle and last")
    parser.add_argument("--extend", action="append", metavar="FILE", help="a Python file that registers a data set")
    parser.add_argument(
        "--output", type=path_argument,
        help="write what is wrong to this csv (index, path, cause; AVA: place, cause); an apostrophe stands before what a "
        "spreadsheet would take for a formula",
    )
    parser.add_argument(
        "--num-workers", type=_whole_from(0), default=1,
        help="decoding processes beside this one; 0 decodes in this one, which a crash of the decoder ends; default: 1",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=_number_from(0), default=300,
        help="seconds for one video (AVA: one image) until it counts as bad; 0 waits for ever; default: %(default)s",
    )  # fmt: skip
    for word, check in checks.items():
        group = parser.add_argument_group(word)
        for flag in check.flags:
            many: dict[str, Any] = {"nargs": "*"} if flag.many else {}
            group.add_argument(
                f"--{flag.name}", dest=f"{word} {flag.name}", type=flag.kind, default=flag.default, help=flag.help,
                metavar=flag.name.rpartition("-")[2].upper(), **many,
            )  # fmt: skip
    parsed = parser.parse_args(arguments)
    own = {word: {flag.name: getattr(parsed, f"{word} {flag.name}") for flag in check.flags} for word, check in checks.items()}
    check_output_argument(parser, "--output", parsed.output, [parsed.csv, *_files_of(own)])
    return CheckArguments(
        parsed.format,
        ListToCheck(parsed.csv, parsed.path_prefix or "", parsed.separator, parsed.num_classes),
        CheckOptions(parsed.full, parsed.num_workers, parsed.timeout, parsed.backend),
        own,
        parsed.output,
    )


def _files_of(own: Mapping[str, Mapping[str, object]]) -> list[str]:
    """The files that a set's own flags name."""
    values = [value for flags in own.values() for value in flags.values()]
    return [text for value in values for text in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(text, str)]


def _whole_from(low: int) -> Callable[[str], int]:
    """A type of argument: a whole number, `low` or more."""

    def whole(text: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", text) or int(text) < low:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, {low} or more")
        return int(text)

    return whole


def _number_from(low: float, above: bool = False) -> Callable[[str], float]:
    """A type of argument: a finite number, `low` or more; with `above` more than `low`."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (low < value if above else low <= value) or value == math.inf:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number {'above' if above else 'of at least'} {low}")
        return value

    return number


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        args = parse_arguments(arguments)
        check_output(args.output)
        return check_set(args, args.format or guess_format(args))
    except (OSError, ValueError, ImportError, WorkerError) as error:
        print_error(error)
        return 2


def check_output(path: str | None) -> None:
    """OSError, before the hours of checking, where the csv could not be written at their end."""
    if path is not None and Path(path).is_dir():
        raise IsADirectoryError(f"--output '{path}' is a folder: name a csv file in it")
    if path is not None and not Path(path).absolute().parent.is_dir():
        raise FileNotFoundError(f"--output '{path}': there is no folder '{Path(path).parent}'; create it, or name another one")


def guess_format(args: CheckArguments) -> str:
    """The set of which a flag is given, else the one whose lists look most like this one."""
    checks = known_checks()
    for word, check in checks.items():
        if any(args.own[word][flag.name] and args.own[word][flag.name] != flag.default for flag in check.flags):
            return word
    if not user_path(args.given.csv).is_file():
        return _PLAIN  # whose reader says what is missing; opening a pipe would wait for ever
    sureness = {word: check.fits(args.given.csv) for word, check in checks.items()}
    best = max(sureness, key=lambda word: sureness[word])
    return best if sureness[best] else _PLAIN


def check_set(args: CheckArguments, word: str) -> int:
    """Tell what is wrong with the list of a set; 1 where something is, else 0."""
    checked = known_checks()[word].check(dataclasses.replace(args.given, own=args.own[word]), args.how)
    problems: list[Sequence[object]] = []
    with table_of(args.output, checked.columns, problems):
        for found in checked.findings:
            if found is not None:
                problems.append(found)
                tell(str(found[-2]), str(found[-1]))
    print(checked.summary.format(len(problems)))
    return 1 if problems else 0


@contextlib.contextmanager
def table_of(output: str | None, header: Sequence[str], rows: Iterable[Sequence]) -> Iterator[None]:
    """Write a csv of `rows` at the end of the block, of what there is of them when it is interrupted too."""
    try:
        yield
    finally:
        if output:
            write_table(output, header, rows)


def tell(place: str, cause: str) -> None:
    tqdm.write(printable(f"{place}: {cause}"))
