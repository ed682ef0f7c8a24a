"""The data sets by the words of TRAIN.DATASET: one file each, which registers the set's facts and reads of a config what it needs.

A set of one's own is a file of the same form, see docs/extend_dataset.md.
"""

# Each registers what it holds.
from mutual3d.data.sources import ava, charades, images, kinetics, ssv2  # noqa: F401
from mutual3d.data.sources.facts import (
    LABELS_OF_BOXES,
    ONE_LABEL,
    SEVERAL_LABELS,
    SOURCES,
    Source,
    Task,
    names_beside_the_list,
    register_dataset,
    video_dataset,
)  # fmt: skip

__all__ = [
    "LABELS_OF_BOXES", "ONE_LABEL", "SEVERAL_LABELS", "SOURCES", "Source", "Task", "names_beside_the_list", "register_dataset",
    "video_dataset",
]  # fmt: skip
