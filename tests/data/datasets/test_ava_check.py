"""Everything that is wrong with a copy of AVA is named, and nothing where all is well."""

import pytest
from ava_set import FIRST_SECOND, FPS, SECONDS, path_of, write, write_ava_set

from mutual3d.data.datasets.ava.check import AvaFiles, check_ava
from mutual3d.data.datasets.check import CheckOptions


@pytest.fixture
def folder(tmp_path):
    return write_ava_set(tmp_path)


def problems(folder, **changes):
    files = dict(
        frame_dir=folder / "frames", frame_lists=[folder / "list.csv"], ground_truth=[folder / "truth.csv"],
        detected=[folder / "detected.csv"], label_map=folder / "labels.pbtxt", excluded=folder / "excluded.csv",
    )  # fmt: skip
    how = CheckOptions(full=changes.pop("full", False))
    return list(check_ava(AvaFiles(**{**files, **changes}), num_classes=4, fps=FPS, first_second=FIRST_SECOND, how=how))


def test_a_whole_set_has_no_problem(folder):
    assert problems(folder) == problems(folder, full=True) == []


def test_every_wrong_row_is_named(folder):
    lines = ["wide,901,0.1,0.2,0.3,0.4,9,0", "wide,901,0.1,0.2,0.3,0.4,1,0", "wide,950,0.1,0.2,0.3,0.4,1,0", "wide,901,0.1"]
    found = problems(folder, ground_truth=[write(folder / "truth.csv", lines)])
    assert [place.split(", ")[1] for place, _ in found] == ["line 1", "line 3", "line 4"]
    assert ["action 9" in found[0][1], "second 950" in found[1][1], "3 columns" in found[2][1]] == [True] * 3
    assert all(f"'{folder}/truth.csv'" in place for place, _ in found)


def test_a_shuffled_frame_list_is_named(folder):
    lines = (folder / "list.csv").read_text().splitlines()
    lines[3], lines[4] = lines[4], lines[3]
    ((place, cause),) = problems(folder, frame_lists=[write(folder / "list.csv", lines)])
    assert place == "frame lists" and "list.csv', line 4: frame_id 3 of video 'wide' follows 1" in cause


def test_missing_frames_are_counted_and_damaged_ones_named(folder):
    for frame in (1, 2):
        (folder / "frames" / path_of("wide", frame)).unlink()
    middle, other = (folder / "frames" / path_of("tall", frame) for frame in ((SECONDS * FPS - 1) // 2, 3))
    for path in (middle, other):
        path.write_bytes(path.read_bytes()[:200])
    (_, missing), (place, _) = problems(folder)
    first = folder / "frames" / path_of("wide", 1)
    assert missing == f"2 of its {SECONDS * FPS} frames are missing, the first is '{first}'"
    assert place == f"'{middle}'"
    assert {place for place, _ in problems(folder, full=True)} == {"video 'wide'", f"'{middle}'", f"'{other}'"}


def test_files_that_cannot_be_read_do_not_hide_the_others(folder):
    write(folder / "detected.csv", [])
    write(folder / "excluded.csv", ["never"])
    (folder / "list.csv").unlink()
    places = [place for place, _ in problems(folder, ground_truth=[folder / "gone.csv"], label_map=folder / "gone.pbtxt")]
    assert places == ["frame lists", "boxes", f"'{folder}/detected.csv'", "label map", "excluded timestamps"]


def test_boxes_and_label_map_may_be_left_out(folder):
    assert problems(folder, ground_truth=(), detected=(), label_map=None, excluded=None) == []
