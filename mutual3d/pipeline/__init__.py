"""A run as plans and stages: train, calibrate, measure the grid, save, test. Only `build` reads a config."""

from .build import (
    check_machine,
    counting_plan,
    data_directory,
    from_config,
    initial_network,
    load_config,
    logits_plan,
    machine_of,
    slim_plan,
    tell_of_devices,
)  # fmt: skip
from .logits import write_logits
from .plans import (
    CalibrationPlan,
    CountingPlan,
    GridPlan,
    LogitsPlan,
    MachinePlan,
    MeasuringPlan,
    RunPlan,
    SlimPlan,
    TestPlan,
    TrainingPlan,
)  # fmt: skip
from .run import run_stages
from .slimming import slim_network

__all__ = [
    "CalibrationPlan", "CountingPlan", "GridPlan", "LogitsPlan", "MachinePlan", "MeasuringPlan", "RunPlan", "SlimPlan", "TestPlan", "TrainingPlan",
    "check_machine", "counting_plan", "data_directory", "from_config", "initial_network", "load_config", "logits_plan",
    "machine_of", "run_stages", "slim_network", "slim_plan", "tell_of_devices", "write_logits",
]  # fmt: skip
