"""People in a video, by a detector of torchvision's: boxes for a network that classifies them."""

import torch
from torchvision.models.detection import fasterrcnn_resnet50_fpn

from mutual3d.data.decode import open_video
from mutual3d.utils.files import load_tensors
from mutual3d.utils.logging import progress_bar

# The number of "person" among COCO's classes, which torchvision's weights tell apart.
_PERSON = 1


def load_detector(path):
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


def detect_people(detector, video_path, *, every=1.0, threshold=0.8, backend="pyav"):
    """{second: (boxes float n, 4 in [0, 1] of the frame; scores float n)} of a frame in each `every` seconds.

    Boxes scored below `threshold` are left out, and so are seconds without any.
    """
    found = {}
    device = next(detector.parameters()).device
    with open_video(video_path, backend) as reader, torch.no_grad():
        step = max(1, round(every * reader.fps))
        wanted = range(min(step // 2, reader.num_frames - 1), reader.num_frames, step)
        for index, frame_HWC in progress_bar(reader.frames(wanted), "detecting people", len(wanted), unit="frame"):
            image = torch.tensor(frame_HWC).permute(2, 0, 1).to(device) / 255
            boxes, scores = _people(detector([image])[0], threshold)
            height, width = frame_HWC.shape[:2]
            if len(boxes):
                found[index / reader.fps] = boxes / torch.tensor([width, height, width, height]), scores
    return found


def _people(result, threshold):
    kept = (result["labels"] == _PERSON) & (result["scores"] >= threshold)
    return result["boxes"][kept].cpu(), result["scores"][kept].cpu()
