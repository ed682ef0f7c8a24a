"""One configuration of a deployed model as what runtimes compile: from the uint8 clip to scores, and the file's metadata."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch

from mutual3d.deploy.runtimes import ExtractedNetwork, Runtime
from mutual3d.deploy.runtimes.interface import TOLERANCE_OF_LEVELS
from mutual3d.models.adaptive import AdaptiveNetwork, ShrinksFeatures
from mutual3d.sampling import ACTIVATIONS, Configuration, shrink_clip, temporal_indices, view_size

if TYPE_CHECKING:  # which imports this
    from mutual3d.deploy.adaptive_model import AdaptiveModel


def extract_network(
    model: "AdaptiveModel",
    configuration: Configuration,
    examples: Mapping[str, torch.Tensor],
    device: torch.device,
    dtype: torch.dtype,
    clips: Sequence[torch.Tensor] = (),
) -> ExtractedNetwork:
    """A model at `configuration`, for a runtime: from what the model is called with to scores, floats of `dtype` on `device`.

    Normalising, shrinking and softmax or sigmoid are inside; norms are folded. It takes the tensors of `examples`, see
    `example_inputs`, at any batch, and gives `scores` B, K (N, K of boxes). clips: of the user's, for runtimes that choose
    their numbers' ranges by them. Other threads may call the model meanwhile. Raises ValueError and NotCalibratedError as
    `extract` does.
    """
    module = ServedNetwork(model, configuration, is_normalized=examples["clip"].is_floating_point()).to(device, dtype)
    # Frames are chosen by whole numbers, which `to` leaves alone.
    moved = {name: x.to(device, dtype if x.is_floating_point() and name == "clip" else x.dtype) for name, x in examples.items()}
    height, width = examples["clip"].shape[-2:]
    return ExtractedNetwork(module, moved, "scores", metadata(model, configuration, (height, width)), tuple(clips))


def example_inputs(
    model: "AdaptiveModel", frame: tuple[int, int] | None = None, *, is_normalized: bool = False
) -> dict[str, torch.Tensor]:
    """{name: tensor} of two random clips, as the model is called with: `clip`, and `boxes` N, 5 where it takes them.

    frame: height and width in pixels, by default the crop's square. is_normalized: floats that are normalised already.
    """
    network, crop = model.network, model.preprocessing.crop
    shape = (2, network.in_channels, network.clip_frames, *(frame or (crop, crop)))
    generator = torch.Generator().manual_seed(0)
    clip = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    if is_normalized:
        clip = torch.randn(shape, generator=generator)
    if network.takes == "images":
        clip = clip[:, :, 0]
    if not network.takes_boxes:
        return {"clip": clip}
    boxes = [[0, 0.1, 0.2, 0.6, 0.9], [1, 0.0, 0.0, 1.0, 1.0], [1, 0.4, 0.3, 0.7, 0.8]]
    return {"clip": clip, "boxes": torch.tensor(boxes)}


def expected_scores(
    model: "AdaptiveModel", examples: Mapping[str, torch.Tensor], configuration: Configuration
) -> torch.Tensor:
    """What the model itself gives for the examples, in PyTorch: float32 on the CPU."""
    device, boxes = next(model.network.parameters()).device, examples.get("boxes")
    scores = model.compute(examples["clip"].to(device), None if boxes is None else boxes.to(device), configuration)
    return scores.float().cpu()


def allowed_difference(runtime: Runtime, network: AdaptiveNetwork) -> float:
    """The largest difference of a score from PyTorch's with which a network is used in a runtime.

    It is the runtime's own `tolerance`; of a network that quantises activations, whose values are moved by whole levels where sums are
    rounded in another way, at least what a network in 8 bits is allowed.
    """
    return max(runtime.tolerance, TOLERANCE_OF_LEVELS) if network.quantizes_activations else runtime.tolerance


class ServedNetwork(ShrinksFeatures):
    """A model at one configuration, as one plain module.

    clip uint8 B, 3, T, S, S (images: B, 3, S, S), boxes N, 5 -> frames chosen -> `shrink` -> normalised (BGR where the
    network takes that) -> the extracted network, norms folded -> softmax or sigmoid: scores B, K or N, K. Shrinking comes
    before normalising, which is the cheaper order and the same: a resize keeps what is constant.
    is_normalized: the clip is floats that are normalised already.
    """

    frames: torch.Tensor
    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, model: "AdaptiveModel", configuration: Configuration, *, is_normalized: bool) -> None:
        super().__init__()
        cut, network = model.preprocessing, model.network
        self.network = network.extract(configuration, fold_bn=True)
        self.split, self.shrink = network.split, shrink_clip
        self.configuration, self.train_crop = configuration, network.space.spatial_sizes[-1]
        self.takes, self.reverse_channels, self.activation = network.takes, cut.reverse_channels, ACTIVATIONS[cut.activation]
        self.is_normalized = is_normalized
        # The adaptive pathway is the first; how many frames it has is the split's affair.
        source = network.split(torch.empty(1, 1, network.clip_frames, 1, 1))[0].shape[2]
        self.register_buffer("frames", temporal_indices(source, configuration.temporal))
        self.register_buffer("scale", 1 / (255 * torch.tensor(cut.std).view(1, -1, 1, 1, 1)))
        self.register_buffer("shift", torch.tensor(cut.mean).view(1, -1, 1, 1, 1) / torch.tensor(cut.std).view(1, -1, 1, 1, 1))

    def forward(self, clip: torch.Tensor, boxes: torch.Tensor | None = None) -> torch.Tensor:
        clip_BCTHW = clip.unsqueeze(2) if clip.ndim == 4 else clip
        adaptive, *whole = self.split(clip_BCTHW)
        if adaptive.shape[2] != self.configuration.temporal:
            adaptive = adaptive.index_select(2, self.frames)
        size = [view_size(side, self.configuration.spatial, self.train_crop) for side in adaptive.shape[3:]]
        fitted = self.shrink(adaptive.to(self.scale.dtype), size, adaptive.shape[2])
        pathways = [self._normalized(fitted), *(self._normalized(pathway.to(self.scale.dtype)) for pathway in whole)]
        inputs = pathways[0].squeeze(2) if self.takes == "images" else pathways
        logits = self.network(inputs) if boxes is None else self.network(inputs, boxes)
        return self.activation(logits.to(torch.promote_types(logits.dtype, torch.float32)), 1)

    def _normalized(self, clip_BCTHW: torch.Tensor) -> torch.Tensor:
        normal = clip_BCTHW if self.is_normalized else clip_BCTHW * self.scale - self.shift
        return normal.flip(1) if self.reverse_channels else normal


def metadata(model: "AdaptiveModel", configuration: Configuration, frame: tuple[int, int]) -> dict[str, str]:
    """{name: JSON text}: the configuration, what the file takes and gives, how a clip is chosen and cut, the classes.

    frame: height and width of what it takes. is_whole: of whole frames, with boxes, and not of their centres. is_image: it
    takes no clips. short_side: pixels that frames' short sides are resized to. The other entries are Preprocessing's.
    """
    cut, network = model.preprocessing, model.network
    if network.takes == "images":
        takes = f"uint8 B, 3, {cut.crop}, {cut.crop}: RGB, short side resized to {cut.resize or cut.crop}, the centre cut out"
    else:
        side = f"{cut.crop}, {cut.crop}: short side resized to {cut.crop} (bilinear), the centre cut out"
        side = f"height, width: whole frames, the short side resized to {cut.crop} (bilinear)" if network.takes_boxes else side
        takes = f"uint8 B, 3, {network.clip_frames}, {side}; RGB"
    entries = {
        "configuration": str(configuration),
        "takes": takes,
        "chooses": (
            f"{cut.num_frames} frames evenly from the first to the last of a clip of {cut.num_frames} x {cut.sampling_rate} frames "
            f"at {cut.target_fps:g} a second, in the middle of the video"
        ),
        "gives": f"scores B, {'classes' if not network.takes_boxes else 'classes, a row for each box'}, after the {cut.activation}",
        "classes": model.class_names,
        "frame": frame,
        "short_side": cut.resize or cut.crop,
        "is_whole": network.takes_boxes,
        "is_image": network.takes == "images",
        **asdict(cut),
    }
    return {name: json.dumps(value) for name, value in entries.items()}
