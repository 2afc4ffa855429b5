"""Write the train nets of configs/ on made-up images, for the benchmark of GPUs.

gpu_texts.py FOLDER NAME=BATCH_SIZE…     writes FOLDER/NAME.prototxt
"""

from __future__ import annotations

import sys
from pathlib import Path

from made_up import net_text
from nets import CONSTANT


def main() -> None:
    """Write them."""
    for argument in sys.argv[2:]:
        name, _, batch_size = argument.partition("=")
        Path(sys.argv[1], f"{name}.prototxt").write_text(net_text(name, int(batch_size), CONSTANT))


if __name__ == "__main__":
    main()
