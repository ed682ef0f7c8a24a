"""Running a trained network: one file that switches configuration at run time."""

from .adaptive_model import AdaptiveModel, Preprocessing
from .predict import Prediction, predict_boxes, predict_video

__all__ = ["AdaptiveModel", "Prediction", "Preprocessing", "predict_boxes", "predict_video"]
