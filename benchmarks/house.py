"""How the code is built, in figures: lines, functions, types, docstrings, named parameters, of each room and of all.

python benchmarks/house.py                       # this checkout: writes benchmarks/results/house.csv
python benchmarks/house.py --tree /tmp/earlier   # another one, such as what `git archive REVISION | tar -x -C /tmp/earlier` left

Of the product: mutual3d/ and tools/. Typed: of the arguments (without self and cls) and returns of public functions. Named: of
the public functions with a docstring and two or more arguments, the share of arguments whose name stands in the docstring.
"""

import argparse
import ast
import re
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from common import ROOT, save_rows

FOLDERS = ("mutual3d", "tools")


class Function(NamedTuple):
    """lines: of the whole definition. is_public: neither it nor what it stands in has a name with an underscore before it."""

    name: str
    lines: int
    is_public: bool
    has_docstring: bool
    arguments: int
    typed_arguments: int
    named_arguments: int
    has_typed_return: bool


def functions_of(node: ast.AST, is_public: bool = True, prefix: str = "", in_function: bool = False) -> Iterator[Function]:
    """Every function and method below a node; those within functions are not public."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            found = describe(child, is_public and not in_function, prefix)
            yield found
            yield from functions_of(child, False, f"{prefix}{child.name}.", True)
        elif isinstance(child, ast.ClassDef):
            yield from functions_of(child, is_public and not child.name.startswith("_"), f"{prefix}{child.name}.", in_function)
        else:
            yield from functions_of(child, is_public, prefix, in_function)


def describe(node: ast.FunctionDef | ast.AsyncFunctionDef, is_public: bool, prefix: str) -> Function:
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
    arguments = [argument for argument in every if argument is not None and argument.arg not in ("self", "cls")]
    page = ast.get_docstring(node) or ""
    return Function(
        name=f"{prefix}{node.name}",
        lines=(node.end_lineno or node.lineno) - node.lineno + 1,
        is_public=is_public and (not node.name.startswith("_") or node.name == "__init__"),
        has_docstring=bool(page),
        arguments=len(arguments),
        typed_arguments=sum(argument.annotation is not None for argument in arguments),
        named_arguments=sum(bool(re.search(rf"\b{argument.arg}\b", page)) for argument in arguments),
        has_typed_return=node.returns is not None,
    )


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f}" if whole else ""


def row_of(room: str, lines: int, functions: list[Function]) -> dict[str, object]:
    public = [function for function in functions if function.is_public]
    told = [function for function in public if function.has_docstring and function.arguments > 1]
    longest = max(functions, key=lambda function: function.lines, default=None)
    arguments = sum(function.arguments for function in public)
    private = [function for function in functions if not function.is_public]
    private_hints = sum(function.typed_arguments + function.has_typed_return for function in private)
    return {
        "room": room, "lines": lines, "functions": len(functions),
        "median_lines": statistics.median(function.lines for function in functions) if functions else "",
        "longest_lines": longest.lines if longest else "", "longest": longest.name if longest else "",
        "typed_arguments_percent": share(sum(function.typed_arguments for function in public), arguments),
        "typed_returns_percent": share(sum(function.has_typed_return for function in public), len(public)),
        "private_typed_percent": share(private_hints, sum(function.arguments + 1 for function in private)),
        "docstrings_percent": share(sum(function.has_docstring for function in public if not function.name.endswith("__init__")),
                                    sum(not function.name.endswith("__init__") for function in public)),
        "named_arguments_percent": share(sum(f.named_arguments for f in told), sum(f.arguments for f in told)),
        "more_than_8_arguments": sum(function.arguments > 8 for function in public),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, default=ROOT, help="a checkout; default: this one")
    parser.add_argument("--name", default="house", help="of the csv in benchmarks/results (default: house)")
    options = parser.parse_args()
    lines: dict[str, int] = defaultdict(int)
    functions: dict[str, list[Function]] = defaultdict(list)
    for path in sorted(path for folder in FOLDERS for path in (options.tree / folder).rglob("*.py")):
        parts = path.relative_to(options.tree).parts
        room = "/".join(parts[:2]) if len(parts) > 2 else parts[0]
        text = path.read_text(encoding="utf-8")
        for place in (room, "all"):
            lines[place] += len(text.splitlines())
            functions[place] += functions_of(ast.parse(text))
    save_rows(options.name, [row_of(room, lines[room], functions[room]) for room in sorted(lines, key=lambda room: (room == "all", room))])


if __name__ == "__main__":
    main()
