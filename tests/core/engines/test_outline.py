"""Engines for GPUs in outline: they have operations for the specs that the engines have them for."""

from __future__ import annotations

import pytest

from dtrain.core.engines import create_engine
from dtrain.core.engines import operations as op
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.outline import Outlined, create_outline
from dtrain.core.errors import UserError
from tests.core.net_builder import inputs, make_net
from tests.played.cudnn import play_cudnn

IMAGES, EMPTY = (2, 4, 6, 6), (0, 4, 6, 6)
LINE = (1,)
PAIR = (1, 1)


def convolution(shape: tuple[int, ...], stride: tuple[int, ...]) -> op.ConvolutionSpec:
    weight, zeros = (4, 4, *stride), tuple(0 for _ in stride)
    return op.ConvolutionSpec(shape, weight, shape, 1, stride, zeros, stride)


NORM = op.BatchNormSpec(IMAGES, 1e-5, True)
SUM = op.EltwiseSpec(IMAGES, "SUM", (1.0, 1.0))
PRODUCT = op.InnerProductSpec(2, 3, 4)
SPECS = [
    op.ActivationSpec(IMAGES, "relu"),
    op.ActivationSpec((), "tanh"),
    op.ActivationSpec(IMAGES, "relu", 0.1),
    op.ActivationSpec(EMPTY, "relu"),
    NORM,
    op.BatchNormSpec((2, 4, 6, 6, 6, 6), 1e-5, True),
    op.BatchNormSpec(EMPTY, 1e-5, True),
    op.ConcatSpec((IMAGES, IMAGES), 1),
    op.ConcatSpec((IMAGES, IMAGES), 0),
    op.ConcatSpec((EMPTY, EMPTY), 1),
    convolution((2, 4, 6), LINE),
    convolution(IMAGES, PAIR),
    convolution((2, 4, 6, 6, 6, 6), (1, 1, 1, 1)),
    convolution(EMPTY, PAIR),
    op.DropoutSpec(IMAGES, 0.5, 2.0),
    SUM,
    op.EltwiseSpec(IMAGES, "SUM", (1.0, -1.0)),
    op.EltwiseSpec(IMAGES, "SUM", (1.0,)),
    op.EltwiseSpec(IMAGES, "MAX", (1.0, 1.0)),
    op.EltwiseSpec(EMPTY, "SUM", (1.0, 1.0)),
    PRODUCT,
    op.InnerProductSpec(0, 3, 4),
    op.LRNSpec(IMAGES, 5, 1e-4, 0.75, 1.0, False),
    op.LRNSpec(IMAGES, 5, 1e-4, 0.75, 1.0, True),
    op.LRNSpec(IMAGES, 17, 1e-4, 0.75, 1.0, False),
    op.LRNSpec(EMPTY, 5, 1e-4, 0.75, 1.0, False),
    op.PoolingSpec(IMAGES, (2, 4, 3, 3), "MAX", (2, 2), (2, 2), (0, 0)),
    op.PoolingSpec(EMPTY, (0, 4, 3, 3), "MAX", (2, 2), (2, 2), (0, 0)),
    op.SoftmaxSpec(IMAGES, 1),
    op.SoftmaxSpec(EMPTY, 1),
]
FUSED = [
    op.FusedBatchNormSpec(NORM),
    op.FusedSumSpec(SUM),
    op.FusedSumSpec(op.EltwiseSpec(IMAGES, "PROD", (1.0, 1.0))),
    op.FusedWeightedSpec(convolution(IMAGES, PAIR), adds=True, relu=True),
    op.FusedWeightedSpec(convolution((2, 4, 6, 6, 6, 6), (1, 1, 1, 1)), adds=False, relu=True),
    op.FusedWeightedSpec(PRODUCT, adds=False, relu=True),
    op.FusedWeightedSpec(PRODUCT, adds=True, relu=True),
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_outline_has_what_the_engine_has(monkeypatch: pytest.MonkeyPatch, spec: object) -> None:
    play_cudnn(monkeypatch)
    found = type(create_engine("cudnn").create(spec))
    outlined = create_outline("cudnn").create(spec)
    has_own = found.__module__.startswith("dtrain.core.engines.cudnn.")
    assert (outlined.name if isinstance(outlined, Outlined) else "") == (found.__name__ if has_own else "")


@pytest.mark.parametrize("spec", FUSED, ids=str)
def test_outline_fuses_what_the_engine_fuses(monkeypatch: pytest.MonkeyPatch, spec: object) -> None:
    play_cudnn(monkeypatch)
    has_own = []
    for engine in (create_engine("cudnn"), create_outline("cudnn")):
        try:
            engine.create_own(spec)
        except NotOffered:
            has_own.append(False)
        else:
            has_own.append(True)
    assert has_own[0] == has_own[1]


def test_outline_of_cupy_is_the_reference_engines_code() -> None:
    engine = create_outline("cupy")
    assert engine.name == "cupy"
    assert "reference" in type(engine.create(SPECS[0])).__module__


def test_outline_has_the_engines_precisions() -> None:
    assert create_outline("cudnn", "BF16").precision == "BF16"
    with pytest.raises(UserError, match="^engine cupy: precision must be FLOAT32, got BF16"):
        create_outline("cupy", "BF16")


def test_outline_of_an_engine_for_cpus_is_an_error() -> None:
    with pytest.raises(UserError, match="^engine onednn: only those of GPUs have an outline, cudnn, cupy$"):
        create_outline("onednn")


def test_outlined_net_does_not_run() -> None:
    text = inputs(data=(2, 4)) + 'layer { name: "tanh" type: "TanH" bottom: "data" top: "tanh" }'
    net = make_net(text, engine=create_outline("cudnn"))
    assert net.blobs["tanh"].shape == (2, 4)
    with pytest.raises(AssertionError, match="a net in outline does not run, got forward of Activation"):
        net.forward()
