"""What a user sees of an error."""

import pytest

from mutual3d.utils.command_line import run_command


def test_names_in_errors_cannot_command_the_terminal(capsys):
    def main():
        raise FileNotFoundError("there is no '\x1b[2J\x1b]0;pwned\x07.mp4':\n  look again")

    with pytest.raises(SystemExit) as ended:
        run_command(main)
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: there is no '\\x1b[2J\\x1b]0;pwned\\x07.mp4':\n  look again\n"
