"""Operations counted by hand, layer by layer."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtrain.launcher.flops import count_flops, count_multiply_adds
from tests.launcher.simulation.nets import DATA, build, dims, inner_product, loss

IMAGES = (2, 4, 9, 9)
WINDOW = "num_output: 8 kernel_size: 3 stride: 2"  # 4 x 4 places, or 19 x 19 transposed


def layer_flops(folder: Path, layer: str) -> tuple[float, float]:
    """Return the operations of the middle one of three layers, behind one that learns so that gradients flow."""
    first = 'layer { name: "first" type: "Convolution" bottom: "data" top: "first" '
    first += "convolution_param { num_output: 4 kernel_size: 1 } }\n"
    last = inner_product("last", "x", 5) + loss("last")
    data = DATA.format(data=dims(*IMAGES), target=dims(2, 5))
    text = data + first + f'layer {{ name: "x" bottom: "first" top: "x" {layer} }}\n' + last
    net, _ = build(folder, text)
    forward, backward = count_flops(net)
    k = net.layer_names.index("x")
    return forward[k], backward[k]


@pytest.mark.parametrize(
    ("layer", "forward", "times_back"),
    [
        (f'type: "Convolution" convolution_param {{ {WINDOW} }}', 2 * (2 * 8 * 4 * 4) * (4 * 3 * 3), 2),
        (
            f'type: "Convolution" convolution_param {{ {WINDOW} group: 2 }}',
            2 * (2 * 8 * 4 * 4) * (2 * 3 * 3),
            2,
        ),
        (f'type: "Deconvolution" convolution_param {{ {WINDOW} }}', 2 * (2 * 4 * 9 * 9) * (8 * 3 * 3), 2),
        ('type: "InnerProduct" inner_product_param { num_output: 7 }', 2 * 2 * 7 * (4 * 9 * 9), 2),
        ('type: "ReLU"', 2 * (2 * 4 * 9 * 9), 1),
        ('type: "Pooling" pooling_param { kernel_size: 3 stride: 2 }', 2 * 4 * 9 * 9 + 2 * 4 * 4 * 4, 1),
    ],
)
def test_count_flops_of_a_layer_is_the_count_by_hand(
    tmp_path: Path, layer: str, forward: float, times_back: int
) -> None:
    assert layer_flops(tmp_path, layer) == (forward, times_back * forward)


def test_count_flops_of_the_first_learned_layer_has_no_gradient_of_its_bottom(tmp_path: Path) -> None:
    text = DATA.format(data=dims(8, 16), target=dims(8, 3)) + inner_product("a", "data", 3) + loss("a")
    forward, backward = count_flops(build(tmp_path, text)[0])
    assert (forward[1], backward[1]) == (2 * 8 * 3 * 16, 2 * 8 * 3 * 16)
    assert backward[0] == 0  # data need no gradient


def test_count_flops_of_an_lstm_is_its_products_of_all_steps(tmp_path: Path) -> None:
    text = (
        DATA.format(data=dims(5, 2, 16), target=dims(5, 2))
        + 'layer { name: "x" type: "LSTM" bottom: "data" bottom: "target" top: "x" '
        + "recurrent_param { num_output: 7 } }\n"
        + 'layer { name: "loss" type: "EuclideanLoss" bottom: "x" bottom: "x" top: "loss" }\n'
    )
    forward, _ = count_flops(build(tmp_path, text)[0])
    assert forward[1] == 2 * 5 * 2 * (4 * 7 * 16 + 4 * 7 * 7)


def test_count_flops_of_splits_is_none(tmp_path: Path) -> None:
    text = DATA.format(data=dims(8, 16), target=dims(8, 16)) + inner_product("a", "data", 16)
    net, _ = build(tmp_path, text + loss("a") + loss("a").replace('"loss"', '"again"'))
    forward, backward = count_flops(net)
    splits = [k for k, layer in enumerate(net.layers) if layer.type == "Split"]
    assert splits
    assert {forward[k] + backward[k] for k in splits} == {0}


def test_count_multiply_adds_of_a_net_are_products_of_matrices_alone(tmp_path: Path) -> None:
    text = DATA.format(data=dims(8, 16), target=dims(8, 3)) + inner_product("a", "data", 3) + loss("a")
    assert count_multiply_adds(build(tmp_path, text)[0]) == [0, 8 * 3 * 16, 0]
