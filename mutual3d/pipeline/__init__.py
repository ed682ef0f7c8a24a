"""A run as plans and stages: train, calibrate, measure the grid, save, test. Only `build` reads a config."""

from .build import check_machine, from_config, load_config, tell_of_devices
from .plans import CalibrationPlan, GridPlan, MeasuringPlan, RunPlan, TestPlan, TrainingPlan
from .run import run_stages

__all__ = [
    "CalibrationPlan",
    "GridPlan",
    "MeasuringPlan",
    "RunPlan",
    "TestPlan",
    "TrainingPlan",
    "check_machine",
    "from_config",
    "load_config",
    "tell_of_devices",
    "run_stages",
]
