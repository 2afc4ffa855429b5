"""What layers can learn and pass on, of nets small enough to see it."""

from __future__ import annotations

from dtrain.core.net.flows import find_flows, loss_weights_of
from tests.core.net_builder import inputs, make_net

NET = (
    inputs(x=(2, 3), label=(2,), z=(3,))
    + """
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" param { lr_mult: 0 } param { lr_mult: 2 }
  inner_product_param { num_output: 4 } propagate_down: true }
layer { name: "half" type: "Power" bottom: "z" top: "half" loss_weight: 0.5 }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" top: "p" }
"""
)


def test_find_flows_gives_what_each_layer_learns_weighs_and_can_be_forced_to() -> None:
    net = make_net(NET)
    flows = find_flows(net.layers, net.bottom_names, net.top_names, net.loss_weights, net.param_table)
    by_name = dict(zip(net.layer_names, flows, strict=True))
    ip, loss = by_name["ip"], by_name["loss"]
    assert (ip.bottoms, ip.tops, ip.params_learn, ip.propagate_down) == (
        ("x",),
        ("ip",),
        (False, True),
        (True,),
    )
    assert (loss.bottoms, loss.tops, loss.params_learn) == (("ip", "label"), ("loss", "p"), ())
    assert loss.can_force == (True, False)  # a label has no gradient
    assert by_name["half"].loss_weights == (0.5,)


def test_loss_weights_of_counts_the_first_top_of_a_loss_unless_told_otherwise() -> None:
    net = make_net(NET)
    layers = dict(zip(net.layer_names, net.layers, strict=True))
    assert loss_weights_of(layers["loss"], 2) == [1.0, 0.0]
    assert loss_weights_of(layers["half"], 1) == [0.5]
    assert loss_weights_of(layers["ip"], 1) == [0.0]
