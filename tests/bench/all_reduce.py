"""The benchmark of all_reduce: dtrain's communicators beside raw MPI and PyTorch's gloo, in the same processes."""

from __future__ import annotations

from pathlib import Path

from measuring import run_program

NUM_RANKS = (2, 4)


def bench_all_reduce(folder: Path) -> None:
    """All ways in alternating bursts, 64 KB to 256 MB of float32; the ratio is the best raw way's time over ours."""
    for num_ranks in NUM_RANKS:
        result = run_program("all_reduce.py", folder, num_ranks=num_ranks)
        print("\n".join(table_lines(num_ranks, result)), flush=True)


def table_lines(num_ranks: int, result: dict[str, float]) -> list[str]:
    """Return a line for each size: GB/s of every way, and for ours the ratio to the best raw way and to gloo."""
    sizes = sorted({int(key.split(" ", 1)[0]) for key in result})
    ways = list(dict.fromkeys(key.split(" ", 1)[1].partition(" / ")[0] for key in result))
    lines = [
        f"all_reduce, {num_ranks} ranks on one host, GB/s (an array's bytes over the time); "
        "in brackets for ours: the best raw way's time over it, gloo's time over it",
        f"{'':<8}" + "".join(f"{way:>22}" for way in ways),
    ]
    for size in sizes:
        cells = [_cell(result, size, way) for way in ways]
        title = f"{size >> 20} MB" if size >= 1 << 20 else f"{size >> 10} KB"
        lines.append(f"{title:<8}" + "".join(f"{cell:>22}" for cell in cells))
    return lines


def _cell(result: dict[str, float], size: int, way: str) -> str:
    key = f"{size} {way}"
    ratios = [f"{result[f'{key} / {peer}']:.2f}" for peer in ("raw", "gloo") if f"{key} / {peer}" in result]
    rate = f"{size / result[key] / 1e9:.2f}"
    return f"{rate} ({', '.join(ratios)})" if ratios else rate
