"""Boxes of every frame of videos, read from a csv and written to one."""

import pytest

from mutual3d.data.datasets.frame_boxes import read_frame_boxes, write_frame_boxes

ROW = "walk/a.mp4,0,0.1,0.2,0.5,1.0"


@pytest.mark.parametrize("header", ["path,frame,x1,y1,x2,y2\n", ""])
def test_paths_start_at_the_folder_of_the_csv(tmp_path, header):
    (tmp_path / "boxes.csv").write_text(f"{header}{ROW}\nwalk/a.mp4,0,0,0,1,1\n{tmp_path}/b.mp4,7,0,0,0.5,0.5\n")
    assert read_frame_boxes(tmp_path / "boxes.csv") == {
        f"{tmp_path}/walk/a.mp4": {0: [(0.1, 0.2, 0.5, 1.0), (0, 0, 1, 1)]}, f"{tmp_path}/b.mp4": {7: [(0, 0, 0.5, 0.5)]},
    }  # fmt: skip


def test_what_is_written_is_read(tmp_path):
    boxes = {'a "b", c.mp4': {2: [(0.25, 0.5, 0.75, 1.0)], 0: [(0.0, 0.0, 0.5, 0.5), (0.5, 0.0, 1.0, 0.5)]}}
    write_frame_boxes(tmp_path / "boxes.csv", boxes)
    assert read_frame_boxes(tmp_path / "boxes.csv") == {f"{tmp_path}/{path}": own for path, own in boxes.items()}


@pytest.mark.parametrize(
    "row, words",
    [
        ("walk/a.mp4,0,0.1,0.2,0.5", "line 2, .*it has 5 columns: write 'path,frame,x1,y1,x2,y2'"),
        ("walk/a.mp4,-1,0.1,0.2,0.5,1.0", "the frame is '-1': give a whole number"),
        ("walk/a.mp4,0,0.1,0.2,0.5,x", "are not four numbers"),
        ("walk/a.mp4,0,0.5,0.2,0.1,1.0", "the box is empty"),
        ("walk/a.mp4,0,10,20,50,100", "divide x by the frame's width"),
    ],
)
def test_wrong_rows_are_named(tmp_path, row, words):
    (tmp_path / "boxes.csv").write_text(f"{ROW}\n{row}\n")
    with pytest.raises(ValueError, match=words):
        read_frame_boxes(tmp_path / "boxes.csv")


def test_files_without_rows(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file of boxes"):
        read_frame_boxes(tmp_path / "boxes.csv")
    (tmp_path / "boxes.csv").write_text("path,frame,x1,y1,x2,y2\n")
    with pytest.raises(ValueError, match="is empty"):
        read_frame_boxes(tmp_path / "boxes.csv")
