"""Running a trained network: one file that switches configuration at run time."""

from .adaptive_model import AdaptiveModel, Preprocessing
from .decoding import Decoding
from .embed import Embeddings
from .explain import Explanation, explain_clip
from .live import FrameSource
from .predict import predict_boxes, predict_video
from .prediction import Prediction, Predictions
from .scan import Events, ScanRow
from .stream import DeadlineStream, StreamPrediction

__all__ = [
    "AdaptiveModel",
    "DeadlineStream",
    "Decoding",
    "Embeddings",
    "Explanation",
    "Events",
    "FrameSource",
    "Prediction",
    "Predictions",
    "Preprocessing",
    "ScanRow",
    "StreamPrediction",
    "explain_clip",
    "predict_boxes",
    "predict_video",
]
