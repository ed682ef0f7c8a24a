"""The mutual step, its objectives, the optimizer, the schedule, checkpoints and the loop."""

from .averaging import WeightAverage
from .checkpoint import Checkpoints, Progress
from .loop import GradientClipping, Trainer, TrainingCourse
from .mixing import BatchTransform, Mixing
from .objectives import LOSS_FUNCTIONS, OBJECTIVES, Method, Objective, StoredTeaching, check_objective, distillation_loss
from .optimizer import build_optimizer, parameter_groups
from .profile import StepProfile
from .schedule import cosine_schedule, relative_steps_schedule
from .step import MutualStep, NonFiniteLossError
from .teacher import StoredTeacher, TeacherRows, load_teacher, save_logits

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
    "StoredTeacher",
    "StoredTeaching",
    "TeacherRows",
    "Trainer",
    "TrainingCourse",
    "WeightAverage",
    "build_optimizer",
    "check_objective",
    "cosine_schedule",
    "distillation_loss",
    "load_teacher",
    "parameter_groups",
    "relative_steps_schedule",
    "save_logits",
]
