"""Write docs/api.md from the signatures and docstrings of the package: python docs/write_api.py

A test compares the page with what this would write.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import mutual3d
from mutual3d.data.video.reader import VideoError
from mutual3d.models.adaptive import NotCalibratedError
from mutual3d.table.query_table import BudgetTooSmall, Row

PAGE = Path(__file__).with_name("api.md")
# What the public names give or raise, and is caught or read by name.
OTHERS = (Row, BudgetTooSmall, VideoError, NotCalibratedError)
HEAD = """# The names of `mutual3d`

Written by `docs/write_api.py` from the code. `help(mutual3d.NAME)` says more: shapes, units, arguments and errors. Nothing is imported
before it is used, so that `import mutual3d` takes no time; editors and type checkers see every name and type.

```python
import mutual3d

model = mutual3d.load("demo/out/adaptive.pyth")
row = model.set_budget(gflops=0.01)
print(row.configuration, model.table.accuracy(row))
found = model.predict("demo/data/test/*.mp4")
print(found[0].top(3), found.bad)
```
"""


def sentence(docstring: str | None, name: str) -> str:
    """The first sentence of a docstring; ValueError where there is none."""
    if not docstring:
        raise ValueError(f"{name} has no docstring: write one")
    paragraph = " ".join(inspect.cleandoc(docstring).split("\n\n")[0].split())
    return re.match(r".*?\.(?= |$)|.*", paragraph)[0]


def shown(annotation: ast.expr | None) -> str:
    """An annotation as it would stand without the quotes of a name that is defined later."""
    return "" if annotation is None else ast.unparse(annotation).replace("'", "")


def arguments_of(function: ast.FunctionDef, skip: int) -> str:
    """The arguments of a function as they are written, without the first `skip`."""
    own = function.args
    parts, positional = [], [*own.posonlyargs, *own.args]
    defaults = [None] * (len(positional) - len(own.defaults)) + [ast.unparse(value) for value in own.defaults]
    pairs = list(zip(positional, defaults))[skip:]
    stars = [("*", None)] if own.kwonlyargs and own.vararg is None else []
    keywords = [(argument, value and ast.unparse(value)) for argument, value in zip(own.kwonlyargs, own.kw_defaults)]
    for argument, default in [*pairs, *stars, *keywords]:
        if isinstance(argument, str):
            parts.append(argument)
        else:
            annotation = shown(argument.annotation)
            typed = f"{argument.arg}: {annotation}" if annotation else argument.arg
            parts.append(typed if default is None else f"{typed} = {default}" if annotation else f"{typed}={default}")
    return ", ".join(parts)


def signature(function: ast.FunctionDef, name: str, skip: int = 0) -> str:
    returns = shown(function.returns)
    return f"{name}({arguments_of(function, skip)}){f' -> {returns}' if returns else ''}"


def node_of(thing: object) -> ast.stmt:
    """The syntax tree of a class or function."""
    return ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]


def constructor(node: ast.ClassDef) -> str:
    """What making an object takes: the arguments of __init__, or the fields of a dataclass or named tuple."""
    for child in node.body:
        if isinstance(child, ast.FunctionDef) and child.name == "__init__":
            return arguments_of(child, 1)
    fields = [child for child in node.body if isinstance(child, ast.AnnAssign)]
    return ", ".join(
        f"{child.target.id}: {shown(child.annotation)}" + (f" = {ast.unparse(child.value)}" if child.value else "") for child in fields
    )


def members(node: ast.ClassDef) -> Iterator[str]:
    """A line for each public method and property of a class, and for calling its objects."""
    for child in node.body:
        if not isinstance(child, ast.FunctionDef) or child.name.startswith("_"):
            continue
        words = sentence(ast.get_docstring(child), f"{node.name}.{child.name}")
        decorators = {decorator.id for decorator in child.decorator_list if isinstance(decorator, ast.Name)}
        if "property" in decorators:
            text = f".{child.name}: {shown(child.returns)}"
        elif "classmethod" in decorators:
            text = signature(child, f"{node.name}.{child.name}", 1)
        else:
            text = signature(child, "model" if child.name == "forward" else f".{child.name}", 1)
        yield f"- `{text}`  \n  {words}"


def describe(thing: object, name: str) -> Iterator[str]:
    node = node_of(thing)
    words = sentence(ast.get_docstring(node), name)
    if isinstance(node, ast.ClassDef):
        is_error = issubclass(thing, Exception)
        yield f"\n### {name}\n\n```text\n{name}{'' if is_error else f'({constructor(node)})'}\n```\n\n{words}\n"
        yield from ([] if is_error else members(node))
    else:
        yield f"\n### {name}\n\n```text\n{signature(node, name)}\n```\n\n{words}"


def page() -> str:
    """The whole page."""
    lines = [HEAD, "## At the top"]
    for name in mutual3d.__all__:
        if name != "__version__":
            lines += describe(getattr(mutual3d, name), f"mutual3d.{name}")
    lines += ["\n### mutual3d.__version__\n\nThe version that is installed, as text.", "\n## What these give and raise"]
    for thing in OTHERS:
        lines += describe(thing, f"{thing.__module__}.{thing.__qualname__}")
    return "\n".join(line.rstrip("\n") if line != HEAD else line for line in lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"written: {PAGE}")
