import pytest

from mutual3d.report.aggregation import aggregation_figure
from mutual3d.report.plots import png_bytes

CURVES = {"stem": ((0.5, 0.75, 1.0), (0.6, 0.3, 0.0), (0.9, 1.0)), "head": ((0.5, 1.0), (0.2, 0.0), (1.0,))}


def test_a_line_for_each_layer_in_both_panels():
    figure = aggregation_figure(CURVES, "a $title")
    residuals, bounds = figure.axes
    assert [list(line.get_ydata()) for line in residuals.lines] == [[0.6, 0.3, 0.0], [0.2, 0.0]]
    assert [list(line.get_xdata()) for line in bounds.lines] == [[0.5, 0.75], [0.5]]
    assert [list(line.get_ydata()) for line in bounds.lines] == [[90.0, 100.0], [100.0]]
    assert len({line.get_color() for line in residuals.lines}) == 2
    assert png_bytes(figure)[1:4] == b"PNG"


def test_nothing_to_draw_is_told():
    with pytest.raises(ValueError, match="there is no layer to draw"):
        aggregation_figure({})
