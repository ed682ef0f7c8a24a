"""Which sub-network runs: configurations, the space they come from, sampling rules, shrinking a clip to one."""

from .cascade import Cascade
from .clip import (
    fit_clip,
    fit_clips,
    normalize_clip,
    prepare_clip,
    shrink_clip,
    take_frames,
    temporal_indices,
    view_size,
)
from .configuration import WIDTHS_BY, Configuration, SearchSpace
from .preprocessing import ACTIVATIONS, Preprocessing
from .rules import RULES, expected_step_cost, first_contains_others, sample_subnets, smallest_of_every_step, step_generator

__all__ = [
    "ACTIVATIONS",
    "Cascade",
    "Configuration",
    "Preprocessing",
    "RULES",
    "SearchSpace",
    "WIDTHS_BY",
    "expected_step_cost",
    "first_contains_others",
    "fit_clip",
    "fit_clips",
    "normalize_clip",
    "prepare_clip",
    "sample_subnets",
    "shrink_clip",
    "smallest_of_every_step",
    "step_generator",
    "take_frames",
    "temporal_indices",
    "view_size",
]
