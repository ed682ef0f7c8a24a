"""What a user sees of an error."""

import os
import subprocess
import sys

import pytest

from mutual3d.utils.command_line import run_command


def test_names_in_errors_cannot_command_the_terminal(capsys):
    def main():
        raise FileNotFoundError("there is no '\x1b[2J\x1b]0;pwned\x07.mp4':\n  look again")

    with pytest.raises(SystemExit) as ended:
        run_command(main)
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: there is no '\\x1b[2J\\x1b]0;pwned\\x07.mp4':\n  look again\n"


PRINTING = """
import sys
from mutual3d.utils.command_line import run_command
from mutual3d.utils.logging import logger, progress_bar, setup_logging

def main():
    setup_logging(sys.argv[1])
    for number in progress_bar(range(400), "vid\xe9"):
        print("vid\xe9.mp4", number, "x" * 500, flush=True)
        logger.warning("vid\xe9.mp4 %d", number)
    open(sys.argv[1] + "/finished", "w").close()
    return 3

run_command(main)
"""


@pytest.mark.parametrize("end", ["2>&1 | head -n 1", ">/dev/full 2>/dev/full", ">&- 2>&-"])
def test_nothing_that_is_printed_ends_a_command(tmp_path, end):
    """In a terminal that knows ASCII alone, into pipes whose reader is gone, a full disk, closed streams."""
    script = tmp_path / "printing.py"
    script.write_text(PRINTING)
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    line = f"'{sys.executable}' '{script}' '{tmp_path}' {end}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr[-500:] if "Traceback" in done.stderr else "") == (3, "")
    assert (tmp_path / "finished").exists()
    assert "vid\xe9.mp4 399" in (tmp_path / "stdout.log").read_text(encoding="utf-8")
