"""What a terminal is shown of names that a stranger chose."""

import os

import pytest

from mutual3d.utils.text import printable


@pytest.mark.parametrize(
    "text, shown",
    [
        ("plain é 視頻 \U0001f600.mp4", "plain é 視頻 \U0001f600.mp4"),
        ("\x1b]0;pwned\x07\x1b[2J.mp4", r"\x1b]0;pwned\x07\x1b[2J.mp4"),
        ("a\nb\r\tc\x00", r"a\nb\r\tc\x00"),
        ("a\x85b\u2028c\u2029d", r"a\x85b\u2028c\u2029d"),
        ("a\u202egpj.exe", r"a\u202egpj.exe"),
        (os.fsdecode(b"vid\xe9.mp4"), r"vid\udce9.mp4"),
        (3, "3"),
    ],
)
def test_what_shows_nothing_by_itself_is_written_out(text, shown):
    assert printable(text) == shown
    shown.encode("utf-8")


def test_line_ends_that_a_message_means_are_kept():
    assert printable("two lines:\n  \x1b[31m.mp4", keep="\n") == "two lines:\n  \\x1b[31m.mp4"
