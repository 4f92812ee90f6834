"""Mean and variance of every channel of tensors over data, reduced inside ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from onnx_relief.data import Dataset
from onnx_relief.graph.document import Document, opset
from onnx_relief.measuring.measure import full_batches
from onnx_relief.runtime import open_session

Floats = NDArray[np.float64]
_WATCHED = ("mean", "variance", "size")


@dataclass(frozen=True, eq=False)
class Moments:
    """What the channels of one tensor are like; arrays of shape (channels,).

    Attributes:
        mean: Over samples and places, each of which counts the same.
        variance: The same.
    """

    mean: Floats
    variance: Floats


@dataclass(frozen=True)
class Channels:
    """Where the channels of a tensor are.

    Attributes:
        rank: How many axes it has.
        axis: Which of them they are.
        count: How many there are, where they are the last axis of a tensor whose rank is not known;
            its rows are looked at then, and `rank` and `axis` are 2 and 1. Else None.
        wide: Whether it holds float64, and its moments are taken in that rather than in float32.
    """

    rank: int
    axis: int
    count: int | None = None
    wide: bool = False


def moments(
    document: Document,
    tensors: Mapping[str, Channels],
    data: Dataset,
    *,
    batch_size: int,
    provider: str,
) -> dict[str, Moments]:
    """Return mean and variance of each channel of some tensors of the main graph.

    Sums are kept in float64, of means that ONNX Runtime takes over each batch; variances are put
    together from those of the batches (Chan, Golub and LeVeque 1979), so that a large mean does no
    harm.

    Raises:
        ModelError, DataError: The model cannot be run on the data.
    """
    session = open_session(
        watched(document, tensors).proto, provider=provider, folder=document.folder
    )
    names = watches(tensors)
    batches = full_batches(data, batch_size)
    return merged(tensors, (session.run(batch.feed, names) for batch in batches))


def watched(document: Document, tensors: Mapping[str, Channels]) -> Document:
    """Return the document with the moments of some tensors over a batch as further outputs."""
    return replace(document, proto=_with_moments(document.proto, tensors))


def watches(tensors: Iterable[str]) -> list[str]:
    """Return what `watched` calls its outputs for some tensors."""
    return [_output(name, which) for name in tensors for which in _WATCHED]


def merged(
    tensors: Iterable[str], batches: Iterable[Mapping[str, NDArray[Any]]]
) -> dict[str, Moments]:
    """Return moments over all of some batches, from what `watched` gave for each."""
    found: dict[str, tuple[int, Moments]] = {}
    names = list(tensors)
    for results in batches:
        for name in names:
            mean, variance, size = (np.asarray(results[one]) for one in watches([name]))
            seen = Moments(*(a.astype(np.float64).reshape(-1) for a in (mean, variance)))
            part = (int(size) // max(seen.mean.size, 1), seen)
            found[name] = _merged(found[name], part) if name in found else part
    return {name: both for name, (_, both) in found.items()}


def _merged(one: tuple[int, Moments], other: tuple[int, Moments]) -> tuple[int, Moments]:
    """Return numbers of each channel, and their moments, over two parts of them."""
    (first, before), (second, new) = one, other
    if not first or not second:
        return one if first else other
    count = first + second
    share, apart = second / count, new.mean - before.mean
    within = (1 - share) * before.variance + share * new.variance
    return count, Moments(before.mean + share * apart, within + share * (1 - share) * apart**2)


def _output(name: str, which: str) -> str:
    return f"onnx_relief_{which}_of_{name}"


def _with_moments(model: onnx.ModelProto, tensors: Mapping[str, Channels]) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    proto.CopyFrom(model)
    for name, where in tensors.items():
        axes = [axis for axis in range(where.rank) if axis != where.axis % where.rank]
        mean, variance, size = (_output(name, which) for which in _WATCHED)
        values, kept, difference, square, rows, shape = (
            f"{mean}_{step}" for step in ("of", "kept", "difference", "square", "rows", "shape")
        )
        # Sixteen bits hold neither sums over many places nor squares of large numbers.
        kind = onnx.TensorProto.DOUBLE if where.wide else onnx.TensorProto.FLOAT
        proto.graph.node.append(helper.make_node("Cast", [name], [values], to=kind))
        if where.count is not None:
            numbers = helper.make_tensor(shape, onnx.TensorProto.INT64, [2], [-1, where.count])
            proto.graph.initializer.append(numbers)
            proto.graph.node.append(helper.make_node("Reshape", [values, shape], [rows]))
            values = rows
        _reduce(proto, values, kept, axes, keepdims=1)
        proto.graph.node.append(helper.make_node("Sub", [values, kept], [difference]))
        proto.graph.node.append(helper.make_node("Mul", [difference, difference], [square]))
        _reduce(proto, values, mean, axes, keepdims=0)
        _reduce(proto, square, variance, axes, keepdims=0)
        proto.graph.node.append(helper.make_node("Size", [values], [size]))
        proto.graph.output.extend(onnx.ValueInfoProto(name=one) for one in watches([name]))
    return proto


def _reduce(
    proto: onnx.ModelProto, name: str, output: str, axes: Sequence[int], *, keepdims: int
) -> None:
    node = helper.make_node("ReduceMean", [name], [output], keepdims=keepdims)
    if opset(proto) >= 18:
        node.input.append(f"{output}_axes")
        proto.graph.initializer.append(
            helper.make_tensor(node.input[1], onnx.TensorProto.INT64, [len(axes)], axes)
        )
    else:
        node.attribute.append(helper.make_attribute("axes", axes))
    proto.graph.node.append(node)
