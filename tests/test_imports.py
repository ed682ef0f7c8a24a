"""Who may import whom, read from the source: the borders that keep every folder usable without the ones above it."""

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mutual3d"

# Folders of mutual3d that a folder may import beside itself; "" is mutual3d/__init__.py.
_FLOOR_1 = {"layers", "sampling", "utils"}
MAY_IMPORT = {
    "": {"cli", "deploy", "pipeline", "sampling", "table"},
    "cli": {
        "", "pipeline", "deploy", "training", "report", "evaluation", "models", "data", "table", "cost", "metrics", "config",
        *_FLOOR_1,
    },
    "pipeline": {
        "deploy", "tasks", "training", "report", "evaluation", "models", "data", "table", "cost", "metrics", "config", *_FLOOR_1
    },
    "deploy": {"evaluation", "table", "report", "models", "data", "cost", "sampling", "utils"},
    "tasks": {"training", "evaluation", "models", "data", "metrics", *_FLOOR_1},
    "training": {"evaluation", "table", "metrics", *_FLOOR_1},
    "report": {"table", "cost", "metrics", "utils"},
    "evaluation": {"table", "metrics", "cost", *_FLOOR_1},
    "models": _FLOOR_1,
    "data": _FLOOR_1,
    "table": {"cost", *_FLOOR_1},
    "cost": _FLOOR_1,
    "metrics": _FLOOR_1,
    "layers": set(),
    "sampling": set(),
    "config": set(),
    "utils": set(),
}
# Beside the commands: what loads a config and hands it on, without reading it.
HANDS_ON = (
    PACKAGE / "__init__.py", PACKAGE / "models" / "registry.py", PACKAGE / "pipeline" / "named_models.py",
    PACKAGE / "pipeline" / "__init__.py",
)  # fmt: skip
TORCH_ONLY = ("layers", "sampling")
COMMAND_LINES = ("tools", "benchmarks", "examples")


def imported_modules(source, package):
    """Full names of the modules, or names in modules, that a file imports. package: the dotted one that it lies in."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names |= {f"{origin}.{alias.name}" for alias in node.names}
    return names


def imported_folders(source, package):
    """Folders of mutual3d that a file imports; what is taken from mutual3d itself counts by its own name."""
    modules = (name.split(".") for name in imported_modules(source, package))
    return {parts[1] if len(parts) > 1 else "" for parts in modules if parts[0] == "mutual3d"}


def files_of(folder):
    return sorted(PACKAGE.glob("*.py") if folder == "" else (PACKAGE / folder).rglob("*.py"))


def package_of(path):
    return ".".join(path.parent.relative_to(ROOT).parts)


def reads_config(path):
    """Whether a file may see a CfgNode."""
    folders = ("config", "pipeline", "data/sources")
    is_source = path.name == "source.py" and path.is_relative_to(PACKAGE / "tasks")
    return path.name == "build.py" or is_source or any(path.is_relative_to(PACKAGE / folder) for folder in folders)


def identifiers(source):
    fields = {
        ast.Name: "id", ast.Attribute: "attr", ast.arg: "arg", ast.keyword: "arg", ast.alias: "name",
        ast.FunctionDef: "name", ast.ClassDef: "name",
    }  # fmt: skip
    return {getattr(node, fields[type(node)]) for node in ast.walk(ast.parse(source)) if type(node) in fields}


def keys_read(source):
    """What a file takes out of a config: `OUTPUT_DIR` of `cfg.OUTPUT_DIR`."""
    nodes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute))
    of_config = [node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == "cfg"]
    return sorted(name for name in of_config if name.isupper())


def without_registered_functions(source):
    """A network's file without the functions that `register_network` decorates, and without the type of their argument.

    A network says itself how its arguments follow from a config: in that one function, which the rest of its file, the
    builder and the parts, cannot reach a config through.
    """
    tree = ast.parse(source)
    registered = [node for node in tree.body if isinstance(node, ast.FunctionDef) and any(map(_registers, node.decorator_list))]
    of_type = [node for node in tree.body if registered and ast.unparse(node) == "from fvcore.common.config import CfgNode"]
    tree.body = [node for node in tree.body if node not in registered and node not in of_type]
    return ast.unparse(tree)


def _registers(decorator):
    return isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name) and decorator.func.id == "register_network"


def test_a_registered_function_alone_may_read_a_config():
    registered = "from fvcore.common.config import CfgNode\n@register_network('a')\ndef a(cfg: CfgNode): return cfg.MODEL.ARCH\n"
    assert not identifiers(without_registered_functions(registered)) & {"cfg", "CfgNode"}
    for more in ("def build(cfg): pass", "@register('a')\ndef b(cfg): pass", "x = a(CfgNode())"):
        assert identifiers(without_registered_functions(registered + more)) & {"cfg", "CfgNode"}


def test_keys_that_are_read_are_found():
    assert keys_read("x = cfg.DATA.MEAN; options.cfg; load(cfg)") == ["DATA"]


@pytest.mark.parametrize(
    "source, folders",
    [
        ("import torch, mutual3d.data.loader", {"data"}),
        ("from mutual3d.training import Trainer", {"training"}),
        ("from mutual3d import config", {"config"}),
        ("from . import norm", {"layers"}),
        ("from .norm import BNStatistics", {"layers"}),
        ("from .. import utils", {"utils"}),
        ("from ..models.x3d import build_x3d", {"models"}),
        ("import mutual3d", {""}),
        ("def late():\n    from mutual3d.deploy import AdaptiveModel", {"deploy"}),
        ("text = 'import mutual3d.data'", set()),
    ],
)
def test_reader_finds_every_form_of_import(source, folders):
    assert imported_folders(source, "mutual3d.layers") == folders


def test_every_folder_is_in_the_table():
    folders = {path.name for path in PACKAGE.iterdir() if any(path.glob("*.py"))}
    assert folders == set(MAY_IMPORT) - {""}


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_folder_imports_what_the_table_allows(folder):
    files = files_of(folder)
    assert files
    for path in files:
        others = imported_folders(path.read_text(), package_of(path)) - {folder}
        assert others <= MAY_IMPORT[folder], f"{path.relative_to(ROOT)} imports {sorted(others - MAY_IMPORT[folder])}"


def files_imported(path):
    """The files of mutual3d that a file imports, also late: those of modules, and of names that are modules of a package."""
    package, found = package_of(path).split("."), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {ROOT.joinpath(*alias.name.split(".")).with_suffix(".py") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            module = ROOT.joinpath(*base, *(node.module or "").split("."))
            found |= {module.with_suffix(".py"), *(module / f"{alias.name}.py" for alias in node.names)}
    return {file for file in found if file.is_file()} - {path}


def circle_from(start, imports):
    """The shortest way from a file back to it, or []."""
    ways = [[start, file] for file in sorted(imports[start])]
    seen = set()
    while ways:
        way = ways.pop(0)
        if way[-1] == start:
            return way
        if way[-1] not in seen:
            seen.add(way[-1])
            ways += [[*way, file] for file in sorted(imports.get(way[-1], ()))]
    return []


def test_no_files_import_each_other_in_a_circle():
    """Late imports count too. In deploy the parts of AdaptiveModel name it in their types, and it has them as methods."""
    files = (path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" and not path.is_relative_to(PACKAGE / "deploy"))
    imports = {path: files_imported(path) for path in files}
    assert PACKAGE / "config" / "keys.py" in imports[PACKAGE / "config" / "defaults.py"]
    circles = [way for path in imports if (way := circle_from(path, imports))]
    assert not circles, " -> ".join(str(file.relative_to(PACKAGE)) for file in min(circles, key=len))


@pytest.mark.parametrize("folder", TORCH_ONLY)
def test_folder_needs_torch_and_numpy_alone(folder):
    legal = {"torch", "numpy", "mutual3d", *sys.stdlib_module_names}
    for path in files_of(folder):
        roots = {name.split(".")[0] for name in imported_modules(path.read_text(), package_of(path))}
        assert roots <= legal, f"{path.relative_to(ROOT)} imports {sorted(roots - legal)}"


def test_nothing_in_the_package_imports_a_command_line_or_a_test():
    for path in PACKAGE.rglob("*.py"):
        roots = {name.split(".")[0] for name in imported_modules(path.read_text(), package_of(path))}
        assert not roots & {*COMMAND_LINES, "tests"}, path.relative_to(ROOT)


@pytest.mark.parametrize("folder", COMMAND_LINES)
def test_command_lines_import_folders_that_exist(folder):
    for path in (ROOT / folder).rglob("*.py"):
        folders = imported_folders(path.read_text(), folder)
        assert folders <= set(MAY_IMPORT) | {"load"}, f"{path.relative_to(ROOT)} imports {sorted(folders)}"


def test_a_config_is_read_in_build_files_alone():
    config_names = {"cfg", "CfgNode", "get_cfg", "load_config"}
    for path in PACKAGE.rglob("*.py"):
        if path.is_relative_to(PACKAGE / "cli") or path in HANDS_ON:
            assert not keys_read(path.read_text()), f"{path.relative_to(ROOT)} reads {keys_read(path.read_text())}"
        elif not reads_config(path):
            found = identifiers(without_registered_functions(path.read_text())) & config_names
            assert not found, f"{path.relative_to(ROOT)} reads a config: {sorted(found)}"
