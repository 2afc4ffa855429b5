"""The result of a prediction: a table for people, or JSON for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from dtrain.launcher.simulation.prediction import Machine, Prediction
from dtrain.launcher.simulation.work import Work

_HEADER = ("ranks", "nodes", "iteration ms", "all-reduce ms", "hidden", "efficiency", "images/s", "algorithm")


def report_lines(
    title: str, work: Work, machine: Machine, predictions: Sequence[Prediction], memory: Sequence[str]
) -> list[str]:
    """Return the lines on all sizes and what they are based on; `memory`, those on a rank's memory, come last."""
    rows = [_HEADER, *(_row(prediction) for prediction in predictions)]
    widths = [max(len(row[k]) for row in rows) for k in range(len(_HEADER))]
    table = [
        "  " + "  ".join([*map(str.rjust, row[:-1], widths[:-1]), row[-1]]).rstrip()  # the last one is words
        for row in rows
    ]
    return [title, *_basis(work, machine), *table, *memory]


def _row(prediction: Prediction) -> tuple[str, ...]:
    iteration = prediction.iteration
    return (
        f"{prediction.cluster.world_size:,}",
        str(prediction.cluster),
        f"{iteration.total_s * 1e3:,.2f}",
        f"{iteration.communication_s * 1e3:,.2f}",
        f"{iteration.hidden_share:.1%}" if iteration.communication_s else "-",
        f"{prediction.efficiency:.1%}",
        f"{prediction.images_per_s:,.0f}",
        " and ".join(prediction.algorithms),
    )


def _basis(work: Work, machine: Machine) -> list[str]:
    costs, network, num_buckets = work.costs, machine.network, len(work.buckets)
    on_cores = f", {machine.cores} cores a node, slowdown {machine.slowdown:.3g}" if machine.cores else ""
    return [
        f"  a rank alone: {work.images} images an iteration, forward {sum(costs.forward_s) * 1e3:.4g} ms, backward "
        f"{sum(costs.backward_s) * 1e3:.4g} ms, update {costs.update_s * 1e3:.4g} ms, reading "
        f"{costs.reading_s * 1e3:.4g} ms beside them",
        f"  gradients: {work.gradient_bytes / 1e6:.2f} MB in {num_buckets} bucket{'s' * (num_buckets > 1)}, "
        f"{work.wire_bytes} bytes a value on the way",
        f"  link {network.across}, inside a node {network.inside}{on_cores}"
        + ("" if machine.overlaps else ", no overlap: the ranks' cores do the carrying"),
    ]


def report_json(
    work: Work,
    machine: Machine,
    predictions: Sequence[Prediction],
    memory: Mapping[str, int],
    layer_names: Sequence[str],
) -> str:
    """Return the same as JSON; times are in seconds, sizes in bytes."""
    layers = zip(layer_names, work.costs.forward_s, work.costs.backward_s, strict=True)
    document = {
        "layers": [{"name": name, "forward_s": f, "backward_s": b} for name, f, b in layers],
        "update_s": work.costs.update_s,
        "reading_s": work.costs.reading_s,
        "buckets_bytes": [bucket.num_bytes for bucket in work.buckets],
        "machine": {
            "link": str(machine.network.across),
            "local_link": str(machine.network.inside),
            "cores": machine.cores,
            "slowdown": machine.slowdown,
            "overlaps": machine.overlaps,
        },
        "memory_bytes": dict(memory),
        "sizes": [_as_json(prediction) for prediction in predictions],
    }
    return json.dumps(document, indent=2)


def _as_json(prediction: Prediction) -> dict[str, Any]:
    iteration = prediction.iteration
    is_finite = math.isfinite(prediction.images_per_s)
    return {
        "num_nodes": prediction.cluster.num_nodes,
        "ranks_per_node": prediction.cluster.ranks_per_node,
        "world_size": prediction.cluster.world_size,
        "iteration_s": iteration.total_s,
        "compute_s": iteration.compute_s,
        "all_reduce_s": iteration.communication_s,
        "hidden_share": iteration.hidden_share,
        "efficiency": prediction.efficiency,
        "images_per_s": prediction.images_per_s if is_finite else None,
        "algorithms": list(prediction.algorithms),
    }
