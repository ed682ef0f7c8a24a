"""Where a network looks: what in a clip speaks for a class, over space and time, at any configuration (paper, Fig. 1 and 4).

Class activation maps (Zhou et al., CVPR 2016) where the classes are linear in the pooled features: the classifier's weights say
what each feature is worth, at every place before it is pooled. Where more follows the pool, as X3D's `lin_5` and its ReLU, the
gradient of the class's logit stands for the weights (Grad-CAM: Selvaraju et al., ICCV 2017); where nothing does, the two are
one. Features of an earlier stage, which are finer, are weighed place by place, by their own gradients (LayerCAM: Jiang et al., TIP 2021).
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from mutual3d.deploy.gives import check_gives_classes
from mutual3d.deploy.prediction import Clips
from mutual3d.deploy.used_frames import pathway_frames
from mutual3d.models.adaptive import Inputs, PlainNetwork
from mutual3d.sampling import ACTIVATIONS, Cascade, Configuration
from mutual3d.sampling.cascade import parse_any

if TYPE_CHECKING:  # whose method `explain` is what is here
    from mutual3d.deploy.adaptive_model import AdaptiveModel

# {method: what it is called for people}
METHODS = {
    "cam": "class activation", "grad_cam": "gradient-weighted class activation", "layer_cam": "class activation of an earlier layer",
}  # fmt: skip


@dataclass(frozen=True)
class Explanation:
    """What in a clip spoke for a class, at one configuration.

    configuration: that ran. class_index, class_name: the class that is explained, a number as its name where the model has
    none. probability: of the class, at this configuration. method: `cam`, by the classifier's weights, `grad_cam`, by
    gradients, or `layer_cam`, of an earlier stage.
    heat_THW: float32 T, H, W in [0, 1] for all frames of the full-size clip and all pixels of the view that is cut from each;
    1 where most spoke for the class, all 0 where nothing did. What spoke against it is 0.
    curve_T: float32 T in [0, 1]: the mean heat of each frame over that of the frame with the most.
    seconds: T, at which the frames are shown. seen: positions, among the T frames, that the configuration looked at; the heat
    of the others lies between theirs.
    """

    configuration: Configuration
    class_index: int
    class_name: str
    probability: float
    method: str
    heat_THW: torch.Tensor
    curve_T: torch.Tensor
    seconds: tuple[float, ...]
    seen: tuple[int, ...]

    def heat_at(self, second: float) -> torch.Tensor:
        """The heat H, W at a second: between those of the two frames that are shown around it."""
        place = float(np.interp(second, self.seconds, range(len(self.seconds))))
        before, share = int(place), place % 1
        after = min(before + 1, len(self.seconds) - 1)
        return self.heat_THW[before] * (1 - share) + self.heat_THW[after] * share

    @property
    def short(self) -> str:
        """Configuration, class and probability, in words."""
        return f"{self.configuration}  {self.class_name} {100 * self.probability:.0f} %"

    def describe(self) -> str:
        """The same, and the method."""
        return f"{self.short}  ({METHODS[self.method]})"


class Activation(NamedTuple):
    """What the last features of a network say of a class. maps: of each pathway, float t, h, w: what each place adds to the
    class's logit, of which a linear head takes the means. logits: K. class_index: of the class. method: see `METHODS`.
    """

    maps: list[torch.Tensor]
    logits: torch.Tensor
    class_index: int
    method: str


def explain_clip(
    model: "AdaptiveModel",
    clips: Clips,
    configurations: Sequence[Configuration | str],
    class_name: str | int | None = None,
    stage: str | None = None,
) -> list[Explanation]:
    """An Explanation of one clip at each of `configurations`; thread-safe, whatever the model has active.

    clips: of which there is one. class_name: the name or the number of a class; None explains what each configuration
    predicts. stage: a part of the network whose features are explained, such as s3; None takes the last ones. Raises ValueError for a
    class, a configuration or a stage that there is not, for cascades, for a model of boxes, and for a network that pools in no
    layer of its own; NotCalibratedError.
    """
    check_gives_classes(model, "an explanation")
    if model.network.takes_boxes:
        raise ValueError(
            "this model classifies boxes, and pools inside each of them: the box itself says where it looks. Give a model that "
            "classifies clips or images"
        )
    chosen = [_single(model, each) for each in configurations]
    index = None if class_name is None else find_class(model, class_name)
    return [_explain(model, clips, configuration, index, stage) for configuration in chosen]


def _single(model: "AdaptiveModel", given: Configuration | Cascade | str) -> Configuration:
    found = parse_any(given)
    if isinstance(found, Cascade):
        names = ", ".join(map(str, found.configurations))
        raise ValueError(f"{found} is a cascade, which answers a clip by one of its configurations: explain these, {names}")
    return model.network.space.check(found)


def find_class(model: "AdaptiveModel", name: str | int) -> int:
    """The number of a class that is given by its name or number. Raises ValueError for a name that there is not."""
    names = list(model.class_names or [])
    if isinstance(name, str) and name in names:
        return names.index(name)
    if isinstance(name, int) or (name.isascii() and name.isdigit() and len(name) < 10):
        return int(name)
    nearest = difflib.get_close_matches(name[:100], names, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
    known = f"a name of the model's {len(names)}, or a number from 0" if names else "a number from 0: the classes of this model have no names"
    raise ValueError(f"there is no class {name[:100]!r}{hint} Give {known}")


def _explain(
    model: "AdaptiveModel", clips: Clips, configuration: Configuration, index: int | None, stage: str | None
) -> Explanation:
    clip_BCTHW, cut = clips.clips_VCTHW, model.preprocessing
    found = activation(model.network.extract(configuration), model.inputs(clip_BCTHW, configuration), index, stage)
    scores = ACTIVATIONS[cut.activation](found.logits.float(), 0)
    num_frames, height, width = clip_BCTHW.shape[2:]
    frames = pathway_frames(model.network, configuration)
    heat_THW = torch.zeros(num_frames, height, width)
    for pathway, own in enumerate(found.maps):
        seen = np.linspace(0, num_frames - 1, len(own)) if frames is None else np.array(frames[pathway])
        heat_THW += stretch(own, seen, num_frames, (height, width))
    heat_THW = _over_largest(heat_THW.relu())
    looked_at = range(num_frames) if frames is None else sorted({place for own in frames for place in own})
    name = str(found.class_index) if model.class_names is None else model.class_names[found.class_index]
    return Explanation(
        configuration, found.class_index, name, scores[found.class_index].item(), found.method, heat_THW,
        _over_largest(heat_THW.mean((1, 2))), seconds_of(clips, model), tuple(looked_at),
    )  # fmt: skip


def seconds_of(clips: Clips, model: "AdaptiveModel") -> tuple[float, ...]:
    """The seconds at which the frames of the first clip are shown; of clips without times, as the model's own pace has them."""
    if clips.frame_seconds:
        return clips.frame_seconds[0]
    cut = model.preprocessing
    return tuple(place * cut.sampling_rate / cut.target_fps for place in range(clips.clips_VCTHW.shape[2]))


def _over_largest(values: torch.Tensor) -> torch.Tensor:
    largest = values.max()
    return values / largest if largest > 0 else values


def stretch(map_thw: torch.Tensor, seen: np.ndarray, num_frames: int, size: tuple[int, int]) -> torch.Tensor:
    """A map t, h, w as T, H, W: bilinear in space, linear in time between the frames `seen`, positions among T frames.

    A network that joins frames has fewer in its map than it sees: each lies in the middle of those that it is made of.
    num_frames: T. size: H, W.
    """
    count = len(map_thw)
    centres = (np.arange(count) + 0.5) * len(seen) / count - 0.5
    places = np.interp(centres, np.arange(len(seen)), seen)
    weights_Tt = np.stack([np.interp(np.arange(num_frames), places, row) for row in np.eye(count)], 1)
    in_time = torch.einsum("Tt,thw->Thw", torch.from_numpy(weights_Tt).to(map_thw), map_thw)
    return F.interpolate(in_time[None], size=size, mode="bilinear", align_corners=False)[0]


def activation(network: PlainNetwork, inputs: Inputs, index: int | None = None, stage: str | None = None) -> Activation:
    """The Activation of one clip, on the CPU. network: one of its own, such as `extract` gives. inputs: what it takes.

    index: of a class; None takes that with the highest logit. stage: the child of the network whose outputs are explained; None takes
    what is pooled last. Raises ValueError for another stage, and where no average pooling layer is run.
    """
    network.requires_grad_(False)
    with torch.inference_mode(False), torch.enable_grad():
        if stage is not None:
            features = _watch_stage(network, stage)
            logits = network(inputs)[0]
            class_index = _checked(index, logits)
            gradients = torch.autograd.grad(logits[class_index], features)
            maps = [(gradient.relu() * each.detach()).sum(1)[0].float().cpu() for gradient, each in zip(gradients, features)]
            return Activation(_with_frames(maps), logits.detach().cpu(), class_index, "layer_cam")
        taken, classified = _watch_pools(network)
        logits = network(inputs)[0]
        if not taken:
            raise ValueError(
                "this network averages its features in no layer of its own, where they could be looked at: let it use "
                "nn.AdaptiveAvgPool3d(1) or nn.AdaptiveAvgPool2d(1) before its classifier"
            )
        class_index = _checked(index, logits)
        # Pathways go through one pool in turn; what was pooled earlier, by another one, is inside the network.
        own = [(features, pooled) for pool, features, pooled in taken if pool is taken[-1][0]]
        features = [each for each, _ in own]
        classifier = None if network.classifier_name is None else network.get_submodule(network.classifier_name)
        if classified and _is_same(classified[-1].flatten(1), torch.cat([each.flatten(1) for _, each in own], 1)):
            assert classifier is not None and isinstance(classifier.weight, torch.Tensor)
            weights, method = classifier.weight.flatten(1)[class_index].split([each.shape[1] for each in features]), "cam"
        else:
            # Summed over the places: what a change of the pooled feature would do, whichever way pathways differ in size.
            gradients = torch.autograd.grad(logits[class_index], features)
            weights, method = tuple(each[0].flatten(1).sum(1) for each in gradients), "grad_cam"
    maps = [torch.einsum("c,c...->...", w.float(), x[0].detach().float()).cpu() for w, x in zip(weights, features)]
    return Activation(_with_frames(maps), logits.detach().cpu(), class_index, method)


def _checked(index: int | None, logits: torch.Tensor) -> int:
    if index is not None and not 0 <= index < len(logits):
        raise ValueError(f"there is no class {index}: this network gives classes 0 to {len(logits) - 1}")
    return int(logits.argmax()) if index is None else index


def _with_frames(maps: list[torch.Tensor]) -> list[torch.Tensor]:
    """Maps t, h, w; those of images have one frame."""
    return [each if each.ndim == 3 else each[None] for each in maps]


def _watch_pools(network: PlainNetwork) -> tuple[list[tuple[nn.Module, torch.Tensor, torch.Tensor]], list[torch.Tensor]]:
    """What a call will put there: ((pool, what it took, what it gave), in order; what the classifier took).

    Gradients begin where a pool does: the features of all that comes before it are not kept.
    """
    taken: list[tuple[nn.Module, torch.Tensor, torch.Tensor]] = []
    classified: list[torch.Tensor] = []

    def keep(pool: nn.Module, given: tuple[torch.Tensor, ...], pooled: torch.Tensor) -> None:
        taken.append((pool, given[0], pooled))

    for module in network.modules():
        if isinstance(module, nn.modules.pooling._AdaptiveAvgPoolNd):
            module.register_forward_pre_hook(lambda _, given: (given[0].detach().requires_grad_(), *given[1:]))
            module.register_forward_hook(keep)
    if network.classifier_name is not None:
        network.get_submodule(network.classifier_name).register_forward_pre_hook(lambda _, given: classified.append(given[0]))
    return taken, classified


def _watch_stage(network: PlainNetwork, stage: str) -> list[torch.Tensor]:
    """What a call will put there: the outputs of a stage, of each pathway one, at which gradients begin."""
    *stages, _ = [name for name, _ in network.named_children()]
    if stage not in stages:
        raise ValueError(f"there is no stage {stage!r:.80}: this network has {', '.join(stages)} before its last one")
    found: list[torch.Tensor] = []

    def start_here(_: nn.Module, given: tuple, outputs: Inputs) -> Inputs:
        found.extend(each.detach().requires_grad_() for each in ([outputs] if isinstance(outputs, torch.Tensor) else outputs))
        if any(each.ndim < 4 for each in found):
            raise ValueError(f"the stage '{stage}' gives features without places: take an earlier one")
        return found[0] if isinstance(outputs, torch.Tensor) else list(found)

    network.get_submodule(stage).register_forward_hook(start_here)
    return found


def _is_same(given: torch.Tensor, pooled: torch.Tensor) -> bool:
    return given.shape == pooled.shape and torch.equal(given, pooled)
