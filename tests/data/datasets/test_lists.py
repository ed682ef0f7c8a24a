"""What all lists have in common: where lines end, how csv rows are read, what a number is."""

import os

import pytest

from mutual3d.data.datasets.lists import check_line, existing_file, first_line, parse_decimal, parse_whole, read_lines, read_table


def write(path, data):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def test_a_line_ends_with_a_line_feed_alone(tmp_path):
    odd = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg"
    path = write(tmp_path / "list.csv", f"\ufeff{odd} 0\r\n\nlast 1")
    assert list(read_lines(path)) == [(1, f"{odd} 0"), (2, ""), (3, "last 1")]
    assert list(read_table(path, " ")) == [(1, [odd, "0"]), (3, ["last", "1"])]
    assert first_line(path) == f"{odd} 0" and first_line(write(tmp_path / "empty.csv", "")) == ""


def test_utf_16_with_its_mark_is_read(tmp_path):
    for encoding in ("utf-16", "utf-8-sig"):
        path = write(tmp_path / "list.csv", "vidé.mp4 0\r\nb.mp4 1\n".encode(encoding))
        assert [text for _, text in read_lines(path) if text] == ["vidé.mp4 0", "b.mp4 1"]


@pytest.mark.parametrize(
    "data, words",
    [
        ("a 0\nvidé 1\n".encode("latin-1"), "line 2: .* is not UTF-8 .*save the file as UTF-8"),
        ("a 0\n".encode("utf-16-le"), "line 1: .* NUL character"),
        ("a 0\n".encode("utf-32"), "NUL"),
        (b"\xff\xfea", "not UTF-16 text"),
        (b"a 0\rb 1\r", "line 1: .*carriage return"),
        (b"a 0\n" + b"b" * 200_000, "line 2: the line is longer than"),
    ],
)
def test_what_is_no_text_is_named(tmp_path, data, words):
    path = write(tmp_path / "list.csv", data)
    with pytest.raises(ValueError, match=words) as caught:
        list(read_lines(path))
    assert str(path) in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "text, words",
    [
        ('a "b 0\nc 1\nd" 2\n', "line 1: .*a quote is opened and not closed in the same line"),
        ('a 0\n"b" c"d 0\n"e"f 1\n', "line 3: .*quotes do not fit"),
        ('a 0\n"b 1', "line 2: .*a quote is opened"),
    ],
)
def test_quotes_swallow_no_rows(tmp_path, text, words):
    with pytest.raises(ValueError, match=words) as caught:
        list(read_table(write(tmp_path / "list.csv", text), " "))
    assert str(tmp_path / "list.csv") in str(caught.value)


def test_a_column_may_span_lines_where_it_is_said(tmp_path):
    path = write(tmp_path / "list.csv", 'a,"b\nc",d\ne,f,g\n')
    assert list(read_table(path, spanning=True)) == [(1, ["a", "b\nc", "d"]), (3, ["e", "f", "g"])]
    with pytest.raises(ValueError, match="line 2: .*never closed"):
        list(read_table(write(path, 'a,b\nc,"d\ne,f\n'), spanning=True))
    with pytest.raises(ValueError, match="line 2: .*do not fit"):
        list(read_table(write(path, 'a,b\nc,"d\ne,"f"\n'), spanning=True))


def test_numbers_are_of_ascii_digits():
    assert [parse_whole(text) for text in ("7", " -3 ", "007")] == [7, -3, 7]
    assert not any(map(parse_whole, ("1_0", "٣", "²", "3.0", "+3", "", "1" * 16, "9" * 5000)))
    assert [parse_decimal(text) for text in ("1", "-.5", " 1e-3", "2.")] == [1, -0.5, 0.001, 2]
    assert not any(map(parse_decimal, ("nan", "inf", "1e999", "1_0.5", "٣", "", "0x1p3", "infinity")))


def test_files_are_named(tmp_path, monkeypatch):
    with pytest.raises(IsADirectoryError, match=f"the list '{tmp_path}' is a folder: name a file; write one"):
        existing_file(tmp_path, "list", "write one")
    with pytest.raises(FileNotFoundError, match="there is no list '.*none.csv': write one"):
        existing_file(tmp_path / "none.csv", "list", "write one")
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (tmp_path / "pipe.csv", "/dev/zero"):
        with pytest.raises(ValueError, match="is a pipe or a device"):
            first_line(path)
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "list.csv", "")
    assert existing_file("~/list.csv", "list", "") == tmp_path / "list.csv"


def test_what_would_not_come_back_from_a_list_is_not_written():
    assert check_line("a\u2028b 0", "list.csv") == "a\u2028b 0"
    for text in ("a\nb", "a\rb", os.fsdecode(b"vid\xe9.mp4")):
        with pytest.raises(ValueError, match="list.csv.*rename the file"):
            check_line(text, "list.csv")
