"""What scripts let a net call around each layer of forward and backward, to time or look at it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

LayerCallback = Callable[[int], object]


@dataclass(frozen=True)
class Callbacks:
    """Lists of functions of the layer's index, called in their order; the lists may be added to at any time.

    done_forward, done_backward: called behind all others, when nobody looks at what the layer has done any more.
    Those of backward are called for every layer that backward passes, also where no gradient is needed.
    Follows caffe's net.hpp (Net::Callback).
    """

    before_forward: list[LayerCallback] = field(default_factory=list)
    after_forward: list[LayerCallback] = field(default_factory=list)
    before_backward: list[LayerCallback] = field(default_factory=list)
    after_backward: list[LayerCallback] = field(default_factory=list)
    done_forward: list[LayerCallback] = field(default_factory=list)
    done_backward: list[LayerCallback] = field(default_factory=list)
