"""Build a net of 5,000 lines, a ResNet of 100 blocks with few channels, and print the seconds of each stage.

big_net.py FOLDER
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from dtrain.core.engines import create_engine
from dtrain.core.graph.net_recipe import build_net_recipe
from dtrain.core.graph.upgrade import upgrade_net
from dtrain.core.net.building import build_net
from dtrain.core.prototxt import read_text
from dtrain.data.sampler import Shard
from dtrain.proto import caffe_pb2

NUM_LINES = 5000

INPUT = """name: "big"
layer {
  name: "data"
  type: "Input"
  top: "data"
  input_param { shape { dim: 2 dim: 8 dim: 8 dim: 8 } }
}
"""
CONVOLUTION = """layer {{
  name: "conv{i}"
  type: "Convolution"
  bottom: "{bottom}"
  top: "conv{i}"
  param {{
    lr_mult: 1
    decay_mult: 1
  }}
  convolution_param {{
    num_output: 8
    kernel_size: 3
    pad: 1
    bias_term: false
    weight_filler {{
      type: "msra"
    }}
  }}
}}
layer {{
  name: "bn{i}"
  type: "BatchNorm"
  bottom: "conv{i}"
  top: "conv{i}"
}}
layer {{
  name: "scale{i}"
  type: "Scale"
  bottom: "conv{i}"
  top: "conv{i}"
  scale_param {{ bias_term: true }}
}}
layer {{
  name: "relu{i}"
  type: "ReLU"
  bottom: "conv{i}"
  top: "conv{i}"
}}
"""
SUM = """layer {{
  name: "sum{i}"
  type: "Eltwise"
  bottom: "{bottom}"
  bottom: "conv{i}"
  top: "sum{i}"
}}
"""


def write_net(path: Path) -> None:
    """Write blocks until there are NUM_LINES lines."""
    text, bottom, i = INPUT, "data", 0
    while text.count("\n") < NUM_LINES:
        text += CONVOLUTION.format(i=i, bottom=bottom) + SUM.format(i=i, bottom=bottom)
        bottom, i = f"sum{i}", i + 1
    path.write_text(text)


def main() -> None:
    """Write the file, build its net and print."""
    path = Path(sys.argv[1]) / "big.prototxt"
    write_net(path)
    marks = [time.perf_counter()]
    document = read_text(path, caffe_pb2.NetParameter)
    marks.append(time.perf_counter())
    document = upgrade_net(document)
    marks.append(time.perf_counter())
    recipe = build_net_recipe(document, caffe_pb2.TRAIN, caffe_pb2.NetState())
    marks.append(time.perf_counter())
    net = build_net(recipe, create_engine("reference"), Shard(0, 1))
    marks.append(time.perf_counter())
    stages = ("read_s", "upgrade_s", "graph_s", "net_s")
    seconds = {name: end - start for name, start, end in zip(stages, marks[:-1], marks[1:], strict=True)}
    print(json.dumps({**seconds, "total_s": marks[-1] - marks[0], "num_layers": len(net.layers)}))


if __name__ == "__main__":
    main()
