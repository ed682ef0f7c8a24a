"""docs/api.md is what the code says of itself; help and completion show every public name."""

import pydoc
import subprocess
import sys

from scripts import load_script
from tiny import ROOT

import mutual3d


def load_writer():
    return load_script("docs/write_api.py")


def test_the_page_is_what_the_code_says():
    writer = load_writer()
    assert writer.PAGE.read_text() == writer.page(), "run: python docs/write_api.py"


def test_help_and_completion_show_every_name():
    assert set(mutual3d.__all__) <= set(dir(mutual3d))
    told = pydoc.plain(pydoc.render_doc(mutual3d))
    for name in mutual3d.__all__:
        if name != "__version__":
            assert getattr(mutual3d, name).__doc__.split()[0] in told and f" {name}" in told, name


def test_editors_see_the_names_that_there_are():
    """What is imported for type checkers alone, and what is imported when it is asked for, are the same."""
    source = (ROOT / "mutual3d" / "__init__.py").read_text()
    for name, home in mutual3d._HOMES.items():
        assert f"    from {home} import {name} as {name}\n" in source
    assert source.count(" import ") - source.count("    from mutual3d.") == 2
    assert (ROOT / "mutual3d" / "py.typed").is_file()


def test_an_import_brings_nothing_that_takes_time():
    code = "import sys, mutual3d; dir(mutual3d); print(*{'torch', 'numpy', 'av', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and not done.stdout.strip(), done
