"""Compiled networks that are kept on disk, so that the next process need not compile them again.

    mutual3d cache
    mutual3d cache --model out/adaptive.pyth
    mutual3d cache --clear
    mutual3d cache --clear --model out/adaptive.pyth

The folder is that of the variable MUTUAL3D_CACHE (`off` keeps nothing), or the system's own place for such files. It holds at
most 4 GB: what was not used for longest makes room. Nothing is lost by clearing it but the time to compile.
"""

import argparse
from collections.abc import Sequence

from mutual3d.deploy.adaptive_model import load
from mutual3d.deploy.compiled import model_fingerprint
from mutual3d.deploy.runtimes.cache import VARIABLE, CachedNetwork, NetworkCache
from mutual3d.utils.command_line import command_parser, path_argument
from mutual3d.utils.text import printable


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; SystemExit, after a line that says why, for one that cannot be."""
    parser = command_parser("cache", __doc__)
    parser.add_argument("--model", type=path_argument, metavar="BUNDLE", help="only the networks of this adaptive.pyth")
    parser.add_argument("--clear", action="store_true", help="delete the kept networks")
    parser.add_argument("--directory", type=path_argument, help="the folder, where it is not the usual one")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with these words, by default those of the command line."""
    options = parse(arguments)
    cache = NetworkCache(options.directory)
    if cache.directory is None:
        print(f"nothing is kept: {VARIABLE} is off")
        return
    # A network without a fingerprint has nothing on disk.
    model = None if options.model is None else model_fingerprint(load(options.model).network) or "none"
    if options.clear:
        count, num_bytes = cache.clear(model)
        print(f"deleted from '{printable(cache.directory)}': {_amount(count, num_bytes)}")
        return
    kept = [network for network in cache.networks() if model in (None, network.model)]
    print(f"{printable(cache.directory)}: {_amount(len(kept), sum(network.num_bytes for network in kept))}")
    for key in dict.fromkeys(network.model for network in kept):
        print(describe_model([network for network in kept if network.model == key]))


def describe_model(kept: Sequence[CachedNetwork]) -> str:
    """Lines about the networks of one model."""
    facts = next((network.facts for network in kept if network.facts), {})
    lines = [f"  {printable(facts.get('bundle') or facts.get('network', kept[0].model))}: {_amount(len(kept), sum(n.num_bytes for n in kept))}"]
    for runtime in sorted({str(network.facts.get("runtime", "damaged")) for network in kept}):
        named = sorted({str(n.facts.get("configuration", n.path)) for n in kept if str(n.facts.get("runtime", "damaged")) == runtime})
        lines.append(f"    {runtime}: {printable(', '.join(named))}")
    return "\n".join(lines)


def _amount(count: int, num_bytes: int) -> str:
    return f"{count} network{'' if count == 1 else 's'}, {num_bytes / 1e6:.1f} MB"
