"""Annotations in the form of Pascal VOC and ImageNet."""

import pytest

from mutual3d.data.datasets.voc_boxes import read_voc_boxes

PAGE = """<annotation><folder>val</folder><filename>ILSVRC2012_val_00000001</filename>
<size><width>{width}</width><height>50</height><depth>3</depth></size>{objects}</annotation>"""
OBJECT = "<object><name>{name}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"


def write(path, *objects, width=100):
    parts = (OBJECT.format(name=name, x1=x1, y1=y1, x2=x2, y2=y2) for name, x1, y1, x2, y2 in objects)
    path.write_text(PAGE.format(width=width, objects="".join(parts)))
    return path


def test_boxes_are_normalised_and_named(tmp_path):
    found = read_voc_boxes(write(tmp_path / "a.xml", ("n01440764", 11, 6, 60, 50), ("dog", 0, 0, 100, 25)))
    assert found.names == ("n01440764", "dog")
    assert found.boxes_N4.tolist() == [pytest.approx([0.1, 0.1, 0.6, 1.0]), pytest.approx([0, 0, 1.0, 0.5])]


def test_what_is_no_annotation_is_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="no annotation"):
        read_voc_boxes(tmp_path / "none.xml")
    for name, arguments, sentence in [
        ("empty", [], "has no object"), ("flat", [("dog", 60, 6, 11, 50)], "has no area"), ("word", [("dog", "x", 6, 11, 50)], "xmin is 'x'"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=sentence):
            read_voc_boxes(write(tmp_path / f"{name}.xml", *arguments))
    (tmp_path / "text.xml").write_text("hello")
    with pytest.raises(ValueError, match="is no xml file"):
        read_voc_boxes(tmp_path / "text.xml")
    with pytest.raises(ValueError, match="0 x 50 pixels"):
        read_voc_boxes(write(tmp_path / "flat.xml", ("dog", 1, 1, 2, 2), width=0))
