"""What docstrings, comments, messages and pages say of files: those that are named are in the repository."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest
from tiny import ROOT

FOLDERS = ("mutual3d", "tools", "datasets", "benchmarks", "configs", "tests", "docs")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
TEXTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("Makefile"), *(p for f in FOLDERS for e in ("md", "yaml") for p in (ROOT / f).rglob(f"*.{e}"))])
# Documents, code and settings; data files have the names that data sets give them.
NAMED = re.compile(r"(?<![\w/{}-])[\w./*-]*\w\.(?:md|py|yaml|rst|ipynb)\b")
# What commands write, in any folder.
WRITTEN = ("config.yaml", "hold_deadline.py")
# Papers' supplements, design notes and the like, which lie elsewhere.
ELSEWHERE = re.compile(r"\b(?:FACTS|DESIGN)\b|(?<![\w.])shared/")


def comments_of(source):
    """Docstrings and comments of a Python source."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield ast.get_docstring(node) or ""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    yield from (token.string for token in tokens if token.type == tokenize.COMMENT)


def messages_of(source):
    """Strings of a Python source that name a page, as in `see datasets/AVA.md`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"(?<![\w/])(?:datasets|docs)/[\w/]+\.md\b|(?<![\w/])(?:tools|datasets)/\w+\.py\b", node.value)


def is_in_repository(name, beside):
    """Whether a file of this name is there: from the root, beside the text that names it, or, without a folder, anywhere."""
    if name.rpartition("/")[2] in WRITTEN:
        return True
    name = name.replace("...", "*")
    folders = [ROOT, beside] if "/" in name else [ROOT, beside, *(ROOT / folder for folder in FOLDERS)]
    return any(any(folder.glob(name)) or "/" not in name and any(folder.rglob(name)) for folder in folders if folder.is_dir())


def wrong_names(text, beside):
    return [name for name in NAMED.findall(text) if not is_in_repository(name, beside)] + ELSEWHERE.findall(text)


def test_what_is_not_here_is_found():
    texts = "see FACTS section 4", "(DESIGN: rule 9)", "as in shared/data/x", "the page datasets/GONE.md", "run gone.py"
    assert [len(wrong_names(text, ROOT)) for text in texts] == [1] * 5
    assert not wrong_names("datasets/AVA.md, AVA.md, configs/Methods/*.yaml, tools/run_net.py --cfg a/b.csv", ROOT)
    assert list(comments_of('"""A."""\n# B\nx = 1\n\n\ndef f():\n    """C."""\n')) == ["A.", "C.", "# B"]
    assert list(messages_of('raise ValueError("see datasets/AVA.md")')) == ["datasets/AVA.md"]


@pytest.mark.parametrize("folder", ("mutual3d", "tools", "datasets", "benchmarks", "tests"))
def test_docstrings_comments_and_messages_name_files_of_the_repository(folder):
    wrong = []
    for path in (path for path in SOURCES if path.is_relative_to(ROOT / folder) and path != Path(__file__)):
        source = path.read_text()
        names = [name for text in comments_of(source) for name in wrong_names(text, path.parent)]
        if folder != "tests":
            names += [name for name in messages_of(source) if not is_in_repository(name, path.parent)]
        wrong += [f"{path.relative_to(ROOT)}: {name}" for name in names]
    assert not wrong


def test_pages_and_settings_name_files_of_the_repository():
    wrong = []
    for path in TEXTS:
        text = path.read_text()
        text = text if path.suffix != ".yaml" else "\n".join(re.findall(r"#.*", text))
        # A page of an extension shows the whole of the file that it names.
        shown = re.findall(r'^"""(\w+\.py):', text, re.MULTILINE)
        wrong += [f"{path.relative_to(ROOT)}: {name}" for name in wrong_names(text, path.parent) if name not in shown]
    assert not wrong


@pytest.mark.parametrize("path", sorted((ROOT / "mutual3d").rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_package_names_its_command_and_not_the_doors_of_a_clone(path):
    """Whoever installed the wheel has `mutual3d run`, and no tools/run_net.py."""
    assert not re.search(r"tools/\w+\.py|\brun_net\.py", path.read_text(encoding="utf-8"))
