"""Benchmarks and the scripts of datasets/ import the package, and what lies beside them, and nothing by a path of their own."""

import ast
import importlib.util
from importlib.machinery import PathFinder

import pytest
from tiny import ROOT

# What a benchmark compares with or runs on where it is there; nothing of mutual3d needs it.
OTHERS = {"ray", "spdl", "torchcodec"}
SCRIPTS = sorted(path for folder in ("benchmarks", "datasets", "tools") for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_script_imports_is_installed_or_lies_beside_it(path):
    tree = ast.parse(path.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0}
    beside = [str(ROOT / path.relative_to(ROOT).parts[0])]
    for name in {name.partition(".")[0] for name in names} - OTHERS:
        assert PathFinder.find_spec(name, beside) or importlib.util.find_spec(name), name
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.path"]
