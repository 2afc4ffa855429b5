"""A net's prototxt under way: one method for each kind of layer that the generated nets have.

Beside the flow: what is written here is read by core/prototxt. A method appends a layer and returns its top, so
that the modules of the nets read as the nets are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

MAX_WIDTH = 110
INDENT = "  "


@dataclass(frozen=True)
class Images:
    """What a net reads from ImageNet's records of 256x256 pixels.

    size: side of the cropped squares. mean: of blue, green and red, taken off. scale: factor after that.
    batch_size, test_batch_size: per rank. mirror: flip half of the images in TRAIN.
    """

    size: int
    mean: tuple[float, float, float]
    batch_size: int
    test_batch_size: int = 50
    scale: float = 1.0
    mirror: bool = True


@dataclass(frozen=True)
class Learning:
    """How a layer's weights and biases begin (fields of their fillers) and learn (fields of their params)."""

    weight_filler: str
    bias_filler: str = ""
    rates: tuple[str, ...] = ()


@dataclass
class NetText:
    """The text of a net: for training and tests, or, with `deploy`, for scores of images that a program fills in.

    learning: of layers for which nothing else is said; it is not written for deploy, where nothing is learned.
    """

    name: str
    images: Images
    deploy: bool
    learning: Learning
    blocks: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.deploy:
            size = self.images.size
            shape = f"shape {{ dim: 1 dim: 3 dim: {size} dim: {size} }}"
            self.layer("data", "Input", (), "data", message("input_param", shape))
        else:
            self._data("TRAIN", "train", self.images.batch_size)
            self._data("TEST", "val", self.images.test_batch_size)

    def layer(self, name: str, kind: str, bottoms: Sequence[str], top: str, *fields: str) -> str:
        """Append a layer, on one line if it fits, and return its top. A bottom that is a str is the only one."""
        bottoms = (bottoms,) if isinstance(bottoms, str) else bottoms
        parts = [f'name: "{name}"', f'type: "{kind}"', *(f'bottom: "{bottom}"' for bottom in bottoms)]
        return self._append([*parts, f'top: "{top}"', *(part for part in fields if part)], top)

    def convolution(
        self,
        name: str,
        bottom: str,
        num_output: int,
        kernel: int,
        *,
        stride: int = 1,
        pad: int = 0,
        group: int = 1,
        bias: bool = True,
        learning: Learning | None = None,
    ) -> str:
        """Append a Convolution of a square window."""
        shape = f"num_output: {num_output} kernel_size: {kernel}"
        shape += f" stride: {stride}" * (stride != 1) + f" pad: {pad}" * (pad != 0)
        shape += f" group: {group}" * (group != 1) + " bias_term: false" * (not bias)
        params, fillers = self._learned(learning, bias)
        described = message("convolution_param", shape, *fillers)
        return self.layer(name, "Convolution", bottom, name, *params, described)

    def inner_product(self, name: str, bottom: str, num_output: int, learning: Learning | None = None) -> str:
        """Append an InnerProduct with biases."""
        params, fillers = self._learned(learning, bias=True)
        described = message("inner_product_param", f"num_output: {num_output}", *fillers)
        return self.layer(name, "InnerProduct", bottom, name, *params, described)

    def relu(self, name: str, bottom: str) -> str:
        """Append a ReLU in place."""
        return self.layer(name, "ReLU", bottom, bottom)

    def batch_norm(self, name: str, scale: str, bottom: str, top: str | None = None) -> str:
        """Append the pair BatchNorm `name` and Scale `scale`, in place unless a top is given."""
        top = top or bottom
        self.layer(name, "BatchNorm", bottom, top)
        return self.layer(scale, "Scale", top, top, "scale_param { bias_term: true }")

    def pool(
        self, name: str, bottom: str, method: str, kernel: int, stride: int, pad: int = 0, extra: str = ""
    ) -> str:
        """Append a Pooling by MAX or AVE."""
        window = f"kernel_size: {kernel} stride: {stride}" + f" pad: {pad}" * (pad != 0) + extra
        return self.layer(name, "Pooling", bottom, name, f"pooling_param {{ pool: {method} {window} }}")

    def global_mean(self, name: str, bottom: str) -> str:
        """Append the mean of each channel."""
        return self.layer(name, "Pooling", bottom, name, "pooling_param { pool: AVE global_pooling: true }")

    def concat(self, name: str, bottoms: Sequence[str]) -> str:
        """Append a Concat along the channels."""
        return self.layer(name, "Concat", bottoms, name)

    def add(self, name: str, bottoms: Sequence[str]) -> str:
        """Append the sum of blobs of one shape."""
        return self.layer(name, "Eltwise", bottoms, name)

    def dropout(self, name: str, bottom: str, ratio: float) -> str:
        """Append a Dropout in place."""
        return self.layer(name, "Dropout", bottom, bottom, f"dropout_param {{ dropout_ratio: {ratio} }}")

    def score(self, scores: str) -> None:
        """Append what compares scores with labels, or, for deploy, turns them into probabilities."""
        if self.deploy:
            self.layer("prob", "Softmax", scores, "prob")
            return
        self.layer("loss", "SoftmaxWithLoss", (scores, "label"), "loss")
        self.accuracy("accuracy", scores)
        self.accuracy("accuracy_top5", scores, top_k=5)

    def accuracy(self, name: str, scores: str, top_k: int = 1) -> None:
        """Append the share of images whose label is among the `top_k` highest scores, in TEST."""
        ranked = f"accuracy_param {{ top_k: {top_k} }}" if top_k != 1 else ""
        self.layer(name, "Accuracy", (scores, "label"), name, "include { phase: TEST }", ranked)

    def text(self, about: str, module: str) -> str:
        """Return the whole file; `about`: its first comment, lines without `#`. `module`: where it is written."""
        origin = (
            f"Written by `python -m configs.generate`; change configs/generate/{module}.py, not this file."
        )
        comments = [f"# {line}" for line in (*about.splitlines(), origin)]
        return "\n".join([*comments, f'name: "{self.name}"', *self.blocks]) + "\n"

    def _append(self, parts: Sequence[str], top: str) -> str:
        line = f"layer {{ {' '.join(parts)} }}"
        if len(line) > MAX_WIDTH:
            line = "\n".join(["layer {", *(INDENT + part for part in parts), "}"])
        self.blocks.append(line)
        return top

    def _data(self, phase: str, part: str, batch_size: int) -> None:
        images = self.images
        change = f"crop_size: {images.size}" + " mirror: true" * (images.mirror and phase == "TRAIN")
        mean = " ".join(f"mean_value: {value:g}" for value in images.mean)
        scale = [f"scale: {images.scale:g}"] * (images.scale != 1)
        source = f'source: "databases/ilsvrc12_{part}_lmdb" backend: LMDB batch_size: {batch_size}'
        parts = [
            'name: "data"',
            'type: "Data"',
            'top: "data"',
            'top: "label"',
            f"include {{ phase: {phase} }}",
        ]
        transform = message("transform_param", change, mean, *scale)
        self._append([*parts, transform, message("data_param", source)], "data")

    def _learned(self, learning: Learning | None, bias: bool) -> tuple[list[str], list[str]]:
        """Return the params and the fillers of a layer."""
        if self.deploy:
            return [], []
        learning = learning or self.learning
        fillers = [f"weight_filler {{ {learning.weight_filler} }}"]
        if bias and learning.bias_filler:
            fillers.append(f"bias_filler {{ {learning.bias_filler} }}")
        return [f"param {{ {rates} }}" for rates in learning.rates[: 1 + bias]], fillers


def message(name: str, *fields: str) -> str:
    """Return a message that is a field of a layer, on one line if it fits."""
    line = f"{name} {{ {' '.join(fields)} }}"
    if len(line) + len(INDENT) <= MAX_WIDTH:
        return line
    return "\n".join([f"{name} {{", *(f"{2 * INDENT}{field}" for field in fields), INDENT + "}"])
