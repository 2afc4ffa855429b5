"""The three running sums of a BatchNorm are not learned."""

from __future__ import annotations

import logging

import pytest

from dtrain.core.graph.upgrade import upgrade_net
from tests.core.graph.upgrade.documents import net_of


@pytest.mark.parametrize(
    ("type", "num_specs", "expected"),
    [
        ("BatchNorm", 3, [(0, 0)] * 3),
        ("BatchNorm", 2, [(2, 1)] * 2),
        ("InnerProduct", 3, [(2, 1)] * 3),
    ],
)
def test_upgrade_net_of_batch_norm_with_three_specs_stops_their_learning(
    type: str, num_specs: int, expected: list[tuple[float, float]]
) -> None:
    specs = 'param { name: "shared" lr_mult: 2 decay_mult: 1 }' * num_specs
    net = upgrade_net(net_of(f'layer {{ name: "bn" type: "{type}" bottom: "x" top: "y" {specs} }}')).message
    assert [(spec.lr_mult, spec.decay_mult) for spec in net.layer[0].param] == expected
    assert {spec.name for spec in net.layer[0].param} == {"shared"}


def test_upgrade_net_of_batch_norm_that_learns_nothing_is_not_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    specs = "param { lr_mult: 0 decay_mult: 0 }" * 3
    with caplog.at_level(logging.INFO):
        upgrade_net(net_of(f'layer {{ name: "bn" type: "BatchNorm" bottom: "x" top: "y" {specs} }}'))
    assert caplog.messages == []
