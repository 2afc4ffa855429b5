"""Print the tables of docs/scaling.md and draw its curves: predictions for 1 to 4,096 ranks with 8 GPUs a node.

simulate_scaling.py SVG

Layers are counted, not timed: nothing here depends on the machine that it runs on.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from lenet import write_solver
from made_up import net_text

from dtrain.core.engines import create_engine
from dtrain.data.datum import encode_datum
from dtrain.data.lmdb_writer import write_lmdb
from dtrain.dist.single import SingleCommunicator
from dtrain.launcher.simulation.answer import find_work, set_up
from dtrain.launcher.simulation.cluster import Cluster, clusters_up_to
from dtrain.launcher.simulation.compute import costs_from_flops
from dtrain.launcher.simulation.links import KNOWN_LINKS
from dtrain.launcher.simulation.options import Question
from dtrain.launcher.simulation.prediction import Prediction, predict

NETS = {"CIFAR-10 quick": "cifar10_quick", "CaffeNet": "caffenet", "ResNet-50": "resnet50"}
LARGEST = Cluster(512, 8)
FLOPS_PER_S, EFFICIENCY = 60e12, 0.4
LINKS = ("ib-ndr", "eth-25g")
SHOWN = (1, 8, 16, 64, 512, 4096)
COLOURS = ("#1b6ca8", "#c8553d", "#3c896d", "#7d5ba6")
WIDTH, HEIGHT, MARGIN, LEGEND = 640, 360, 48, 190

Curves = Mapping[tuple[str, str], Sequence[Prediction]]


def find_nets(folder: Path) -> dict[str, tuple[Path, bool]]:
    """Return the files to predict by title, and whether each is a net's; they are written."""
    image = np.zeros((1, 28, 28), np.uint8)
    write_lmdb(folder / "train", ((b"%08d" % k, encode_datum(image, k % 10)) for k in range(64)))
    nets = {"LeNet": (write_solver(os.fspath(folder / "train"), 64, folder), False)}
    for title, name in NETS.items():
        path = folder / f"{name}.prototxt"
        path.write_text(net_text(name, 64))
        nets[title] = (path, True)
    return nets


def predict_all(folder: Path) -> dict[tuple[str, str], list[Prediction]]:
    """Return the predictions of each net on each link between nodes."""
    curves = {}
    communicator, engine = SingleCommunicator(), create_engine("reference")
    for title, (path, is_net) in find_nets(folder).items():
        subject = set_up(
            Namespace(file=os.fspath(path), stage="", level=None, synthetic=None),
            engine,
            is_net,
            communicator,
        )
        for link in LINKS:
            links = (KNOWN_LINKS[link].link, KNOWN_LINKS["nvlink4"].link)
            question = Question(LARGEST, *links, flops_per_s=FLOPS_PER_S, efficiency=EFFICIENCY)
            costs = costs_from_flops(subject.net, FLOPS_PER_S, EFFICIENCY)
            work, machine = find_work(question, subject, costs, communicator)
            curves[title, link] = predict(work, machine, clusters_up_to(LARGEST))
        subject.net.close()
    return curves


def table_lines(curves: Curves) -> list[str]:
    """Return a table in Markdown: iteration, hidden share and efficiency at the sizes SHOWN."""
    lines = ["| net | link | " + " | ".join(f"{size:,} rank{'s' * (size > 1)}" for size in SHOWN) + " |"]
    lines.append("|---|---|" + "---|" * len(SHOWN))
    for (title, link), predictions in curves.items():
        at = {prediction.cluster.world_size: prediction for prediction in predictions}
        cells = " | ".join(_cell(at[size]) for size in SHOWN)
        lines.append(f"| {title} | {link} | {cells} |")
    return lines


def _cell(prediction: Prediction) -> str:
    iteration = prediction.iteration
    text = f"{iteration.total_s * 1e3:.3g} ms"
    if prediction.cluster.world_size == 1:
        return text
    return f"{text}, {iteration.hidden_share:.0%} hidden, {prediction.efficiency:.0%}"


def draw(curves: Curves) -> str:
    """Return the efficiencies as an SVG picture: the number of ranks by powers of two; dashed: the second link."""
    bottom, right = HEIGHT - MARGIN, WIDTH - LEGEND
    most = math.log2(LARGEST.world_size)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"'
        ' font-size="11">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for percent in range(0, 101, 25):
        y = bottom - (bottom - MARGIN) * percent / 100
        parts.append(f'<path d="M{MARGIN} {y:.1f}H{right}" stroke="#ddd"/>')
        parts.append(f'<text x="{MARGIN - 6}" y="{y + 4:.1f}" text-anchor="end">{percent} %</text>')
    for power in range(0, int(most) + 1, 3):
        x = MARGIN + (right - MARGIN) * power / most
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{2**power:,}</text>')
    parts.append(
        f'<text x="{(MARGIN + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">ranks, 8 a node</text>'
    )
    parts.append(f'<text x="{MARGIN}" y="{MARGIN - 14}">efficiency against as many lone ranks</text>')
    for number, ((title, link), predictions) in enumerate(curves.items()):
        colour = COLOURS[number // len(LINKS)]
        dash = ' stroke-dasharray="5 4"' if link != LINKS[0] else ""
        points = " ".join(
            f"{MARGIN + (right - MARGIN) * math.log2(p.cluster.world_size) / most:.1f},"
            f"{bottom - (bottom - MARGIN) * p.efficiency:.1f}"
            for p in predictions
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        y = MARGIN + 20 * number
        parts.append(f'<path d="M{right + 14} {y}h26" stroke="{colour}" stroke-width="2"{dash}/>')
        parts.append(f'<text x="{right + 46}" y="{y + 4}">{title}, {link}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    """Predict, print and draw."""
    with tempfile.TemporaryDirectory() as name:
        curves = predict_all(Path(name))
    print("\n".join(table_lines(curves)))
    Path(sys.argv[1]).write_text(draw(curves))


if __name__ == "__main__":
    main()
