"""What is known of every network before it is built: each network's own file registers it here.

A network that comes with mutual3d and a stranger's look the same, and are found whatever was imported first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fvcore.common.config import CfgNode

from mutual3d.utils.words import unknown_word

from .adaptive import TAKES, AdaptiveNetwork

Arguments = Callable[[CfgNode], dict[str, Any]]


@dataclass(frozen=True)
class NetworkFacts:
    """A network's facts.

    name: of `create_model`, which checkpoints and bundles carry.
    words: of MODEL.MODEL_NAME, by which a config asks for it.
    build: takes `space`, `num_classes` and the network's own arguments as keywords; arguments that are dataclasses are given
        by their fields.
    arguments: from a config to those of `build`, without `space` and `num_classes`.
    classifier_name: dotted name of the layer whose outputs are the classes; None where no one layer is.
    takes: `clips`, `images`, or `pathways`: several of one clip, of which the first has configurations and one in
        SLOWFAST.ALPHA of the clip's frames.
    gives: what it gives, in a word, as the network has it (`AdaptiveNetwork.gives`).
    architectures: of MODEL.ARCH, where networks share a word; empty: whatever it says.
    """

    name: str
    words: tuple[str, ...]
    build: Callable[..., AdaptiveNetwork]
    arguments: Arguments
    classifier_name: str | None
    takes: str = "clips"
    gives: str = AdaptiveNetwork.gives
    architectures: tuple[str, ...] = ()


# {name: facts}.
NETWORKS: dict[str, NetworkFacts] = {}


def register_network(
    name: str,
    *,
    words: tuple[str, ...],
    build: Callable[..., AdaptiveNetwork],
    classifier_name: str | None,
    takes: str = "clips",
    gives: str = AdaptiveNetwork.gives,
    architectures: tuple[str, ...] = (),
) -> Callable[[Arguments], Arguments]:
    """Make a network known: a decorator for the function from a config to the arguments of `build`, see NetworkFacts.

    That function is the only place outside the files called `build` that may read a config. Raises ValueError for a name, or
    a word with its architecture, that is taken, and for a word whose other networks take something else. words,
    classifier_name, takes, gives, architectures: facts of those names.
    """
    if takes not in TAKES:
        raise ValueError(f"the network '{name}' takes '{takes}': choose among {', '.join(TAKES)}")
    for other in NETWORKS.values():
        shared = [word for word in words if word in other.words]
        is_same = not architectures or not other.architectures or set(architectures) & set(other.architectures)
        if name == other.name or (shared and is_same):
            raise ValueError(f"the network '{name}' ({', '.join(words)}) is there already, as '{other.name}': choose another name")
        if shared and takes != other.takes:
            raise ValueError(f"the networks of MODEL.MODEL_NAME {shared[0]} take {other.takes}: '{name}' takes {takes}")

    def register(arguments: Arguments) -> Arguments:
        NETWORKS[name] = NetworkFacts(name, words, build, arguments, classifier_name, takes, gives, architectures)
        return arguments

    return register


def network_words(gives: str | None = None) -> list[str]:
    """Every MODEL.MODEL_NAME that a network was registered under. gives: of those networks alone that give this; None: of all."""
    return sorted({word for facts in NETWORKS.values() if gives in (None, facts.gives) for word in facts.words})


def what_networks_take(word: str) -> str | None:
    """What the networks of a MODEL.MODEL_NAME take: clips, pathways or images; None for an unknown word."""
    return next((facts.takes for facts in NETWORKS.values() if word in facts.words), None)


def find_network(word: str, architecture: str) -> NetworkFacts:
    """The network of a MODEL.MODEL_NAME and, where several share the word, a MODEL.ARCH; ValueError with the legal ones.

    architecture: the MODEL.ARCH.
    """
    unknown = unknown_word("MODEL.MODEL_NAME", word, network_words())
    if unknown:
        raise ValueError(unknown)
    sharing = [facts for facts in NETWORKS.values() if word in facts.words]
    for facts in sharing:
        if not facts.architectures or architecture in facts.architectures:
            return facts
    legal = sorted(architecture for facts in sharing for architecture in facts.architectures)
    raise ValueError(f"MODEL.ARCH is '{architecture}': mutual3d's {word} is {', '.join(legal)}")
