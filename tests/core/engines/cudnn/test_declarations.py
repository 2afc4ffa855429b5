from __future__ import annotations

import ctypes
import re

import pytest

from dtrain.core.engines.cudnn import declarations as dnn
from dtrain.core.engines.cudnn import lrn
from tests.played.cudnn import PlayedCudnn

SIZES = {"int": 4, "float": 4, "size_t": 8}


def without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.DOTALL)


def letter(parameter: str) -> str:
    """Return the kind of a parameter, such as `const void *alpha`."""
    *words, _ = parameter.replace("*", " * ").replace("[", " [").replace("const", " ").split()
    if "*" in parameter or "[" in parameter:
        return "p"
    kind = words[0]
    if kind in ("cudnnHandle_t", "cudaStream_t") or kind.endswith("Descriptor_t"):
        return "p"
    return {"size_t": "z", "double": "d", "unsigned": "u"}.get(kind, "i")


@pytest.mark.parametrize("name", dnn.PARAMETERS)
def test_parameters_of_each_function_are_those_of_the_header(headers: str, name: str) -> None:
    text = without_comments(headers)
    found = re.search(rf"cudnnStatus_t\s+(?:CUDNNWINAPI\s+)?cudnn{name}\s*\(([^;]*)\)\s*;", text)
    assert found is not None
    assert "".join(map(letter, found[1].split(","))) == dnn.PARAMETERS[name]


def test_enum_names_have_the_numbers_of_the_header(headers: str) -> None:
    text = without_comments(headers)
    for name, number in dnn.ENUM_NAMES.items():
        found = re.search(rf"\bCUDNN_{name}\s+(?:CUDNN_DEPRECATED_ENUM\s+)?=\s*(\d+)", text)
        assert found is not None, name
        assert int(found[1]) == number, name


def test_performance_lies_as_the_headers_structure(headers: str) -> None:
    text = without_comments(headers)
    for direction in ("Fwd", "BwdData", "BwdFilter"):
        found = re.search(rf"struct cudnnConvolution{direction}AlgoPerfStruct \{{(.*?)\}}", text, re.DOTALL)
        assert found is not None
        fields = [line.split() for line in found[1].split(";") if line.strip()]
        sizes = [3 * 4 if "[3]" in name else SIZES.get(kind, 4) for kind, name in fields]
        ours = [ctypes.sizeof(kind) for _, kind in dnn.Performance._fields_]
        assert ours == sizes
        assert [name.split("[")[0] for _, name in fields] == [
            "algo", "status", "time", "memory", "determinism", "mathType", "reserved",
        ]  # fmt: skip


def test_limits_of_lrn_are_those_of_the_header(headers: str) -> None:
    found = dict(re.findall(r"#define CUDNN_LRN_(\w+) +([\d.e-]+)", headers))
    limits = float(found["MAX_N"]), float(found["MIN_K"]), float(found["MIN_BETA"])
    assert limits == (lrn.MOST_NEIGHBOURS, lrn.LEAST_K, lrn.LEAST_BETA)


def test_declare_gives_each_function_its_types() -> None:
    declared = dnn.declare(PlayedCudnn())
    assert declared.keys() == dnn.PARAMETERS.keys()
    assert declared["SetLRNDescriptor"].argtypes == [  # type: ignore[attr-defined]
        ctypes.c_void_p, ctypes.c_uint, ctypes.c_double, ctypes.c_double, ctypes.c_double,
    ]  # fmt: skip
