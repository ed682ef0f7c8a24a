"""What a reader is told: public names have docstrings, and parameters are explained by their types or by name.

`python tests/test_docstrings.py` prints the shares and what is missing, by file.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parents[1] / "mutual3d"
# Types that say nothing of what a value means: a number without a unit, a text without a form.
PLAIN = {"str", "int", "float", "bool", "object", "Any", "list", "tuple", "dict", "set", "None", "Sequence", "Iterable",
         "Mapping", "Callable", "Iterator"}  # fmt: skip
# Names that mean the same everywhere.
USUAL = {"path", "arguments", "cfg", "cls", "name", "names", "value", "error", "x", "seed", "paths", "text", "epoch", "num_classes", "step"}


# What the shares were when this was written, less what one new file moves.
DOCUMENTED, EXPLAINED = 0.93, 0.77


class Name(NamedTuple):
    """A public function, method or class: where it stands, whether it has a docstring, parameters that nothing explains."""

    place: str
    has_docstring: bool
    parameters: int
    unexplained: tuple[str, ...]


def words_of(annotation: ast.expr | None) -> set[str]:
    return set(re.findall(r"[A-Za-z_]+", ast.unparse(annotation))) if annotation is not None else set()


def names_of(path: Path) -> Iterator[Name]:
    """The public names of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    yield from _names(tree, str(path.relative_to(PACKAGE)), "")


def _names(node, place, told):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            own = ast.get_docstring(child) or ""
            yield Name(f"{place} {child.name}", bool(own), 0, ())
            yield from _names(child, f"{place} {child.name}.", own)
        elif isinstance(child, ast.FunctionDef) and (not child.name.startswith("_") or child.name == "__init__"):
            yield _function(child, place, told)
        elif isinstance(child, (ast.If, ast.Try, ast.With)):
            yield from _names(child, place, told)


def _function(function, place, told):
    own = ast.get_docstring(function) or ""
    arguments = function.args
    parameters = [part for part in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs) if part.arg not in ("self", "cls")]
    explained = {word for text in (own, told) for word in re.findall(r"\w+", text)}
    unexplained = [
        part.arg for part in parameters
        if part.arg not in explained and part.arg not in USUAL and words_of(part.annotation) <= PLAIN
    ]  # fmt: skip
    has_docstring = bool(own) or function.name == "__init__"
    separator = "" if place.endswith(".") else " "
    return Name(f"{place}{separator}{function.name}", has_docstring, len(parameters), tuple(unexplained))


def all_names() -> list[Name]:
    """Every public name of the package; a method without a docstring has that of the one that it overrides."""
    files = sorted(PACKAGE.rglob("*.py"))
    names = [name for path in files for name in names_of(path)]
    classes = {
        node.name: node
        for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ClassDef)
    }  # fmt: skip
    bases = {name: [ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases] for name, node in classes.items()}
    texts = {
        (name, method.name): ast.get_docstring(method) or ""
        for name, node in classes.items() for method in node.body if isinstance(method, ast.FunctionDef)
    }  # fmt: skip
    told = {tuple(name.place.split(" ")[-1].split(".")[-2:]) for name in names if name.has_docstring}

    def inherits(owner, method):
        return (owner, method) in told or any(inherits(base, method) for base in bases.get(owner, ()))

    def text_above(owner, method):
        """The docstrings of the nearest methods above that have one."""
        above = [texts.get((base, method)) or text_above(base, method) for base in bases.get(owner, ())]
        return " ".join(above)

    def completed(name):
        owner, _, method = name.place.split(" ")[-1].rpartition(".")
        key = (owner.split(".")[-1], method)
        told_above = () if texts.get(key) else re.findall(r"\w+", text_above(*key))
        unexplained = tuple(part for part in name.unexplained if part not in told_above)
        return name._replace(has_docstring=name.has_docstring or _inherited(name, inherits), unexplained=unexplained)

    return [completed(name) for name in names]


def _inherited(name, inherits):
    owner, _, method = name.place.split(" ")[-1].rpartition(".")
    # What torch calls: the class says what a module takes and gives.
    return bool(owner) and (method in ("forward", "extra_repr") or inherits(owner.split(".")[-1], method))


def shares(names: list[Name]) -> tuple[float, float]:
    """Of the names the share with a docstring, of their parameters the share that is explained."""
    parameters = sum(name.parameters for name in names)
    explained = parameters - sum(len(name.unexplained) for name in names)
    return sum(name.has_docstring for name in names) / len(names), explained / parameters


def report() -> None:
    names = all_names()
    for name in names:
        missing = ([] if name.has_docstring else ["no docstring"]) + [f"unexplained: {', '.join(name.unexplained)}"] * bool(name.unexplained)
        if missing:
            print(f"{name.place}: {'; '.join(missing)}")
    documented, explained = shares(names)
    print(f"{len(names)} public names, {documented:.1%} with a docstring; {explained:.1%} of their parameters are explained")


def test_the_shares_do_not_fall():
    documented, explained = shares(all_names())
    assert documented >= DOCUMENTED and explained >= EXPLAINED, "python tests/test_docstrings.py lists what is missing"


# Where every public name has a docstring, and every parameter is explained.
COMPLETE = (
    "__init__.py", "cli/", "config/", "data/", "evaluation/", "layers/", "metrics/", "models/", "pipeline/recipe.py", "pipeline/survey.py",
    "sampling/", "training/", "utils/",
)  # fmt: skip


def test_complete_rooms_stay_complete():
    wrong = [name for name in all_names() if name.place.startswith(COMPLETE) and not (name.has_docstring and not name.unexplained)]
    assert not [name for name in wrong if not name.place.startswith("cli/check_data.py")]


def test_what_is_missing_is_seen():
    tree = ast.parse('class A:\n    """Of b."""\n    def c(self, b: int, d: float, e: Path): ...\n    def _f(self): ...')
    found = list(_names(tree, "a.py", ""))
    assert found == [Name("a.py A", True, 0, ()), Name("a.py A.c", False, 3, ("d",))]


if __name__ == "__main__":
    sys.exit(report())
