"""Whoever imports the package is told the type of every public argument and result."""

import ast
from pathlib import Path

import mutual3d

PACKAGE = Path(mutual3d.__file__).parent


def is_public(name):
    return not name.startswith("_") or name.startswith("__")


def public_functions(node, in_class=False):
    """(function, whether it is a method) of a module or class, without what stands inside functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from public_functions(child, in_class=True) if is_public(child.name) else ()
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            if is_public(child.name):
                yield child, in_class
        else:
            yield from public_functions(child, in_class)


def untyped_parts(function, in_class):
    is_static = any(isinstance(decorator, ast.Name) and decorator.id == "staticmethod" for decorator in function.decorator_list)
    own = function.args
    positional = [*own.posonlyargs, *own.args][1 if in_class and not is_static else 0 :]
    found = [part.arg for part in (*positional, *own.kwonlyargs, own.vararg, own.kwarg) if part and part.annotation is None]
    return found if function.returns else [*found, "return"]


def test_every_public_argument_and_result_has_a_type():
    untyped = [
        f"{path.relative_to(PACKAGE)}:{function.lineno} {function.name}: {part}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for function, in_class in public_functions(ast.parse(path.read_text(encoding="utf-8")))
        for part in untyped_parts(function, in_class)
    ]
    assert not untyped, "\n".join(untyped)
    assert (PACKAGE / "py.typed").is_file()


def test_an_untyped_argument_is_seen():
    module = ast.parse("class A:\n    def b(self, c, *, d: int = 1): ...\ndef _e(f): ...")
    assert [untyped_parts(*found) for found in public_functions(module)] == [["c", "return"]]
