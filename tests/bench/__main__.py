"""The benchmarks: `make bench` or `python tests/bench`; prints figures, and nothing here passes or fails.

Names choose among them: `make bench ARGS="lenet jpeg"`; the table BENCHMARKS lists them.

Each program runs in processes of its own, in turn with its peer, `ROUNDS` times; medians are printed, and the ratio
round by round, since machines are noisy. PyTorch's column appears if the `bench` extra is installed.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from all_reduce import bench_all_reduce
from captured import bench_captured
from engines import bench_engines
from guards import bench_guards
from measuring import HAS_TORCH, ROUNDS, lenet_database, median, run_program
from memory import bench_memory
from nets import bench_nets
from overhead import bench_overhead
from overlap import bench_overlap
from reorders import bench_reorders
from scaling import bench_scaling
from simulate import bench_simulate
from update import bench_update

NUM_ITERATIONS = 200
GLOBAL_BATCH_SIZE = 64


def bench_lenet(folder: Path) -> None:
    """LeNet, 64 images an iteration: 1 rank, 2 ranks, and PyTorch on one and two threads."""
    database = lenet_database(folder)
    for num_ranks in (1, 2):
        ours, peers = [], []
        for _ in range(ROUNDS):
            args = (database, GLOBAL_BATCH_SIZE // num_ranks, NUM_ITERATIONS)
            ours.append(run_program("lenet.py", *args, num_ranks=num_ranks if num_ranks > 1 else 0))
            if HAS_TORCH:
                args = (GLOBAL_BATCH_SIZE, NUM_ITERATIONS, num_ranks)
                peers.append(run_program("lenet_torch.py", *args, num_threads=num_ranks))
        per_s = 1000 / median(ours, "iteration_ms")
        print(
            f"LeNet, {num_ranks} rank(s) x batch {GLOBAL_BATCH_SIZE // num_ranks}, 1 thread each: "
            f"{per_s:.1f} iterations/s, {per_s * GLOBAL_BATCH_SIZE:.0f} images/s, "
            f"waiting for data {median(ours, 'wait_share'):.2%}, peak {median(ours, 'peak_mb'):.0f} MB a rank"
        )
        if peers:
            ratio = statistics.median(
                theirs["iteration_ms"] / mine["iteration_ms"]
                for mine, theirs in zip(ours, peers, strict=True)
            )
            print(
                f"    PyTorch eager, {num_ranks} thread(s), data in memory: "
                f"{1000 / median(peers, 'iteration_ms'):.1f} iterations/s, peak {median(peers, 'peak_mb'):.0f} MB; "
                f"its time over ours: {ratio:.2f}"
            )


def bench_depthwise(_folder: Path) -> None:
    """Depthwise convolutions of MobileNet, 16 images, y and both gradients: ours, as matrix products, PyTorch's."""
    for num_channels, size, stride in ((32, 112, 1), (128, 56, 2), (512, 14, 1), (1024, 7, 1)):
        rows = [run_program("depthwise.py", 16, num_channels, size, stride) for _ in range(ROUNDS)]
        what = f"depthwise 3 x 3, {num_channels} x {size} x {size}, stride {stride}"
        line = f"{what}: {median(rows, 'depthwise_ms'):.1f} ms"
        for key, peer in (("plain_ms", "as matrix products"), ("torch_ms", "PyTorch, 1 thread")):
            if key in rows[0]:
                ratio = statistics.median(row[key] / row["depthwise_ms"] for row in rows)
                line += f"; {peer} {median(rows, key):.1f} ms, its time over ours: {ratio:.2f}"
        print(line)


def bench_jpeg(folder: Path) -> None:
    """JPEGs of 500x375, cropped, mirrored, mean off, on all cores; beside it simplejpeg alone, on one and on all."""
    rows = []
    for number in range(ROUNDS):
        (folder / f"jpeg{number}").mkdir()
        rows.append(run_program("jpeg.py", folder / f"jpeg{number}"))
    num_cores = int(rows[0]["num_cores"])
    print(
        f"JPEG: simplejpeg alone {median(rows, 'alone_per_s'):.0f} images/s on one core, "
        f"{median(rows, 'cores_per_s'):.0f} on {num_cores}"
    )
    for name, layer in (("files", "ImageData"), ("lmdb", "Data")):
        ratio = statistics.median(row[f"{name}_per_s"] / row["alone_per_s"] / num_cores for row in rows)
        on_all = statistics.median(row[f"{name}_per_s"] / row["cores_per_s"] for row in rows)
        cost = statistics.median(row[f"{name}_cpu_us"] / row["alone_cpu_us"] for row in rows)
        print(
            f"    {layer}'s reader, {num_cores} threads: {median(rows, f'{name}_per_s'):.0f} images/s, "
            f"over the rate of one core times {num_cores}: {ratio:.2f}, "
            f"over that of {num_cores} cores: {on_all:.2f}; its CPU time over simplejpeg's: {cost:.2f}"
        )


def bench_reader(folder: Path) -> None:
    """Raw images of 3x256x256 from an LMDB: cropped, mirrored, mean off, for a CPU; as bytes, for a GPU."""
    rows = [run_program("reader.py", folder) for _ in range(ROUNDS)]
    num_cores = int(rows[0]["num_cores"])
    for kind, words in (("floats", "transformed"), ("bytes", "left as stored")):
        for num_threads in sorted({1, num_cores}):
            name = f"{kind}_{num_threads}"
            print(
                f"raw 3x256x256 from an LMDB, {words}, {num_threads} thread(s): "
                f"{median(rows, f'{name}_per_s'):.0f} images/s, {median(rows, f'{name}_cpu_us'):.0f} us of CPU each"
            )


def bench_snapshot(folder: Path) -> None:
    """A model of 240 MB: save with checksums and fsync, load verified; beside it a plain write and read.

    In HDF5 the peer is h5py, which makes no checksums; its writing is followed by fsync as ours is.
    """
    rows = [run_program("snapshot.py", folder) for _ in range(ROUNDS)]
    for kind, ours, peer, words in (
        ("binary", "save_s", "plain_write_s", "plain write"),
        ("binary", "load_s", "plain_read_s", "plain read"),
        ("HDF5", "hdf5_save_s", "h5py_write_s", "h5py's write"),
        ("HDF5", "hdf5_load_s", "h5py_read_s", "h5py's read"),
    ):
        if ours not in rows[0]:  # h5py is not installed
            continue
        ratio = statistics.median(row[peer] / row[ours] for row in rows)
        print(
            f"240 MB model, {kind}: {ours.removesuffix('_s').split('_')[-1]} {median(rows, ours):.3f} s; "
            f"{words} {median(rows, peer):.3f} s, its time over ours: {ratio:.2f}"
        )


def bench_big_net(folder: Path) -> None:
    """A prototxt of 5,000 lines, from the file to a net that is set up."""
    rows = [run_program("big_net.py", folder) for _ in range(ROUNDS)]
    stages = ", ".join(
        f"{name} {median(rows, f'{name}_s'):.3f}" for name in ("read", "upgrade", "graph", "net")
    )
    print(
        f"net of 5,000 lines ({rows[0]['num_layers']:.0f} layers): {median(rows, 'total_s'):.3f} s ({stages})"
    )


def bench_startup(folder: Path) -> None:
    """From the shell to the first iteration's end, and the import alone."""
    database = lenet_database(folder)
    imports, starts = [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import dtrain"], check=True)
        imports.append(time.perf_counter() - began)
        began = time.perf_counter()
        run_program("first_iteration.py", database)
        starts.append(time.perf_counter() - began)
    print(f"start: python -c 'import dtrain' {statistics.median(imports):.3f} s")
    print(f"start: shell to the end of LeNet's first iteration, 1 rank {statistics.median(starts):.3f} s")


# Each gets a folder for its files, the same one, and prints its figures.
BENCHMARKS: dict[str, Callable[[Path], None]] = {
    "lenet": bench_lenet,
    "engines": bench_engines,
    "nets": bench_nets,
    "memory": bench_memory,
    "reorders": bench_reorders,
    "startup": bench_startup,
    "big_net": bench_big_net,
    "snapshot": bench_snapshot,
    "depthwise": bench_depthwise,
    "jpeg": bench_jpeg,
    "reader": bench_reader,
    "all_reduce": bench_all_reduce,
    "scaling": bench_scaling,
    "guards": bench_guards,
    "overhead": bench_overhead,
    "captured": bench_captured,
    "overlap": bench_overlap,
    "simulate": bench_simulate,
    "update": bench_update,
}


def main() -> None:
    """Run the benchmarks that the command line names, or all."""
    names = sys.argv[1:] or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise SystemExit(f"bench: unknown benchmark {', '.join(unknown)}; known: {', '.join(BENCHMARKS)}")
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            BENCHMARKS[name](Path(folder))


if __name__ == "__main__":
    main()
