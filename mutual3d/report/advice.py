"""What a query table suggests to do next, in sentences."""

from collections.abc import Sequence

from mutual3d.report.classes import ClassPrecision, Predictions, class_accuracies
from mutual3d.table.interval import accuracy_interval, num_videos, points_either_way
from mutual3d.table.query_table import QueryTable

# Below this many points either way, an interval is good enough to choose by.
_WIDE = 5.0
_LAG = 15.0
# Costs that differ by less are the same; one that takes so many times fewer GFLOPs should be faster.
_SAME_TIME = 1.5
_FEWER_GFLOPS = 3.0
_MIN_VIDEOS_OF_CLASS = 3
_MAX_NAMED = 6


def interval_in_words(table: QueryTable) -> str:
    """How far an accuracy of this table can be trusted, in one or two sentences."""
    count = num_videos(table)
    if count is None:
        return f"The table does not say on how many {noun(table)}s it was measured, so nothing is known of its uncertainty."
    if not table.words_of_metric().is_share:
        return f"Measured on {count} {noun(table)}s; {table.words_of_metric().label} has no simple interval that follows from their number, so mistrust small differences."
    points = points_either_way(count)
    return (
        f"{count} {noun(table)}{'' if count == 1 else 's'}: an accuracy is known to about {points:.2g} points either way; the numbers in "
        "brackets are its 95 % interval (Wilson)."
        + (" Of two configurations whose intervals overlap much, this table cannot say which one is better." if len(table) > 1 else "")
    )


def suggestions(
    table: QueryTable, predictions: Predictions | None = None, per_class: ClassPrecision | None = None, class_names: Sequence[str] = ()
) -> list[str]:
    """What the numbers ask for, the most urgent first; predictions or per_class: of the most accurate configuration."""
    found = (
        _learned_nothing(table, predictions), _few_videos(table), _hopeless_classes(predictions, per_class, class_names),
        _lag(table), _same_time(table),
    )  # fmt: skip
    return [sentence for sentence in found if sentence]


def noun(table: QueryTable) -> str:
    """What its accuracies were counted on, such as "video" or "keyframe".

    A table that does not say so counted images where no configuration sees more than one frame, else videos.
    """
    told = table.provenance.get("sample")
    if isinstance(told, str) and told:
        return told
    return "video" if any(row.configuration.temporal > 1 for row in table.rows) else "image"


def class_name(label: int, names: Sequence[str]) -> str:
    """What a class is called: its name, or its number where it has none."""
    return names[label] if label < len(names) else f"class {label}"


def _learned_nothing(table, predictions):
    if predictions is None:
        return None
    front = table.pareto_front()
    num_classes, best = len(set(predictions.labels.tolist())), table.accuracy(front[-1])
    interval = accuracy_interval(table, front[-1])
    low = best if interval is None else interval[0]
    if num_classes > 1 and low <= 100 / num_classes:
        return (
            f"The best accuracy, {best:.1f} %, cannot be told from guessing ({100 / num_classes:.1f} % with {num_classes} classes): train "
            "longer (SOLVER.MAX_EPOCH), look at the loss below, and start from trained weights (TRAIN.CHECKPOINT_FILE_PATH)."
        )
    return None


def _few_videos(table):
    count = num_videos(table)
    if count is None or not table.words_of_metric().is_share or points_either_way(count) <= _WIDE:
        return None
    return (
        f"{count} {noun(table)}s are few: measure on more (a larger val.csv, of videos that are not trained on) before "
        "choosing between neighbours in the table. About 400 videos give 5 points either way, 2 400 give 2."
    )


def _hopeless_classes(predictions, per_class, names):
    if predictions is not None:
        worst = class_accuracies(predictions.confusion(predictions.num_classes))
        failed = [class_name(c.label, names) for c in worst if c.right == 0 and c.total >= _MIN_VIDEOS_OF_CLASS]
        what = "No video was recognised of"
    elif per_class is not None:
        failed = [name for name, percent in per_class.percents.items() if percent < 1]
        what = f"The {per_class.what} is below 1 % for"
    else:
        return None
    if not failed:
        return None
    named = ", ".join(failed[:_MAX_NAMED]) + (f" and {len(failed) - _MAX_NAMED} more" if len(failed) > _MAX_NAMED else "")
    return f"{what} {named}: look at what they are taken for, check their labels, and add videos of them."


def _lag(table):
    front = table.pareto_front()
    cheapest = min(table.rows, key=lambda row: row.gflops)
    gap = table.accuracy(front[-1]) - table.accuracy(cheapest)
    ours, others = accuracy_interval(table, front[-1]), accuracy_interval(table, cheapest)
    if gap < _LAG or ours and others and ours[0] <= others[1]:
        return None
    return (
        f"The configuration of the fewest GFLOPs, {cheapest.configuration}, is {gap:.0f} points behind the best: small ones learn later, so train "
        "longer; or raise the smallest width, size or number of frames (MUTUAL.WIDTH_RANGE, SPATIAL_SIZES, TEMPORAL_SIZES)."
    )


def _same_time(table):
    """What is timed on some device key is not the network but what calls it; the fastest key is shown first on the page."""
    keys = [(words, key) for words, key in table.drawn_columns if words.by_device]
    flat = [column for column in keys if _is_flat(table, *column)]
    if not flat:
        return None
    words, device = flat[0]
    times, gflops = _times(table, words, device), [row.gflops for row in table.measured(words.name, device)]
    others = [column for column in keys if column not in flat and column[0].name == words.name]
    if others:
        found = _times(table, *others[0])
        way_out = f"On {others[0][1]} they take {min(found):.3g} to {max(found):.3g} {words.unit}: choose and serve by that."
    else:
        way_out = (
            "Export a configuration and time it in the runtime that will serve it (the export command below does), or use larger clips."
        )
    return (
        f"On {device} every configuration has about the same {words.title} ({min(times):.3g} to {max(times):.3g} {words.unit}, of "
        f"{max(gflops) / min(gflops):.0f} times different GFLOPs): what is measured is the runtime's own overhead. {way_out}"
    )


def _times(table, words, device):
    return [table.cost(row, words.name, device) for row in table.measured(words.name, device)]


def _is_flat(table, words, device):
    times, gflops = _times(table, words, device), [row.gflops for row in table.measured(words.name, device)]
    return max(gflops) >= _FEWER_GFLOPS * min(gflops) and max(times) <= _SAME_TIME * min(times)
