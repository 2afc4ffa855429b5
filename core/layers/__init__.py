"""Layers, one file each: the folder's listing is the menu.

Importing this package registers them all in `LAYERS`, by the type that prototxt names.
"""

from __future__ import annotations

from dtrain.core.layers.layer import LAYERS as LAYERS
from dtrain.core.layers.layer import Layer as Layer
from dtrain.core.layers.layer import LayerContext as LayerContext
from dtrain.core.registry import import_members

import_members(__name__, list(__path__))
