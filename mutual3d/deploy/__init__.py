"""Running a trained network: one file that switches configuration at run time."""

from .adaptive_model import AdaptiveModel, Preprocessing
from .decoding import Decoding
from .predict import predict_boxes, predict_video
from .prediction import Prediction, Predictions

__all__ = ["AdaptiveModel", "Decoding", "Prediction", "Predictions", "Preprocessing", "predict_boxes", "predict_video"]
