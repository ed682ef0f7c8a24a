import io
import logging
import sys

import pytest

from mutual3d.utils.logging import log_json_stats, logger, read_json_stats, setup_logging


@pytest.fixture(autouse=True)
def root_as_it_was():
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


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
