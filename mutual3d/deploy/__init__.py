"""Running a trained network: one file that switches configuration at run time."""

from .adaptive_model import AdaptiveModel, Preprocessing
from .decoding import Decoding
from .embed import Embeddings
from .explain import Explanation, explain_clip
from .live import FrameSource
from .predict import predict_boxes, predict_video
from .prediction import Prediction, Predictions
from .stream import DeadlineStream, StreamPrediction

__all__ = [
    "AdaptiveModel",
    "DeadlineStream",
    "Decoding",
    "Embeddings",
    "Explanation",
    "FrameSource",
    "Prediction",
    "Predictions",
    "Preprocessing",
    "StreamPrediction",
    "explain_clip",
    "predict_boxes",
    "predict_video",
]
