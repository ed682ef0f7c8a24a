"""From a name and plain arguments to an adaptive network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mutual3d.layers import WHOLE_BITS, SlimmableLayer, check_bits
from mutual3d.sampling import WIDTHS_BY, SearchSpace
from mutual3d.utils.checkpoint import check_weights

from .adaptive import AdaptiveNetwork
from .adaptive.private_norms import PRIVATE_BY
from .arguments import (
    brief,
    check_arguments,
    check_private_parts,
    check_signature,
    group_arguments,
    read_space,
    wrong_shared_norms,
)
from .registry import NETWORKS

# What has norms of its own, of PRIVATE_BY, with each MUTUAL.BATCHNORM.
BATCHNORMS = {"calibrated": None, **{f"private_{by}": by for by in PRIVATE_BY}, "shared": None}
OWN_STATISTICS = ("largest", "private", "all", "none")


def create_model(
    name: str,
    *,
    space: SearchSpace | Mapping,
    batchnorm: str = "calibrated",
    own_statistics: str = "largest",
    interpolated_sizes: Sequence[int] = (),
    unseen_frames: Sequence[int] = (),
    temporal_adapters: bool = False,
    average_inputs: bool = False,
    weight_bits: int = WHOLE_BITS,
    activation_bits: int = WHOLE_BITS,
    **arguments: Any,
) -> AdaptiveNetwork:
    """The network `name` for `space`, a SearchSpace or its fields as a dict.

    batchnorm: calibrated, private_width, private_size, private_frames or shared (MUTUAL.BATCHNORM). own_statistics: whose running statistics
    training keeps, largest, private, all or none (see AdaptiveNetwork). interpolated_sizes: spatial sizes beside the trained
    ones, each with norms between its neighbours', or outside them with the nearest one's. unseen_frames: numbers of frames beside the
    trained ones, each with what the nearest has of its own. temporal_adapters: whether each residual block has a filter for each number of
    frames (MUTUAL.TEMPORAL_ADAPTERS). average_inputs: whether each layer
    averages over the inputs that it has (MUTUAL.AVERAGE_INPUTS). weight_bits, activation_bits: of the numbers that convolutions
    compute with (MODEL.QUANTIZE), 32 where they are left as they are. arguments: those of the network's builder. Raises ValueError, with the
    legal values, for an unknown name, an argument that the network does not have or lacks, and a value of the wrong type
    or outside its limits.
    """
    if not isinstance(name, str) or name not in NETWORKS:
        raise ValueError(f"there is no network {brief(name)}: choose among {', '.join(sorted(NETWORKS))}")
    facts = NETWORKS[name]
    if not isinstance(batchnorm, str) or batchnorm not in BATCHNORMS:
        raise ValueError(f"MUTUAL.BATCHNORM is {brief(batchnorm)}: choose among {', '.join(BATCHNORMS)}")
    if own_statistics not in OWN_STATISTICS:
        raise ValueError(f"own_statistics is {brief(own_statistics)}: choose among {', '.join(OWN_STATISTICS)}")
    for flag, value in (("average_inputs", average_inputs), ("temporal_adapters", temporal_adapters)):
        if not isinstance(value, bool):
            raise ValueError(f"{flag} is {brief(value)}: give True or False")
    space = read_space(space)
    check_signature(name, facts.build, {"space": space, **arguments})
    check_arguments(name, {**arguments, "interpolated_sizes": interpolated_sizes, "unseen_frames": unseen_frames})
    check_bits("MODEL.QUANTIZE.WEIGHT_BITS", weight_bits)
    check_bits("MODEL.QUANTIZE.ACTIVATION_BITS", activation_bits)
    quantized = {key: bits for key, bits in (("weight_bits", weight_bits), ("activation_bits", activation_bits)) if bits != WHOLE_BITS}
    if (batchnorm == "shared") != (own_statistics == "all"):
        raise ValueError(f"batchnorm is {batchnorm} and own_statistics {own_statistics}: shared and all go together")
    if batchnorm == "shared" and (mistake := wrong_shared_norms(space.width_range)):
        raise ValueError(mistake)
    if batchnorm == "private_size" or activation_bits != WHOLE_BITS:
        check_private_parts(space, interpolated_sizes)
    if batchnorm == "private_frames" or temporal_adapters:
        check_private_parts(space, by_frames=True)
    network = facts.build(**group_arguments(facts.build, {"space": space, **arguments}))
    for does, own, registered in (("takes", network.takes, facts.takes), ("gives", network.gives, facts.gives)):
        if own != registered:
            raise ValueError(f"the network '{name}' was registered as one that {does} {registered}, and {does} {own}")
    network.name_classifier(facts.classifier_name)
    network.own_statistics = own_statistics
    for layer in network.modules():
        if isinstance(layer, SlimmableLayer):
            layer.averages_inputs = average_inputs
    if temporal_adapters:
        network.add_adapters()
    private_by = BATCHNORMS[batchnorm]
    if private_by is not None:
        network.make_norms_private(private_by)
    if quantized:
        network.quantize(weight_bits, activation_bits)
    network._activate(network.space.largest)
    shared = {"name": name, "space": _plain_space(space), "batchnorm": batchnorm, "own_statistics": own_statistics}
    # Left out where it is what it always was, so that files stay as they were.
    averaging = {"average_inputs": True} if average_inputs else {}
    adapting = {"temporal_adapters": True} if temporal_adapters else {}
    network.arguments = {**shared, **averaging, **adapting, **quantized, **arguments}
    for size in interpolated_sizes:
        network.add_size(size)
    for frames in unseen_frames:
        network.add_frames(frames)
    return network


def load_network(arguments: Mapping, state: Mapping[str, torch.Tensor], source: str | Path) -> AdaptiveNetwork:
    """The network that a file describes, with the file's weights, on the CPU in the memory format that is fastest there.

    arguments: of `create_model`; state: the state dict; source: the file's name for messages. A file cannot ask for more
    than it holds: the arguments have limits, and the network is built without memory first, where its shapes must be those
    of the weights. Raises ValueError that names the file, the entry and the fix.
    """
    if not isinstance(arguments, Mapping) or not all(isinstance(key, str) for key in arguments):
        raise ValueError(f"'{source}': model_arguments is {brief(arguments)}: it must be the dict of create_model's arguments")
    missing = [key for key in ("name", "space") if key not in arguments]
    if missing:
        raise ValueError(f"'{source}': model_arguments lacks {' and '.join(missing)}: give a checkpoint that a run wrote")
    try:
        with torch.device("meta"):
            draft = create_model(**arguments)
    except Exception as error:  # arguments of a stranger's: what they break is of any kind
        raise ValueError(f"'{source}': model_arguments describe no network: {error}") from error
    state = check_weights(draft, state, source)
    network = create_model(**arguments).place(torch.device("cpu"))
    network.load_state_dict(state)
    return network


def _plain_space(space: SearchSpace) -> dict[str, Any]:
    return {
        "width_range": list(space.width_range),
        "spatial_sizes": list(space.spatial_sizes),
        "temporal_sizes": list(space.temporal_sizes),
        "divisor": space.divisor,
        "listed_widths": list(space.listed_widths),
        # Left out where it is what it always was, so that files stay as they were.
        **({} if space.widths_by == WIDTHS_BY[0] else {"widths_by": space.widths_by}),
    }
