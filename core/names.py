"""Suggest known names for a misspelt one, at every stage of the flow: fields, layer types, blobs, fillers."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MIN_SIMILARITY = 0.6
_MAX_DISTANCE_FROM_BEST = 0.05
_MAX_SUGGESTIONS = 3


def nearest(name: str, known: Iterable[str]) -> str:
    """Ask ``did you mean "x"?`` for the known names most like ``name``, or return "" when none is near.

    Names are compared without regard to case, by difflib's ratio; several are named when about as near.

    Arguments:
        name: what the user wrote.
        known: the names that are allowed here.
    """
    similarity = {candidate: _similarity(name, candidate) for candidate in known}
    enough = max(_MIN_SIMILARITY, max(similarity.values(), default=0.0) - _MAX_DISTANCE_FROM_BEST)
    ranked = sorted(similarity, key=lambda candidate: (-similarity[candidate], candidate))
    quoted = [f'"{candidate}"' for candidate in ranked if similarity[candidate] >= enough][:_MAX_SUGGESTIONS]
    if not quoted:
        return ""
    alternatives = f"{', '.join(quoted[:-1])} or {quoted[-1]}" if len(quoted) > 1 else quoted[0]
    return f"did you mean {alternatives}?"


def _similarity(name: str, candidate: str) -> float:
    a, b = name.casefold(), candidate.casefold()
    if 2 * min(len(a), len(b)) < _MIN_SIMILARITY * (len(a) + len(b)):
        return 0.0  # the ratio can't be enough; a long name would take seconds
    return difflib.SequenceMatcher(None, a, b).ratio()
