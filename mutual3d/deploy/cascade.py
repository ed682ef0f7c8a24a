"""A model that runs a cascade: the cheap configuration on the whole batch, a dearer one on the clips that it is not sure of."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch

from mutual3d.cost.axes import COSTS, MEAN
from mutual3d.cost.flops import count_costs
from mutual3d.deploy.gives import check_gives_classes
from mutual3d.deploy.spending import Spending, shares_of_stages
from mutual3d.sampling import Cascade, Configuration
from mutual3d.sampling.cascade import confidence
from mutual3d.table.cascade_row import CascadeRow
from mutual3d.table.query_table import QueryTable

if TYPE_CHECKING:  # which calls what is here
    from mutual3d.deploy.adaptive_model import AdaptiveModel


def check_cascade(model: "AdaptiveModel", cascade: Cascade) -> Cascade:
    """The cascade. ValueError for a model whose scores say nothing of how sure it is of a clip, and for a configuration outside its space."""
    check_gives_classes(model, "a cascade")
    if model.network.takes_boxes or model.preprocessing.has_several_labels:
        what = "boxes" if model.network.takes_boxes else "several labels for each clip"
        raise ValueError(
            f"{cascade} is a cascade, which asks how sure the network is of the one label of a clip, and this model gives {what}: "
            f"activate a single configuration, such as {cascade.configurations[-1]}"
        )
    for configuration in cascade.configurations:
        model.network.space.check(configuration)
    return cascade


def thresholds_of(model: "AdaptiveModel", cascade: Cascade) -> Spending:
    """The spending of a cascade whose thresholds decide, in GFLOPs of one view."""
    known = {row.configuration: row.gflops for row in model.table.rows} if model.table else {}
    if missing := [c for c in cascade.configurations if c not in known]:
        known |= {c: cost.gflops for c, cost in count_costs(model.network, missing, model.preprocessing.crop).items()}
    return Spending(cascade, COSTS["gflops"], "", [known[c] for c in cascade.configurations])


def promise(table: QueryTable, row: CascadeRow, means: Mapping[str, float], device: str | None) -> Spending:
    """The spending of a row that keeps each of `means`, {`mean_COST`: its budget}.

    A budget is spent whole, since more clips at a dearer configuration are mostly more of them right; but where no row is more
    accurate, the row's own mean cost is enough.
    """
    is_best = all(table.merit(other) <= table.merit(row) for other in table.all_rows)
    found = []
    for name, limit in means.items():
        cost = name.removeprefix(MEAN)
        key = table.own_device(cost) if device is None else table.device(device, cost)
        costs = [table.row(c).values(cost)[key] for c in row.configuration.configurations]
        promised = min(limit, row.values(cost)[key]) if is_best else min(limit, sum(costs))
        shares = shares_of_stages(promised, costs, row.shares)
        found.append((shares, Spending(row.configuration, table.costs[cost], key, costs, promised=promised, answered=row.shares)))
    # What keeps the tightest of several keeps them all.
    return min(found, key=lambda pair: pair[0])[1]


def at_present(
    model: "AdaptiveModel", configuration: Configuration | Cascade | str | None
) -> tuple[Callable[[torch.Tensor], torch.Tensor], tuple[Configuration | str, ...]]:
    """(what computes scores of clips, the configurations that it runs at), whatever is activated later; None is what is active."""
    spending = model.spending if configuration is None else None
    if spending is not None:
        cascade = spending.cascade
        return lambda clip: run_cascade(model, clip, cascade, spending), cascade.configurations
    if configuration is None and model.training:
        return model, (model.active,)
    given = model.active if configuration is None else configuration
    given = Cascade.parse(given) if isinstance(given, str) and "@" in given else given
    return lambda clip: model(clip, configuration=given), given.configurations if isinstance(given, Cascade) else (given,)


def run_cascade(
    model: "AdaptiveModel", clip_BCTHW: torch.Tensor, cascade: Cascade, spending: Spending | None = None
) -> torch.Tensor:
    """Scores B, K of full-size clips: each clip's are those of the last configuration that it ran at.

    A clip goes on with the pixels that are there: it is decoded and moved to the device once. spending: says which clips go on,
    and counts them; None leaves it to the thresholds.
    """
    scores_BK = model(clip_BCTHW, configuration=cascade.configurations[0]).clone()
    if spending is not None:
        spending.start(len(scores_BK))
    running = torch.arange(len(scores_BK))
    for stage, configuration in enumerate(cascade.configurations[1:]):
        confidences = confidence(scores_BK[running.to(scores_BK.device)], cascade.temperatures[stage]).cpu()
        goes_on = confidences < cascade.thresholds[stage] if spending is None else spending.choose(stage, confidences)
        running = running[goes_on]
        if not len(running):
            break
        scores_BK[running.to(scores_BK.device)] = model(clip_BCTHW[running.to(clip_BCTHW.device)], configuration=configuration)
    return scores_BK
