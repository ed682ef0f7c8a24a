import pytest
from matplotlib.colors import to_rgba

from mutual3d.report import plots
from mutual3d.report.plots import accuracy_figure, history_figure, norms_figure, plot_accuracy, png_bytes
from mutual3d.sampling import Cascade, Configuration
from mutual3d.table.cascade_row import CascadeFacts
from mutual3d.table.query_table import QueryTable, Row

PROVENANCE = {"metric": "top1_acc", "split": "val", "num_views": 10, "crop": 256}
# Cheapest first; the step to each one is paid by: (start), frames, spatial size, width, several.
PARETO_FRONT = ["0.6-48-4", "0.6-48-8", "0.6-64-8", "1-64-8", "0.8-96-16"]
COLORS = ["green", "red", "blue", "black"]


def channels(name):
    return int(Configuration.parse(name).width * 40)


@pytest.fixture
def table():
    rows = [
        Row(name, (channels(name),), 0.5 * 2**index, 10, {"top1_acc": 50.0 + index}, {"cpu": 9.0 - index})
        for index, name in enumerate(PARETO_FRONT)
    ]
    dominated = Row("1-48-4", (40,), 3.0, 10, {"top1_acc": 40.0}, {"cpu": 10.0})
    return QueryTable([*rows, dominated], PROVENANCE)


def front_lines(figure):
    return next(artist for artist in figure.axes[0].collections if artist.get_gid() == "pareto-front")


def named(color):
    """The plot's shades are its own; what counts is which channel leads."""
    red, green, blue, _ = color
    if max(red, green, blue) == 0:
        return "black"
    return max((red, "red"), (green, "green"), (blue, "blue"))[1]


def test_each_segment_has_the_colour_of_the_dimension_that_pays(table):
    lines = front_lines(accuracy_figure(table))
    assert [named(to_rgba(color)) for color in lines.get_colors()] == COLORS
    starts = [tuple(segment[0]) for segment in lines.get_segments()]
    assert starts == [(0.5 * 2**index, 50.0 + index) for index in range(4)]


def test_axes_say_unit_metric_split_views_and_crop(table):
    figure = accuracy_figure(table, title="X3D")
    axes = figure.axes[0]
    assert "GFLOPs per view" in axes.get_xlabel() and axes.get_xscale() == "log"
    for word in ("top-1 accuracy (%)", "val split", "10 views", "crop 256"):
        assert word in axes.get_ylabel()
    assert axes.get_title(loc="left") == "X3D"


def test_every_row_is_a_point_and_the_ends_are_named(table):
    axes = accuracy_figure(table).axes[0]
    assert len(axes.collections[0].get_offsets()) == len(table)
    assert {text.get_text() for text in axes.texts} == {PARETO_FRONT[0], PARETO_FRONT[-1]}


def test_legend_explains_the_colours_and_the_references(table):
    figure = accuracy_figure(table, references=[("trained alone", [(4.0, 52.0), (1.0, 49.0)])])
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sum(text.startswith("step paid by") for text in texts) == 4
    assert "trained alone" in texts
    reference = next(line for line in figure.axes[0].lines if line.get_label() == "trained alone")
    assert list(reference.get_xdata()) == [1.0, 4.0]


def test_latency_can_be_the_cost(table):
    figure = accuracy_figure(table, cost="latency_ms")
    assert "latency on cpu (ms)" in figure.axes[0].get_xlabel()
    assert len(front_lines(figure).get_segments()) == 0  # the most accurate row is the fastest here


@pytest.mark.parametrize("count", [1, 2, 6])
def test_a_png_is_written_whole(table, tmp_path, count):
    path = tmp_path / "accuracy_vs_gflops.png"
    plot_accuracy(QueryTable(table.rows[:count], PROVENANCE), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_left_behind_when_the_plot_fails(table, tmp_path):
    with pytest.raises(ValueError, match="no median latency on 'tpu'"):
        plot_accuracy(table, tmp_path / "plot.png", cost="latency_ms", device="tpu")
    assert list(tmp_path.iterdir()) == []


def test_history_draws_train_and_val_apart():
    history = [
        {"_type": kind, "epoch": f"{epoch}/3", "loss": loss / epoch, "top1_err": None}
        for epoch in (1, 2, 3)
        for kind, loss in (("train_epoch", 2.0), ("val_epoch", 3.0))
    ]
    figure = history_figure([*history, {"_type": "train_iter", "epoch": "1/3", "loss": 9.0}])
    assert len(figure.axes) == 1
    train, val = figure.axes[0].lines
    assert list(train.get_xdata()) == [1, 2, 3] and list(train.get_ydata()) == [2.0, 1.0, 2 / 3]
    assert (train.get_label(), val.get_label()) == ("train", "val")


def test_history_leaves_out_what_a_resume_ran_again():
    epochs = [1, 2, 3, 3, 4, 2]
    history = [{"_type": "train_epoch", "epoch": f"{epoch}/4", "loss": float(i)} for i, epoch in enumerate(epochs)]
    for logged, expected in ((history[:5], ([1, 2, 3, 4], [0, 1, 3, 4])), (history, ([1, 2], [0, 5]))):
        (line,) = history_figure(logged).axes[0].lines
        assert (list(line.get_xdata()), list(line.get_ydata())) == expected


def test_norms_have_a_panel_for_each_number_and_a_line_for_each_size():
    norms = {f"1-{size}": {"scale": [1.0, size / 100], "mean": [0.0, -size / 100]} for size in range(96, 96 + 9 * 16, 16)}
    figure = norms_figure(norms)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["scale, mean over channels", "mean, mean over channels"]
    for axes, name in zip(figure.axes, ("scale", "mean")):
        assert [list(line.get_ydata()) for line in axes.lines] == [numbers[name] for numbers in norms.values()]
        looks = {(line.get_color(), line.get_linestyle()) for line in axes.lines}
        assert len(looks) == len(norms) and list(axes.lines[0].get_xdata()) == [1, 2]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(norms) and png_bytes(figure)


def test_history_without_numbers_is_refused():
    with pytest.raises(ValueError, match="top1_err"):
        history_figure([{"epoch": 1, "seconds": 3.0}])


def test_dollars_in_names_are_no_formulas(table, tmp_path):
    names = {**PROVENANCE, "split": "a$_{$b"}
    odd = QueryTable([Row(**{**row.to_dict(), "latency_ms": {"cpu$^$": 1.0}}) for row in table.rows], names)
    plot_accuracy(odd, tmp_path / "a.png", title="$\\frac{$", cost="latency_ms", references=[("$\\no_such$", [(1, 50)])])
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert history_figure([{"_type": "$a_{$ epoch", "epoch": 1, "loss": 1.0}]) and png_bytes(accuracy_figure(odd))


@pytest.mark.parametrize("count, expected", [(24, 5), (None, 0)])
def test_the_front_has_its_intervals_where_the_number_of_videos_is_known(table, count, expected):
    counted = QueryTable(table.rows, {**PROVENANCE, "num_videos": count} if count else PROVENANCE)
    bars = [line for line in accuracy_figure(counted).axes[0].lines if line.get_label() == "_interval"]
    assert len(bars) == expected
    assert not bars or bars[0].get_ydata()[0] < 50.0 < bars[0].get_ydata()[1]


def test_cascades_have_a_marker_of_their_own_where_the_front_does_not_beat_them(table):
    stages = (Configuration.parse(PARETO_FRONT[0]), Configuration.parse(PARETO_FRONT[-1]))
    found = [CascadeFacts(Cascade(stages, (level,), (1.0,)), {"top1_acc": accuracy}, (0.5, 0.5)) for level, accuracy in ((0.5, 53.5), (0.6, 50.5))]
    axes = accuracy_figure(QueryTable(table.rows, PROVENANCE, found)).axes[0]
    (drawn,) = [artist for artist in axes.collections if artist.get_label() == "cascades, mean cost (1)"]
    assert drawn.get_offsets().tolist() == [[0.5 + 0.5 * 8.0, 53.5]]
    assert not [artist for artist in accuracy_figure(table).axes[0].collections if "cascades" in str(artist.get_label())]


def test_of_many_widths_the_ends_are_written_beside_the_point():
    names = ["0.5-48-4", "1x3,0.5x2,0.625,0.75x3,0.875-48-4"]
    rows = [Row(name, (8 + i,), 1.0 + i, 10, {"top1_acc": 50.0 + i}) for i, name in enumerate(names)]
    axes = accuracy_figure(QueryTable(rows, PROVENANCE)).axes[0]
    assert {text.get_text() for text in axes.texts} == {"0.5-48-4", "0.5..1-48-4"}


def test_the_smallest_that_is_validated_has_a_curve_of_its_own():
    history = [
        {"_type": f"{kind}_epoch", "epoch": f"{epoch}/2", "top1_err": 50.0 - epoch}
        for epoch in (1, 2) for kind in ("train", "val", "val_smallest")
    ]  # fmt: skip
    legend = history_figure(history).axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["train", "val", "val smallest"]


def test_a_picture_of_the_same_facts_is_drawn_once_and_of_others_anew(table, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "png_bytes", lambda figure: (drawn.append(figure), png_bytes(figure))[1])
    plots._drawn_once.cache_clear()
    again = QueryTable.from_dict(table.to_dict())
    assert plots.accuracy_png(table) == plots.accuracy_png(again) == png_bytes(accuracy_figure(table)) and len(drawn) == 1
    other = QueryTable(table.rows[:-1], PROVENANCE)
    assert len({plots.accuracy_png(table), plots.accuracy_png(other), plots.accuracy_png(table, cost="latency_ms", device="cpu")}) == 3
    epochs = [{"_type": "train_epoch", "epoch": f"{n}/2", "loss": 1 / n, "lr": 0.1} for n in (1, 2)]
    first = plots.history_png(epochs, "loss")
    assert first == plots.history_png(epochs, "loss") == png_bytes(history_figure(epochs, ["loss"])) and len(drawn) == 4
    others = [epochs[:1], [*epochs[:1], {**epochs[1], "loss": 0.7}], [*epochs[:1], {**epochs[1], "_type": "val_epoch"}]]
    assert len({first, plots.history_png(epochs, "lr"), *(plots.history_png(other, "loss") for other in others)}) == 5
