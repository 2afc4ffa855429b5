"""Write the repetitive nets of configs/: `python -m configs.generate`, from the repository's root.

Each net has a module here that says what its paper says of it, in the paper's own numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from configs.generate import densenet, googlenet, mobilenet, resnet, squeezenet

CONFIGS = Path(__file__).resolve().parents[1]

NETS: dict[str, Callable[[bool], str]] = {
    "googlenet": googlenet.write,
    "squeezenet": squeezenet.write,
    "resnet50": resnet.write,
    "mobilenet_v1": mobilenet.write_v1,
    "mobilenet_v2": mobilenet.write_v2,
    "densenet121": densenet.write,
}


def generate() -> dict[Path, str]:
    """Return the text of each file by its path below configs/."""
    files = {}
    for folder, write in NETS.items():
        files[Path(folder, "train_val.prototxt")] = write(False)
        files[Path(folder, "deploy.prototxt")] = write(True)
    return files


if __name__ == "__main__":
    for path, text in generate().items():
        (CONFIGS / path).parent.mkdir(exist_ok=True)
        (CONFIGS / path).write_text(text, encoding="utf-8")
