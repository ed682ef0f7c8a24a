"""The mutual step, its objectives, the optimizer, the schedule, checkpoints and the loop."""

from .averaging import WeightAverage
from .checkpoint import Checkpoints, Progress
from .loop import GradientClipping, Trainer, TrainingCourse
from .mixing import BatchTransform, Mixing
from .objectives import LOSS_FUNCTIONS, OBJECTIVES, Method, Objective, check_objective, distillation_loss
from .optimizer import build_optimizer, parameter_groups
from .profile import StepProfile
from .schedule import cosine_schedule, relative_steps_schedule
from .step import MutualStep, NonFiniteLossError

__all__ = [
    "BatchTransform",
    "Checkpoints",
    "GradientClipping",
    "LOSS_FUNCTIONS",
    "Method",
    "Mixing",
    "MutualStep",
    "NonFiniteLossError",
    "OBJECTIVES",
    "Objective",
    "Progress",
    "StepProfile",
    "Trainer",
    "TrainingCourse",
    "WeightAverage",
    "build_optimizer",
    "check_objective",
    "cosine_schedule",
    "distillation_loss",
    "parameter_groups",
    "relative_steps_schedule",
]
