"""ONNX's own operator tests as values: models, inputs, wanted outputs, and what they deal with."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

SUITES: Final = ("node", "pytorch-converted", "pytorch-operator", "simple")
# The tolerances of onnx.backend.test for the suites that lie in files.
RTOL: Final = 1e-3
ATOL: Final = 1e-7
TO_DO: Final = "to do"
# Tests with align_corners and a fractional length: the ONNX reference does not round the length
# that it divides by, torch and ONNX Runtime do, and so do we.
AS_RUNTIME: Final = {
    "test_resize_downsample_scales_cubic_align_corners",
    "test_resize_downsample_scales_linear_align_corners",
}
OTHERWISE: Final = "floats, where ONNX Runtime does otherwise"
ROUNDING: Final = "floats, off by the last digit"
# Operators whose tests may fail for good.
RANDOM: Final = {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}
TRAINING: Final = {"Adagrad", "Adam", "Gradient", "Momentum"}
TEXTS: Final = {"ImageDecoder", "RegexFullMatch", "StringNormalizer", "TfIdfVectorizer"}
COMMON_TYPES: Final = {
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.DOUBLE,
    TensorProto.BFLOAT16,
    TensorProto.INT8,
    TensorProto.INT16,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.UINT8,
    TensorProto.BOOL,
    TensorProto.STRING,
}
FLOATS: Final = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE}


@dataclass(frozen=True, eq=False, kw_only=True)
class Case:
    """One test.

    Attributes:
        suite: One of `SUITES`.
        name: Its name there.
        model: What to run.
        sets: Pairs of the inputs and the wanted outputs, in the order of the graph's.
        rtol: How far from the wanted output, relative to it.
        atol: How far absolutely.
    """

    suite: str
    name: str
    model: onnx.ModelProto
    sets: Sequence[tuple[Sequence[Any], Sequence[Any]]]
    rtol: float = RTOL
    atol: float = ATOL


def cases(suite: str) -> Iterator[Case]:
    """Yield the tests of a suite, by name; of `node` those that are not expanded functions."""
    yield from _node_cases() if suite == "node" else _file_cases(suite)


def kind(case: Case) -> str:
    """Return why a test need not pass, in words, or `TO_DO`."""
    if case.name in AS_RUNTIME:
        return OTHERWISE
    operators = {node.op_type for node in _nodes(case.model.graph)}
    values = [*case.model.graph.input, *case.model.graph.output]
    types = {value.type.tensor_type.elem_type for value in values if _is_tensor(value)}
    if operators & RANDOM or "training_dropout" in case.name:
        return "random"
    if any(node.domain == "ai.onnx.ml" for node in _nodes(case.model.graph)):
        return "classical machine learning"
    if operators & TRAINING:
        return "operators of training"
    if not all(map(_is_tensor, values)) or TensorProto.STRING in types or operators & TEXTS:
        return "texts, sequences, optionals"
    if types - COMMON_TYPES:
        return "number types that torch lacks"
    if types & FLOATS:
        return TO_DO
    return "bfloat16" if TensorProto.BFLOAT16 in types else "no floats"


def _node_cases() -> Iterator[Case]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy on the overflows that some tests are about
        found = collect_testcases()
    for case in sorted(found, key=lambda case: case.name):
        if "_expanded" not in case.name and case.model is not None:
            yield Case(
                suite="node",
                name=case.name,
                model=case.model,
                sets=case.data_sets or (),
                rtol=case.rtol,
                atol=case.atol,
            )


def _file_cases(suite: str) -> Iterator[Case]:
    root = Path(onnx.__file__).parent / "backend" / "test" / "data" / suite
    for folder in sorted(path for path in root.iterdir() if (path / "model.onnx").exists()):
        model = onnx.load(folder / "model.onnx")
        graph = model.graph
        sets = [
            (_read(data, "input", graph.input), _read(data, "output", graph.output))
            for data in sorted(folder.glob("test_data_set_*"))
        ]
        yield Case(suite=suite, name=folder.name, model=model, sets=sets)


def _read(folder: Path, what: str, values: Sequence[onnx.ValueInfoProto]) -> list[Any]:
    """Return what `input_0.pb`, `input_1.pb` ... hold; the graph says what they are."""
    arrays: list[Any] = []
    for index in range(len(list(folder.glob(f"{what}_*.pb")))):
        content = (folder / f"{what}_{index}.pb").read_bytes()
        if values[index].type.HasField("sequence_type"):
            sequence = onnx.SequenceProto.FromString(content)
            arrays.append(numpy_helper.to_list(sequence))
        elif values[index].type.HasField("optional_type"):
            optional = onnx.OptionalProto.FromString(content)
            arrays.append(numpy_helper.to_optional(optional))
        else:
            arrays.append(numpy_helper.to_array(TensorProto.FromString(content)))
    return arrays


def _is_tensor(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.HasField("tensor_type"))


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def same(given: object, wanted: object, case: Case) -> str:
    """Return what differs between an output and what is wanted, or nothing."""
    if isinstance(wanted, (list, tuple)):
        if not isinstance(given, (list, tuple)) or len(given) != len(wanted):
            return "not the sequence that is wanted"
        gaps = (same(one, other, case) for one, other in zip(given, wanted, strict=True))
        return next(filter(None, gaps), "")
    if wanted is None or given is None:
        return "" if wanted is given else "an optional that is not wanted"
    if isinstance(wanted, TensorProto):
        wanted = numpy_helper.to_array(wanted)
    one, other = np.asarray(given), np.asarray(wanted)
    if one.shape != other.shape:
        return f"shape {one.shape}, wanted {other.shape}"
    if one.dtype != other.dtype:
        return f"type {one.dtype}, wanted {other.dtype}"
    if other.dtype.kind in "OUS":
        return "" if (one == other).all() else "other texts"
    precision = _precision(other.dtype)
    if other.dtype.kind == "V":  # bfloat16 and smaller
        one, other = one.astype(np.float32), other.astype(np.float32)
    if np.allclose(one, other, rtol=case.rtol, atol=case.atol, equal_nan=True):
        return ""
    wide = one.astype(np.float64), other.astype(np.float64)
    gap, size = np.max(np.abs(wide[0] - wide[1])), np.max(np.abs(wide[1]))
    reason = f"differs by up to {gap:.3g} of {size:.3g}"
    return f"{ROUNDING}: {reason}" if gap <= size * precision else reason


def _precision(kind: np.dtype[Any]) -> float:
    """Return the distance between 1 and the next number of a type; 0 for integers."""
    if kind.name == "bfloat16":
        return 2.0**-7
    return float(np.finfo(kind).eps) if kind.kind == "f" else 0.0
