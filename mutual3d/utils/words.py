"""A word that a registry does not know is refused with the legal ones, and the nearest of them."""

import difflib
from collections.abc import Iterable


def unknown_word(key: str, word: str, legal: Iterable[str]) -> str:
    """What to say of a `word` that the config key `key` has and that is none of the `legal` ones; empty for one that is."""
    legal = list(legal)
    if word in legal:
        return ""
    lower = {other.lower(): other for other in reversed(legal)}
    nearest = difflib.get_close_matches(str(word).lower()[:100], lower, n=1, cutoff=0.5)
    hint = f"; did you mean '{lower[nearest[0]]}'?" if nearest else ""
    return f"{key} is {str(word)[:200]!r}: mutual3d has {', '.join(legal)}{hint}"
