"""Mean average precision of segments, computed as its definition reads, slowly and without a line of the project's."""


def precision_of(found, truth, label, iou):
    """Average precision in percent, as its definition has it: for each recall the best precision at that recall or a higher one."""
    ranked = sorted((row for row in found if row[3] == label), key=lambda row: -row[4])
    there = {(video, start, end): False for video, start, end, name in truth if name == label}
    curve, right = [], 0
    for count, (video, start, end, _, _) in enumerate(ranked, start=1):
        overlaps = [
            ((min(end, e) - max(start, s)) / (max(end, e) - min(start, s)), (v, s, e))
            for (v, s, e), is_taken in there.items() if v == video and not is_taken and min(end, e) > max(start, s)
        ]  # fmt: skip
        best, stretch = max(overlaps, default=(0.0, None))
        if best >= iou:
            there[stretch] = True
            right += 1
        curve.append((right / len(there), right / count))
    steps = [k / len(there) for k in range(1, len(there) + 1)]
    return 100 * sum(max((precision for recall, precision in curve if recall >= step - 1e-9), default=0.0) for step in steps) / len(there)


def independent(found, truth, ious, background=()):
    """{"map": ..., "map@0.5": ...}. found: (video, start, end, label, confidence). truth: (video, start, end, label)."""
    labels = sorted({row[3] for row in truth} - {*background})
    by_iou = {iou: sum(precision_of(found, truth, label, iou) for label in labels) / len(labels) for iou in ious}
    return {"map": sum(by_iou.values()) / len(by_iou), **{f"map@{iou:g}": value for iou, value in by_iou.items()}}
