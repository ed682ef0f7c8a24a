"""How sure an accuracy is: the interval that a number of videos leaves around it."""

import math

from mutual3d.table.query_table import QueryTable, Row

# Of a normal distribution, within which 95 % lie.
Z_95 = 1.959964


def wilson_interval(percent: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share that was counted on `count` videos, both in per cent (Wilson, 1927).

    It stays within 0 and 100 and holds its promise for few videos too. Raises ValueError for no video and for a share
    outside 0 to 100.
    """
    if count < 1 or not 0 <= percent <= 100:
        raise ValueError(f"{percent:g} % of {count} videos: a share from 0 to 100 of one video or more is needed")
    share, z2 = percent / 100, Z_95**2
    middle = share + z2 / (2 * count)
    half = Z_95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count * count))
    low, high = ((middle + side) / (1 + z2 / count) for side in (-half, half))
    return 100 * max(0.0, min(low, share)), 100 * min(1.0, max(high, share))


def num_videos(table: QueryTable) -> int | None:
    """How many videos the accuracies were counted on, where the provenance says so."""
    count = table.provenance.get("num_videos")
    return count if isinstance(count, int) and not isinstance(count, bool) and count > 0 else None


def accuracy_interval(table: QueryTable, row: Row, metric: str | None = None) -> tuple[float, float] | None:
    """The 95 % interval of a row's accuracy in per cent; None where it is no share of a known number of videos."""
    name, count = metric or table.metric, num_videos(table)
    # Average precision is no share of the videos, and has no interval of this kind.
    if count is None or not table.words_of_metric(name).is_share or name not in row.accuracy:
        return None
    return wilson_interval(row.accuracy[name], count)


def points_either_way(count: int, percent: float = 50.0) -> float:
    """Half the width of the interval, in points; the widest one is around 50 %."""
    low, high = wilson_interval(percent, count)
    return (high - low) / 2
