"""The residual of feature aggregation as a picture (US-Net, Eq. 1 to 3)."""

from collections.abc import Mapping, Sequence

from matplotlib import colormaps
from matplotlib.figure import Figure

from mutual3d.report.plots import TEXT_COLOR, empty_figure

# Of a layer: (share of the inputs that are summed, ascending to 1; residual at each; share of the outputs that are bounded
# between each two of them).
Curve = tuple[Sequence[float], Sequence[float], Sequence[float]]


def aggregation_figure(layers: Mapping[str, Curve], title: str | None = None) -> Figure:
    """A matplotlib figure of how |y^n - y^k| falls with the share k / n of the inputs, a line for each layer, from blue, the first, to
    yellow, the last; beside it for how many outputs it does not grow with the next inputs, as Eq. 3 has it.

    layers: {name: curve}, in the order in which they run. Raises ValueError for none.
    """
    if not layers:
        raise ValueError("there is no layer to draw: a network whose widths never change has no residual")
    figure, residuals, bounds = empty_figure((9.0, 4.0), columns=2)
    for place, (shares, values, bounded) in enumerate(layers.values()):
        color = colormaps["viridis"](place / max(len(layers) - 1, 1))
        residuals.plot(shares, values, color=color, linewidth=1.2, marker=".", markersize=4)
        bounds.plot(shares[:-1], [100 * share for share in bounded], color=color, linewidth=1.2, marker=".", markersize=4)
    residuals.set_ylabel("mean |y^n - y^k| over mean |y^n|")
    residuals.set_ylim(bottom=0)
    bounds.set_ylabel("outputs whose residual does not grow (%)")
    bounds.set_ylim(0, 102)
    for axes in (residuals, bounds):
        axes.set_xlabel("k / n, share of the inputs that are summed")
    if title:
        residuals.set_title(title, loc="left", fontsize=10, color=TEXT_COLOR)
    return figure
