"""The benchmark of the update: all params of a net, beside a plain copy and PyTorch's optimizers."""

from __future__ import annotations

from pathlib import Path

from measuring import ROUNDS, median, run_program

NETS = {"caffenet": "CaffeNet, 61 million values", "resnet50": "ResNet-50, 26 million values"}
PEERS = {
    "copy": "a copy of the 2 arrays that SGD changes",
    "sgd_shown": "with the changes in the diffs",
    "torch_sgd_foreach": "PyTorch's SGD(foreach)",
    "torch_sgd_fused": "SGD(fused)",
    "torch_adam_foreach": "PyTorch's Adam(foreach)",
    "torch_adam_fused": "Adam(fused)",
}
NUM_UPDATES = 5  # in a process


def bench_update(_folder: Path) -> None:
    """SGD with momentum and decay, and Adam, on 1 and 2 threads."""
    for net, title in NETS.items():
        for num_threads in (1, 2):
            rows = [
                run_program("update.py", net, NUM_UPDATES, num_threads=num_threads) for _ in range(ROUNDS)
            ]
            print(f"update of {title}, {num_threads} thread(s):")
            for ours in ("sgd", "adam"):
                peers = [
                    f"{words} {median(rows, peer):.0f} ms, its time over ours: "
                    f"{median(rows, f'{peer}/{ours}'):.2f}"
                    for peer, words in PEERS.items()
                    if peer in rows[0] and (ours in peer or peer == "copy")
                ]
                print(f"    {ours} {median(rows, ours):.0f} ms; {'; '.join(peers)}", flush=True)
