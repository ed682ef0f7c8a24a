import errno
import io
import logging
import sys

import pytest

from mutual3d.utils.logging import log_json_stats, logger, progress_bar, read_json_stats, setup_logging

from test_files import files_of_at_most  # isort: skip


@pytest.fixture(autouse=True)
def handlers_as_they_were():
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    yield
    assert (root.level, root.handlers) == before, "the root logger is the program's own"


def test_lines_go_to_the_file_and_to_standard_output_as_it_is_then(tmp_path, monkeypatch):
    setup_logging(tmp_path)
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)
    logger.info("twelve videos")
    assert screen.getvalue().endswith("[INFO] twelve videos\n") and (tmp_path / "stdout.log").read_text() == screen.getvalue()


def test_a_second_run_in_the_process_writes_to_its_own_file_alone(tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        setup_logging(tmp_path / name)
        log_json_stats({"run": name, "loss": 1 / 3})
    for name in ("first", "second"):
        assert read_json_stats(tmp_path / name / "stdout.log") == [{"run": name, "loss": 0.33333}]


def test_the_programs_own_root_logger_stays_and_no_line_is_shown_twice(tmp_path, monkeypatch):
    screen, root = io.StringIO(), logging.getLogger()
    monkeypatch.setattr(sys, "stdout", screen)
    own = logging.StreamHandler(screen)
    own.setFormatter(logging.Formatter("mine: %(message)s"))
    root.addHandler(own)
    try:
        setup_logging(tmp_path)
        setup_logging(tmp_path)
        logger.info("twelve videos")
        assert screen.getvalue() == "mine: twelve videos\n" and own in root.handlers
    finally:
        root.removeHandler(own)
    logger.info("once more")
    assert screen.getvalue().count("once more") == 1
    assert [line.rpartition("] ")[2] for line in (tmp_path / "stdout.log").read_text().splitlines()] == ["twelve videos", "once more"]


class FailingStream(io.StringIO):
    encoding = "utf-8"

    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error

    flush = isatty = lambda self: self.write("")


ERRORS = [BrokenPipeError(errno.EPIPE, "Broken pipe"), OSError(errno.ENOSPC, "No space left"), ValueError("I/O operation on closed file"), None]


@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_no_screen_ends_a_run(tmp_path, monkeypatch, error):
    """None: there is no stream at all."""
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, error and FailingStream(error))
    setup_logging(tmp_path)
    logger.info("vid\xe9.mp4")
    assert list(progress_bar(range(3), "train")) == [0, 1, 2]
    assert (tmp_path / "stdout.log").read_text(encoding="utf-8").endswith("vid\xe9.mp4\n")


def test_a_screen_that_knows_ascii_alone_shows_escapes(tmp_path, monkeypatch):
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    setup_logging(tmp_path)
    logger.info("skipped: vid\xe9.mp4, \udcff.mp4")
    assert list(progress_bar(range(3), "vid\xe9")) == [0, 1, 2]
    assert b"skipped: vid\\xe9.mp4, \\udcff.mp4\n" in screen.buffer.getvalue() or not screen.flush()
    assert b"skipped: vid\\xe9.mp4, \\udcff.mp4\n" in screen.buffer.getvalue()
    assert b"vid\xc3\xa9.mp4, \\udcff.mp4" in (tmp_path / "stdout.log").read_bytes()


def test_a_full_disk_loses_lines_of_the_log_and_says_how_many(tmp_path):
    setup_logging(tmp_path)
    logger.info("before")
    size = (tmp_path / "stdout.log").stat().st_size
    with files_of_at_most(size + 10):
        for number in range(3):
            logger.info("lost %d", number)
    log_json_stats({"loss": 1.0})
    lines = (tmp_path / "stdout.log").read_text().split("\n")
    assert "lines before this one are lost: [Errno 27] File too large" in lines[2]
    assert read_json_stats(tmp_path / "stdout.log") == [{"loss": 1.0}]


def test_a_log_that_cannot_be_opened_is_said_and_the_run_goes_on(tmp_path, monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)
    (tmp_path / "stdout.log").mkdir()
    setup_logging(tmp_path)
    logger.info("twelve videos")
    assert "no log is kept in" in screen.getvalue() and "twelve videos" in screen.getvalue()
    assert read_json_stats(tmp_path / "stdout.log") == []


def test_a_message_that_cannot_be_formatted_is_shown_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(logger, "propagate", False)  # pytest's own handler raises
    setup_logging(tmp_path)
    logger.info("%d videos of %s", "twelve")
    assert "INFO: %d videos of %s" in (tmp_path / "stdout.log").read_text()


def test_half_lines_and_odd_letters_in_a_log_are_no_obstacle(tmp_path):
    (tmp_path / "stdout.log").write_bytes(b'json_stats: {"loss": 1}\n\xff json_stats: {"lo\njson_stats: {"name": "a\xc2\x85b"}\njson_stats: ' + b"[" * 50_000 + b"\njson_stats: 3\n")
    assert read_json_stats(tmp_path / "stdout.log") == [{"loss": 1}, {"name": "a\x85b"}]
