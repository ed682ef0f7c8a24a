"""The page of a run, and what it keeps so that the page can be written again where the videos are not."""

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mutual3d.data.datasets.dataset import ClipDataset
from mutual3d.deploy.adaptive_model import load
from mutual3d.pipeline.predictions import left_out, load_per_class, load_predictions, read_examples
from mutual3d.report.classes import Example, Predictions
from mutual3d.report.page import Findings, MultiViewTest, write_report
from mutual3d.table.query_table import QueryTable
from mutual3d.utils.files import read_json, write_json
from mutual3d.utils.logging import logger, read_json_stats

KEPT = "report.json"


def write_page(
    output: Path,
    table: QueryTable,
    dataset: ClipDataset,
    *,
    command: str,
    settings: str,
    class_names: Sequence[str],
    has_boxes: bool,
    with_test: bool,
) -> None:
    """report.html about `table`, of what lies in the output directory.

    Frames of examples are read from the data set once for a table, and kept in report.json. with_test: test_results.json
    belongs to this run's network.
    """
    predictions = load_predictions(output, table)
    kept = _load_kept(output, table)
    if kept is None or (predictions and not kept["examples"]):
        examples = read_examples(dataset, predictions[-1]) if predictions else ()
        kept = {"command": command, "left_out": left_out(dataset, predictions), "examples": [_to_dict(one) for one in examples]}
    kept["command"] = command
    write_json(output / KEPT, {"fingerprint": table.provenance.get("fingerprint"), **kept})
    _write(output, table, predictions, kept, settings=settings, class_names=class_names, has_boxes=has_boxes, with_test=with_test)


def write_page_without_data(output: Path) -> Path:
    """Write report.html of a finished run once more, such as by a newer version, from its output directory alone; its path.

    Raises FileNotFoundError and ValueError where the query table or adaptive.pyth is missing or damaged.
    """
    table, model = QueryTable.load(output / "query_table.json"), load(output / "adaptive.pyth")
    kept = _load_kept(output, table) or {"command": "", "left_out": [], "examples": []}
    config, tested = output / "config.yaml", output / "test_results.json"
    _write(
        output, table, load_predictions(output, table), kept, class_names=model.class_names or (),
        settings=config.read_text(encoding="utf-8") if config.is_file() else "", has_boxes=model.network.takes_boxes,
        # A test comes after its table: an older one is of another network.
        with_test=tested.is_file() and tested.stat().st_mtime_ns >= (output / "query_table.json").stat().st_mtime_ns,
    )  # fmt: skip
    return output / "report.html"


def _write(
    output: Path, table: QueryTable, predictions: Sequence[Predictions], kept: dict[str, Any], *,
    settings: str, class_names: Sequence[str], has_boxes: bool, with_test: bool,
) -> None:  # fmt: skip
    findings = Findings(
        command=kept["command"],
        config=settings,
        predictions=predictions,
        per_class=load_per_class(output, table, class_names),
        examples=[_from_dict(one) for one in kept["examples"]],
        test=MultiViewTest.from_dict(read_json(output / "test_results.json")) if with_test else None,
        class_names=class_names,
        left_out=kept["left_out"],
        has_boxes=has_boxes,
    )
    stats = read_json_stats(output / "stdout.log")
    history = [entry for entry in stats if entry.get("_type") in ("train_epoch", "val_epoch")]
    write_report(table, output / "report.html", history=history, findings=findings)


def _load_kept(output: Path, table: QueryTable) -> dict[str, Any] | None:
    """What report.json holds of this very table; None where it is missing, damaged, or of another."""
    if not (output / KEPT).is_file():
        return None
    try:
        content = read_json(output / KEPT)
        if content["fingerprint"] != table.provenance.get("fingerprint"):
            return None
        for one in content["examples"]:
            _from_dict(one)
        return {"command": str(content["command"]), "left_out": list(map(str, content["left_out"])), "examples": content["examples"]}
    except (ValueError, KeyError, TypeError, AttributeError, OSError, binascii.Error) as error:
        logger.warning("'%s' is not used in the report: %s", output / KEPT, error)
        return None


def _to_dict(one: Example) -> dict[str, Any]:
    numbers = {"label": one.label, "predicted": one.predicted, "confidence": one.confidence}
    video = one.video.encode("utf-8", "replace").decode("utf-8")
    return {"video": video, **numbers, "strip_JPEG": base64.b64encode(one.strip_JPEG).decode("ascii")}


def _from_dict(entry: dict[str, Any]) -> Example:
    strip = base64.b64decode(entry["strip_JPEG"], validate=True)
    return Example(str(entry["video"]), int(entry["label"]), int(entry["predicted"]), float(entry["confidence"]), strip)
