"""The mutual step, its objectives, the optimizer, the schedule, checkpoints and the loop."""

from .checkpoint import Checkpoints
from .loop import GradientClipping, Trainer, TrainingCourse
from .objectives import LOSS_FUNCTIONS, OBJECTIVES, Method, Objective, check_objective, distillation_loss
from .optimizer import build_optimizer, parameter_groups
from .schedule import cosine_schedule, relative_steps_schedule
from .step import MutualStep, NonFiniteLossError

__all__ = [
    "Checkpoints",
    "GradientClipping",
    "LOSS_FUNCTIONS",
    "Method",
    "MutualStep",
    "NonFiniteLossError",
    "OBJECTIVES",
    "Objective",
    "Trainer",
    "TrainingCourse",
    "build_optimizer",
    "check_objective",
    "cosine_schedule",
    "distillation_loss",
    "parameter_groups",
    "relative_steps_schedule",
]
