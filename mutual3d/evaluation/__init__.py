"""Calibration, and the accuracy of every configuration; what both have so far survives a kill."""

from .calibration import calibrate
from .grid import grid_configurations
from .measure import measure
from .resume import PartialResult
from .unreadable import UnreadableVideos, UnreadableVideosError
from .video_pass import Scoring, VideoPass

__all__ = [
    "PartialResult",
    "Scoring",
    "UnreadableVideos",
    "UnreadableVideosError",
    "VideoPass",
    "calibrate",
    "grid_configurations",
    "measure",
]
