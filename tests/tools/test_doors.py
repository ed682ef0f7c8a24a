"""The scripts in tools/ are doors to the command `mutual3d` and nothing more."""

import ast
import runpy
import subprocess
import sys

import pytest
from tiny import ROOT

from mutual3d import cli

DOORS = {
    "check_data": "check-data", "compare_tables": "compare", "complexity": "complexity", "convert_checkpoint": "convert",
    "demo": "demo", "export_net": "export", "predict": "predict", "run_net": "run", "select_config": "select",
}  # fmt: skip


def test_every_script_is_known():
    assert {path.stem for path in (ROOT / "tools").glob("*.py")} == DOORS.keys()


@pytest.mark.parametrize("name, command", DOORS.items())
def test_a_door_is_five_lines_that_end_in_its_subcommand(name, command, monkeypatch):
    path = ROOT / "tools" / f"{name}.py"
    assert len(path.read_text().splitlines()) == 5 and f"`mutual3d {command}`" in ast.get_docstring(ast.parse(path.read_text()))
    told = []
    monkeypatch.setattr(cli, "main", lambda words: told.append(words))
    monkeypatch.setattr(sys, "argv", [str(path), "--some", "word"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    assert not ended.value.code and told == [[command, "--some", "word"]] and command in cli.SUBCOMMANDS


def test_doors_open_from_any_folder(tmp_path):
    """In one process: what takes long is importing torch."""
    opened = "\n".join([
        "import runpy, sys",
        "for path in sys.argv[1:]:",
        "    sys.argv = [path, '--help']",
        "    try: runpy.run_path(path, run_name='__main__')",
        "    except SystemExit as ended: assert not ended.code",
    ])  # fmt: skip
    doors = [str(ROOT / "tools" / f"{name}.py") for name in DOORS]
    done = subprocess.run([sys.executable, "-c", opened, *doors], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert all(f"mutual3d {command} " in done.stdout for command in DOORS.values())
