"""What a GPU reaches at its best, by PyTorch: products of matrices and copies. Prints JSON, rates a second."""

from __future__ import annotations

import json
from collections.abc import Callable

import torch
from nets_torch import seconds_on_gpu

SIZE, COPY_BYTES = 8192, 1 << 32
NUM_RUNS = 10


def best_seconds(run: Callable[[], object]) -> float:
    """Return the seconds of the fastest of some runs, after some to warm up."""
    for _ in range(3):
        run()
    return min(seconds_on_gpu(run) for _ in range(NUM_RUNS))


def main() -> None:
    """Print the rates."""
    torch.backends.cuda.matmul.allow_tf32 = True
    rates: dict[str, float | str] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    for title, dtype in (("bf16", torch.bfloat16), ("tf32", torch.float32)):
        left, right = (torch.randn(SIZE, SIZE, device="cuda", dtype=dtype) for _ in range(2))
        rates[f"{title}_flops"] = 2 * SIZE**3 / best_seconds(lambda a=left, b=right: a @ b)
    source = torch.empty(COPY_BYTES // 8, device="cuda", dtype=torch.float32)
    target = torch.empty_like(source)
    rates["copy_bytes"] = COPY_BYTES / best_seconds(lambda: target.copy_(source))  # read and written
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
