from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from dtrain.core.engines import CPU_ENGINES, ENGINES, GPU_ENGINES, Promises, create_engine
from dtrain.core.engines.engine import Engine
from dtrain.core.engines.onednn import engine
from dtrain.core.errors import MissingLibrary, UserError
from dtrain.core.registry import Registry
from tests.played.cudnn import play_cudnn
from tests.played.cupy import play_cupy


def refuse(error: UserError) -> Callable[[], Any]:
    def bind() -> Any:
        raise error

    return bind


def test_create_engine_without_a_name_takes_onednn_where_it_is_installed() -> None:
    try:
        create_engine("onednn")
    except MissingLibrary:
        pytest.skip("oneDNN is not installed")
    assert create_engine().name == CPU_ENGINES[0] == "onednn"


def test_create_engine_without_onednn_takes_the_reference_without_a_word(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine, "_bind", refuse(MissingLibrary("none")))
    with caplog.at_level(logging.INFO):
        assert create_engine().name == "reference"
    assert not caplog.messages


def test_create_engine_with_a_onednn_that_does_not_work_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine, "_bind", refuse(UserError("x.so must be oneDNN 3, got 2.6.3")))
    assert create_engine().name == "reference"
    assert caplog.messages == [
        "engine onednn can't be used, so a slower one computes: x.so must be oneDNN 3, got 2.6.3"
    ]


def test_create_engine_by_name_of_one_that_is_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_bind", refuse(MissingLibrary("engine onednn needs oneDNN 3, got none")))
    with pytest.raises(UserError, match="engine onednn needs oneDNN 3, got none"):
        create_engine("onednn")


def test_create_engine_for_bf16_is_onednn() -> None:
    try:
        has_bf16 = create_engine("onednn").binding.library.has_bf16  # type: ignore[attr-defined]
    except MissingLibrary:
        pytest.skip("oneDNN is not installed")
    if has_bf16:
        created = create_engine(None, "BF16")
        assert (created.name, created.precision) == ("onednn", "BF16")
        assert ", bf16, " in created.describe()
    else:
        with pytest.raises(UserError, match="CPU with avx512_bf16, got one without"):
            create_engine(None, "BF16")


def test_create_engine_for_bf16_on_a_cpu_without_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    binding = SimpleNamespace(library=SimpleNamespace(has_bf16=False))
    monkeypatch.setattr(engine, "_bind", lambda: binding)
    sentence = (
        "engine onednn: precision BF16 must be computed by a CPU with avx512_bf16, got one without;"
        " use FLOAT32"
    )
    for name in (None, "onednn"):
        with pytest.raises(UserError, match=f"^{sentence}$"):
            create_engine(name, "BF16")


def test_create_engine_for_bf16_without_onednn_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_bind", refuse(MissingLibrary("engine onednn needs oneDNN 3, got none")))
    with pytest.raises(UserError, match="engine onednn needs oneDNN 3, got none"):
        create_engine(None, "BF16")


def test_create_engine_of_the_reference_for_bf16_is_an_error() -> None:
    sentence = "engine reference: precision must be FLOAT32, got BF16; BF16 needs engine cudnn or onednn"
    with pytest.raises(UserError, match=f"^{sentence}$"):
        create_engine("reference", "BF16")


class Played(Engine):
    """An engine that needs `missing`."""

    missing = ""

    def __init__(self, precision: str = "FLOAT32") -> None:
        super().__init__(precision)
        if self.missing:
            raise UserError(self.missing)


def play_engines(monkeypatch: pytest.MonkeyPatch, **missing: str) -> None:
    """Let there be engines of these names, which lack something or nothing; cudnn's can also compute in BF16."""
    registry: Registry[type[Engine]] = Registry("engine")
    for name, what in missing.items():
        precisions = ("FLOAT32", "BF16") if name == "cudnn" else ("FLOAT32",)
        attributes = {"name": name, "missing": what, "precisions": precisions}
        registry.register(name)(type(name, (Played,), attributes))
    for module in ("dtrain.core.engines", "dtrain.core.engines.engine"):
        monkeypatch.setattr(f"{module}.ENGINES", registry)


def test_create_engine_on_a_gpu_takes_the_fastest_that_works(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    play_engines(monkeypatch, cudnn="", cupy="", onednn="", reference="")
    assert create_engine(on_gpu=True).name == GPU_ENGINES[0] == "cudnn"
    assert create_engine(on_gpu=False).name == "onednn"
    assert not caplog.messages


def test_create_engine_on_a_gpu_without_cudnn_takes_cupy_and_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    play_engines(monkeypatch, cudnn="engine cudnn needs cuDNN 9, got none", cupy="", reference="")
    assert create_engine(on_gpu=True).name == "cupy"
    assert caplog.messages == [
        "engine cudnn can't be used, so a slower one computes: engine cudnn needs cuDNN 9, got none"
    ]


def test_create_engine_tells_whom_it_is_given(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    play_engines(monkeypatch, cudnn="engine cudnn needs cuDNN 9, got none", cupy="", reference="")
    told: list[str] = []
    create_engine(on_gpu=True, tell=told.append)
    assert len(told) == 1
    assert not caplog.messages


@pytest.mark.parametrize("name", ["reference", "cupy"])
def test_create_engine_that_keeps_all_promises_need_not_hear_of_them(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    play_engines(monkeypatch, cupy="", reference="")
    assert create_engine(name, promises=Promises(strict_float32=True, deterministic=True)).name == name


def test_create_engine_on_a_gpu_in_a_precision_that_only_the_missing_one_has_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    play_engines(monkeypatch, cudnn="engine cudnn needs cuDNN 9, got none", cupy="")
    with pytest.raises(UserError, match="^engine cudnn needs cuDNN 9, got none$"):
        create_engine(None, "BF16", on_gpu=True)


def test_create_engine_on_a_gpu_in_a_precision_that_none_has_says_who_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sentence = (
        "precision BF16: there must be an engine for it, got none among reference; use FLOAT32,"
        " or --engine cudnn"
    )
    play_engines(monkeypatch, reference="", cudnn="", cupy="")
    with pytest.raises(UserError, match=f"^{sentence}$"):
        create_engine(None, "BF16")
    with pytest.raises(UserError, match="got none among cudnn, cupy; use FLOAT32$"):
        create_engine(None, "FLOAT16", on_gpu=True)


def test_create_engine_of_cupy_without_a_gpu_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    play_cupy(monkeypatch, num_devices=0)
    with pytest.raises(
        UserError, match="^engine cupy: CUDA must find a GPU that it can use, got cudaErrorNoDevice"
    ):
        create_engine("cupy")


@pytest.mark.parametrize("name", list(ENGINES))
def test_create_engine_by_name_gives_a_new_one_of_that_name(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name in GPU_ENGINES:
        play_cudnn(monkeypatch)
    try:
        created = create_engine(name)
    except MissingLibrary:
        pytest.skip("oneDNN is not installed")
    assert created.name == name
    assert create_engine(name) is not created


def test_create_engine_of_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match='unknown engine "refrence".*known: .*reference'):
        create_engine("refrence")
