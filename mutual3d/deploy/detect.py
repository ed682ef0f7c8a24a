"""People in a video, by a detector of torchvision's: boxes for a network that classifies them."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torchvision.models.detection import fasterrcnn_resnet50_fpn

from mutual3d.data.video.decode import open_video
from mutual3d.data.workers.process import show_life
from mutual3d.deploy.decoding import Decoding, read_apart
from mutual3d.utils.files import load_tensors
from mutual3d.utils.logging import progress_bar

# The number of "person" among COCO's classes, which torchvision's weights tell apart.
_PERSON = 1
# Frames that are read at a time: some tens of megabytes.
_FRAMES_AT_ONCE = 8


def load_detector(path: str | Path) -> torch.nn.Module:
    """torchvision's `fasterrcnn_resnet50_fpn` with the weights of a file, in evaluation mode.

    The file is the state dict that torchvision publishes (`fasterrcnn_resnet50_fpn_coco-258fb6c6.pth`). Raises
    FileNotFoundError for a missing file, ValueError for another network's.
    """
    detector = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    try:
        detector.load_state_dict(load_tensors(path))
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(
            f"'{path}' does not hold the weights of torchvision's fasterrcnn_resnet50_fpn: {str(error).splitlines()[0]}"
        ) from error
    return detector.eval()


def detect_people(
    detector: torch.nn.Module,
    video_path: str | Path,
    *,
    every: float = 1.0,
    threshold: float = 0.8,
    decoding: Decoding = Decoding(),
) -> dict[float, tuple[torch.Tensor, torch.Tensor]]:
    """{second: (boxes float n, 4 in [0, 1] of the frame; scores float n)} of a frame in each `every` seconds.

    The frames are those shown in the middle of each span, and the seconds those at which they are shown. Boxes scored below
    `threshold` are left out, and so are seconds without any. The video is read in a process of its own. Raises VideoError if
    unreadable, ValueError unless `every` is a positive number.
    """
    if not 0 < every < math.inf:
        raise ValueError(f"people are to be looked for every {every} seconds: give a positive number")
    (wanted,) = read_apart(frames_in_spans, video_path, [(every, decoding.backend)], decoding)
    parts = [wanted[i : i + _FRAMES_AT_ONCE] for i in range(0, len(wanted), _FRAMES_AT_ONCE)]
    read = read_apart(read_frames, video_path, [(part, decoding.backend) for part in parts], decoding)
    frames = (frame for part in read for frame in part)
    found = {}
    device = next(detector.parameters()).device
    with torch.no_grad():
        for second, frame_HWC in progress_bar(frames, "detecting people", len(wanted), unit="frame") if decoding.progress else frames:
            image = frame_HWC.permute(2, 0, 1).to(device) / 255
            boxes, scores = _people(detector([image])[0], threshold)
            height, width = frame_HWC.shape[:2]
            if len(boxes):
                found[second] = boxes / torch.tensor([width, height, width, height]), scores
    return found


def frames_in_spans(path: str | Path, every: float, backend: str) -> list[int]:
    """The frames of a video that are shown in the middle of each `every` seconds; one where it is shorter than half of that."""
    with open_video(path, backend) as reader:
        moments = [every * (span + 0.5) for span in range(math.ceil(reader.duration / every - 0.5))]
        return sorted(set(reader.indices_at(moments or [reader.duration / 2])))


def read_frames(path: str | Path, indices: Sequence[int], backend: str) -> list[tuple[float, torch.Tensor]]:
    """[(second at which it is shown, frame uint8 H, W, 3)] of these frames of a video, in its order."""
    found = []
    with open_video(path, backend) as reader:
        for index, frame_HWC in reader.frames(indices):
            found.append((reader.time_of(index), torch.tensor(frame_HWC)))
            show_life()
    return found


def _people(result: dict[str, torch.Tensor], threshold: float) -> tuple[torch.Tensor, torch.Tensor]:
    kept = (result["labels"] == _PERSON) & (result["scores"] >= threshold)
    return result["boxes"][kept].cpu(), result["scores"][kept].cpu()
