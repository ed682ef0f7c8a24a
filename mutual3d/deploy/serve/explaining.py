"""Where the network looked in an upload: the frames of its clip with the heat over them, and the heat over time."""

import base64
import io

import numpy as np
import torch
from PIL import Image

from mutual3d.deploy.adaptive_model import AdaptiveModel
from mutual3d.deploy.explain import Explanation, explain_clip
from mutual3d.deploy.explain_files import heat_over
from mutual3d.deploy.prediction import Clips
from mutual3d.deploy.serve.answers import Look
from mutual3d.sampling import Configuration

# The most frames that are drawn, and the pixels of a side that they are enlarged to.
_MOST_FRAMES, _SIDE = 16, 224


def draw_looks(model: AdaptiveModel, clips: Clips, configuration: Configuration, class_name: str | None) -> tuple[Explanation, list[Look]]:
    """What in a clip spoke for a class, and the frames to be shown: those that the configuration looked at, of many every few.

    clips: one, uint8. class_name: as of `explain_clip`, which this raises as; ValueError also for a clip that is no pixels.
    """
    clip_BCTHW = clips.clips_VCTHW
    if clip_BCTHW.dtype != torch.uint8:
        raise ValueError("the clip is normalised already, and heat is shown over pixels: send uint8")
    clips = clips._replace(clips_VCTHW=clip_BCTHW.unsqueeze(2) if clip_BCTHW.ndim == 4 else clip_BCTHW)
    (found,) = explain_clip(model, clips, [configuration], class_name)
    step = -(-len(found.seen) // _MOST_FRAMES)
    frames_THWC = clips.clips_VCTHW[0].permute(1, 2, 3, 0).numpy()
    looks = [
        Look(second=found.seconds[place], activation=found.curve_T[place].item(), image=_as_address(frames_THWC[place], found.heat_THW[place]))
        for place in found.seen[::step]
    ]  # fmt: skip
    return found, looks


def _as_address(frame_HWC: np.ndarray, heat_HW: torch.Tensor) -> str:
    """A JPEG of a frame with heat over it, as an address that holds it."""
    image = Image.fromarray(frame_HWC)
    if image.width < _SIDE:
        image = image.resize((_SIDE, round(_SIDE * image.height / image.width)), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    Image.fromarray(heat_over(np.asarray(image), heat_HW)).save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
