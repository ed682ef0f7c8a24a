"""The one file that is deployed, and the model it loads to."""

from dataclasses import asdict, dataclass

import torch
import torch.nn as nn

from mutual3d.evaluation.calibration import statistics_from_dict, statistics_to_dict
from mutual3d.evaluation.measure import ACTIVATIONS
from mutual3d.evaluation.query_table import QueryTable
from mutual3d.models import create_model
from mutual3d.sampling import prepare_clip
from mutual3d.utils.checkpoint import load_weights
from mutual3d.utils.files import load_tensors, save_tensors

FORMAT = "mutual3d-adaptive-1"


@dataclass(frozen=True)
class Preprocessing:
    """How a clip is cut from a video and normalised: DATA.* of the training run; crop in pixels.

    activation: what turns logits into scores, softmax or sigmoid. ensemble: how scores of views are joined, sum or max.
    resize: images' short side before the crop; None takes the crop's.
    """

    mean: tuple
    std: tuple
    num_frames: int
    sampling_rate: int
    target_fps: float
    crop: int
    activation: str = "softmax"
    ensemble: str = "sum"
    resize: int | None = None


class AdaptiveModel(nn.Module):
    """Weights, statistics and query table together: a model that runs at any configuration or budget.

    Takes one full-size clip tensor, B, 3, T, S, S (images: B, 3, S, S), uint8 (normalised here) or float (normalised
    already), shrinks it to the active configuration and returns class probabilities B, K. A network that classifies
    boxes takes whole frames, S their short side, and boxes N, 5 (position in the batch; x1, y1, x2, y2 in [0, 1]), and
    returns N, K.
    """

    def __init__(self, network, *, preprocessing, table=None, class_names=None):
        super().__init__()
        self.network = network.eval()
        self.preprocessing, self.table, self.class_names = preprocessing, table, class_names

    @property
    def active(self):
        return self.network.active

    def activate(self, configuration):
        """Run at `configuration` from now on; takes microseconds. ValueError outside the space; see `load`."""
        self.network.activate(configuration)
        return self

    def set_budget(self, *, gflops=None, latency_ms=None, device=None):
        """Activate the most accurate measured configuration within the budget; returns its row of the query table.

        gflops: of one view. latency_ms: median of one clip on `device`, a key of the table. Raises BudgetTooSmall,
        which carries the nearest row, when nothing fits.
        """
        if self.table is None:
            raise ValueError("this model has no query table: run with GRID.ENABLE True, or activate a configuration")
        row = self.table.select(gflops=gflops, latency_ms=latency_ms, device=device)
        self.activate(row.configuration)
        return row

    def extract(self, configuration, fold_bn=False):
        """A plain module: takes what `self.network.fit_clip` makes of a normalised clip, returns logits."""
        return self.network.extract(configuration, fold_bn=fold_bn)

    def forward(self, clip_BCTHW, boxes=None):
        clip_BCTHW = clip_BCTHW.unsqueeze(2) if clip_BCTHW.ndim == 4 else clip_BCTHW
        self._check_clip(clip_BCTHW)
        if self.network.takes_boxes and boxes is None:
            raise ValueError("this model classifies boxes: give them as a float tensor N, 5 (see AdaptiveModel)")
        if clip_BCTHW.dtype == torch.uint8:
            clip_BCTHW = prepare_clip(clip_BCTHW, clip_BCTHW.device, self.preprocessing.mean, self.preprocessing.std)
        logits = self.network(self.network.fit_clip(clip_BCTHW), *([] if boxes is None else [boxes]))
        return ACTIVATIONS[self.preprocessing.activation](logits, 1)

    def _check_clip(self, clip_BCTHW):
        full = (3, self.preprocessing.num_frames, self.preprocessing.crop, self.preprocessing.crop)
        given = tuple(clip_BCTHW.shape[1:])
        if self.network.takes_boxes and given:
            given = (*given[:2], min(given[2:]), min(given[2:]))
        if given != full:
            raise ValueError(
                f"the clip is {tuple(clip_BCTHW.shape)}: give B, {', '.join(map(str, full))}, the full size that every "
                "configuration is cut from; the model shrinks it itself"
            )

    def save(self, path):
        """Write everything to one file of plain data and tensors."""
        save_tensors(
            path,
            {
                "format": FORMAT,
                "model_arguments": self.network.arguments,
                "model_state": self.network.state_dict(),
                "statistics": statistics_to_dict(self.network.statistics),
                "query_table": None if self.table is None else self.table.to_dict(),
                "preprocessing": asdict(self.preprocessing),
                "class_names": self.class_names,
            },
        )

    @classmethod
    def load(cls, path):
        """Load what `save` wrote, onto the CPU. FileNotFoundError or ValueError that names the file and the fix."""
        content = load_tensors(path)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(
                f"'{path}' is not a deployable model: give the adaptive.pyth that tools/run_net.py writes at its end"
            )
        network = create_model(**content["model_arguments"])
        network.place(torch.device("cpu"))
        load_weights(network, content["model_state"], path)
        network.set_statistics(statistics_from_dict(content["statistics"]))
        table = content["query_table"] and QueryTable.from_dict(content["query_table"])
        preprocessing = Preprocessing(**content["preprocessing"])
        return cls(network, preprocessing=preprocessing, table=table, class_names=content["class_names"])
