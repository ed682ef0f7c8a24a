"""What a training learns from beside its labels: the logits of another network, of any size and make, in a file.

The file is one of `torch.save`, a dict of plain containers, which opens without running code: `paths`, a list of N texts, what each
sample is called (`ClipDataset.title_of`: its path, and of a stretch its seconds); `logits`, a float tensor N, K; and, where they are
known, `classes`, the names of the K classes in their order. Rows are found by path, never by their order.
"""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeGuard

import torch

from mutual3d.utils.files import load_tensors, save_tensors
from mutual3d.utils.fingerprint import fingerprint
from mutual3d.utils.logging import logger
from mutual3d.utils.text import printable

_HOW = "`mutual3d logits` writes such files, and torch.save({'paths': [...], 'logits': float N, K}, path) does"


class StoredTeacher(Protocol):
    """Logits of another network for each sample of a training set, by its position there."""

    def logits(self, indices: torch.Tensor) -> torch.Tensor:
        """float32 B, K, on the CPU, of the samples at `indices`, int64 B; NaN in the rows of those that it says nothing of."""

    def fingerprint(self) -> str:
        """Text that changes with any of the logits, and with whose they are."""


class TeacherRows:
    """A `StoredTeacher` in memory. logits: float N, K, a row for each sample of the training set in its order, NaN where there is none.
    classes: names of the K classes, None where nothing names them."""

    def __init__(self, logits: torch.Tensor, classes: Sequence[str] | None = None) -> None:
        self._logits, self.classes = logits, classes

    def logits(self, indices: torch.Tensor) -> torch.Tensor:
        """float32 B, K of the samples at `indices`, int64 B."""
        return self._logits[indices].float()

    def fingerprint(self) -> str:
        """Changes with each of the logits and with their order, which is that of the training set."""
        return fingerprint("stored logits", self._logits)


def save_logits(path: str | os.PathLike, titles: Sequence[str], logits_NK: torch.Tensor, classes: Sequence[str] | None = None) -> int:
    """Write the logits N, K of samples that are called `titles` for `load_teacher`, each name once; the number of rows.

    classes: names of the K classes, None where they are not known. Raises OSError as of `save_tensors`.
    """
    first = {_absolute(title): row for row, title in reversed(list(enumerate(titles)))}
    rows = sorted(first.values())
    content: dict[str, Any] = {"paths": [_absolute(titles[row]) for row in rows], "logits": logits_NK[rows].float()}
    save_tensors(path, content if classes is None else {**content, "classes": list(classes)})
    return len(rows)


def load_teacher(
    path: str | os.PathLike, titles: Sequence[str], num_classes: int, *, max_missing: float = 0.0
) -> TeacherRows:
    """The logits in a file for the samples that are called `titles`, in their order.

    num_classes: K of the network that is trained. max_missing: the share of the samples that may have no row (DATA_LOADER.MAX_UNREADABLE_TRAIN): what could not be read then may be
    readable now. Rows of other samples are left out. Raises FileNotFoundError and ValueError that name the file, what is wrong and the fix.
    """
    content = _read(path)
    paths, classes = content["paths"], content.get("classes")
    logits = _checked_logits(path, paths, content["logits"], num_classes)
    if classes is not None and not (_are_texts(classes) and len(classes) == num_classes):
        raise ValueError(f"TRAIN.TEACHER_LOGITS '{path}': its 'classes' are no list of {num_classes} names, one for each column: leave them out, or name all")
    names = [_absolute(name) for name in paths]
    row_of = {name: row for row, name in enumerate(names)}
    if len(row_of) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise ValueError(
            f"TRAIN.TEACHER_LOGITS '{path}' has {len(names) - len(row_of)} rows too many, such as a second one of '{printable(twice)}': which "
            "of them teaches is not known; write one row for each video"
        )
    rows = [row_of.get(_absolute(title), -1) for title in titles]
    _check_missing(path, titles, names, rows, max_missing)
    found = torch.tensor(rows)
    of_list = logits[found.clamp_min(0)]
    of_list[found < 0] = torch.nan
    return TeacherRows(of_list, classes)


def _absolute(name: str) -> str:
    """By which a sample of a file and one of a list are the same: paths without their `..`; what is no path stays."""
    return os.path.abspath(name) if os.path.dirname(name) else name


def _read(path: str | os.PathLike) -> dict[str, Any]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"TRAIN.TEACHER_LOGITS is '{path}', and there is no such file: {_HOW}")
    try:
        content = load_tensors(path)
    except ValueError as error:
        raise ValueError(f"TRAIN.TEACHER_LOGITS: {error}; {_HOW}") from error
    if not isinstance(content, dict) or not {"paths", "logits"} <= content.keys():
        raise ValueError(f"TRAIN.TEACHER_LOGITS '{path}' holds no 'paths' and 'logits': {_HOW}")
    return content


def _are_texts(value: object) -> TypeGuard[Sequence[str]]:
    return isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value)


def _checked_logits(path: str | os.PathLike, paths: object, logits: object, num_classes: int) -> torch.Tensor:
    """The logits, which remember nothing of how their teacher made them."""
    told = f"TRAIN.TEACHER_LOGITS '{path}'"
    if not _are_texts(paths):
        raise ValueError(f"{told}: its 'paths' are no list of texts; {_HOW}")
    if not isinstance(logits, torch.Tensor) or not logits.is_floating_point() or logits.layout != torch.strided or logits.ndim != 2:
        shown = f"a {logits.dtype} tensor of shape {tuple(logits.shape)}, {logits.layout}" if isinstance(logits, torch.Tensor) else f"a {type(logits).__name__}"
        raise ValueError(f"{told}: its 'logits' are {shown}, and must be a dense float tensor, a row for each path and a column for each class; {_HOW}")
    if len(paths) != len(logits):
        raise ValueError(f"{told} has {len(paths)} paths and {len(logits)} rows of logits: write one row for each path")
    if logits.shape[1] != num_classes:
        raise ValueError(
            f"{told} has logits of {logits.shape[1]} classes, and MODEL.NUM_CLASSES is {num_classes}: take those of a network of the same classes"
        )
    # In the precision that is learned in: some finite numbers of float64 are none there.
    wrong = ~logits.float().isfinite().all(1)
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise ValueError(
            f"{told}: {int(wrong.sum())} of {len(paths)} rows hold NaN or infinity, such as that of '{printable(paths[first])}': leave out the "
            "rows of videos that the teacher could not read, and mend the others"
        )
    return logits.detach()


def _check_missing(path: str | os.PathLike, titles: Sequence[str], names: Sequence[str], rows: Sequence[int], max_missing: float) -> None:
    """Refuse a file that says too little of the list; tell how much it leaves out."""
    missing = [title for title, row in zip(titles, rows) if row < 0]
    if not missing:
        return
    told = f"TRAIN.TEACHER_LOGITS '{path}' has no row of {len(missing)} of the {len(titles)} samples of the training list, such as '{printable(missing[0])}'"
    if len(missing) == len(titles) or len(missing) > max_missing * len(titles):
        there = f"its first row is of '{printable(names[0])}'" if names else "it has no rows"
        raise ValueError(
            f"{told} ({there}): write it for this list (`mutual3d logits ... --split train`), with the paths that the list has, or tolerate "
            f"a share with DATA_LOADER.MAX_UNREADABLE_TRAIN (now {max_missing:g})"
        )
    logger.warning("%s: these learn from their labels alone", told)
