"""Links between ranks: latency and bandwidth, as the user writes them or by a known name.

The start of a prediction: collectives.py makes the cost of an all-reduce of them.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from dtrain.core.errors import UserError
from dtrain.core.names import nearest


@dataclass(frozen=True)
class Link:
    """What it takes to send a message: latency_s + num_bytes / bytes_per_s, in one direction."""

    latency_s: float
    bytes_per_s: float

    def time_s(self, num_bytes: float) -> float:
        """Return the seconds that a message of `num_bytes` takes."""
        return self.latency_s + num_bytes / self.bytes_per_s

    def __str__(self) -> str:
        return f"{self.bytes_per_s / 1e9:.4g}GB/s,{self.latency_s * 1e6:.4g}us"


@dataclass(frozen=True)
class KnownLink:
    """A link that has a name, with where its figures are from."""

    link: Link
    source: str


FREE = Link(0.0, math.inf)

# Latencies are those of one step of NCCL's ring with its "Simple" protocol, from the table hwLat in its
# src/graph/tuning.cc: what a step costs in software, a wire's own 1 µs or so included.
_NVLINK_STEP_S, _PCI_STEP_S, _NETWORK_STEP_S = 3.4e-6, 5.7e-6, 14.0e-6
_TCP_STEP_S = 30e-6

# Bandwidths are rated ones, of one direction; who knows what a fabric really gives should say that instead.
KNOWN_LINKS = {
    "nvlink4": KnownLink(
        Link(_NVLINK_STEP_S, 450e9), "H100, H200: 18 links of 25 GB/s a direction (NVIDIA's data sheet)"
    ),
    "pcie4": KnownLink(Link(_PCI_STEP_S, 31.5e9), "16 lanes of 16 GT/s, 128 of 130 bits (PCI Express 4.0)"),
    "ib-hdr": KnownLink(Link(_NETWORK_STEP_S, 25e9), "InfiniBand HDR, 4 lanes of 50 Gbit/s"),
    "ib-ndr": KnownLink(Link(_NETWORK_STEP_S, 50e9), "InfiniBand NDR, 4 lanes of 100 Gbit/s"),
    "eth-10g": KnownLink(Link(_TCP_STEP_S, 1.25e9), "10 Gbit/s; 30 µs is our assumption for TCP"),
    "eth-25g": KnownLink(Link(_TCP_STEP_S, 3.125e9), "25 Gbit/s; 30 µs is our assumption for TCP"),
    "eth-100g": KnownLink(Link(_TCP_STEP_S, 12.5e9), "100 Gbit/s; 30 µs is our assumption for TCP"),
}

_BANDWIDTH_UNITS = {
    **{f"{prefix}B/s": scale for prefix, scale in (("K", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12))},
    **{f"{prefix}bit/s": scale / 8 for prefix, scale in (("M", 1e6), ("G", 1e9))},
}
_TIME_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
_NUMBER = r"(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)"


def parse_link(option: str, text: str) -> Link:
    """Return the link that `text` describes: a known name, or figures such as 25GB/s,5us.

    Raises UserError in the name of `option` for anything else.
    """
    if text in KNOWN_LINKS:
        return KNOWN_LINKS[text].link
    figures = text.replace(" ", "").split(",")
    if len(figures) == 2:
        bytes_per_s = _parse_figure(figures[0], _BANDWIDTH_UNITS)
        latency_s = _parse_figure(figures[1], _TIME_UNITS)
        if bytes_per_s and latency_s is not None:
            return Link(latency_s, bytes_per_s)
    hint = nearest(text, KNOWN_LINKS)
    raise UserError(
        f"{option}: must be BANDWIDTH,LATENCY such as 25GB/s,5us or a known name, "
        f'got "{text}"{"; " + hint if hint else ""}; known: {", ".join(KNOWN_LINKS)}'
    )


def _parse_figure(text: str, units: dict[str, float]) -> float | None:
    """Return a number with one of `units` in the unit 1; None if it is no such thing."""
    found = re.fullmatch(f"{_NUMBER}({'|'.join(map(re.escape, units))})", text)
    return float(found[1]) * units[found[2]] if found else None
