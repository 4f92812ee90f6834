"""Layers end the channels that they read, and start new ones.

Source: the ONNX operator specifications. Weights: Conv (out, in / groups, ...), ConvTranspose
(in, out / groups, ...), Gemm (in, out) or transposed, MatMul (in, out).
"""

from __future__ import annotations

import numpy as np
import onnx

from onnx_relief.graph.channels.cut import Left, set_attribute
from onnx_relief.graph.channels.ids import Ids, varying
from onnx_relief.graph.channels.records import Fix, Read
from onnx_relief.graph.channels.trace import NotFollowedError, Rule, Trace
from onnx_relief.graph.nodes import attributes


def starts(rule: Rule) -> Rule:
    """Mark a rule that makes new channels even where none come in."""
    rule.starts = True  # type: ignore[attr-defined]
    return rule


@starts
def conv(trace: Trace, node: onnx.NodeProto) -> None:
    """Conv: channels end, new ones start; groups get narrower, depthwise ones go as a whole."""
    _need_constants(trace, node, 1)
    x, weight, out = node.input[0], node.input[1], node.output[0]
    groups = int(attributes(node).get("group", 1))
    channels, units = trace.shape(x)[1], trace.shape(weight)[0]
    read = trace.channel_axis(x, 1, "Conv")
    trace.reads.append(Read(x, read, trace.index))
    made = trace.pool.fresh(units)
    per_group = channels // groups
    if groups > 1 and per_group == 1:
        trace.pool.tie(made.reshape(groups, -1), read.reshape(groups, 1))
        axes = {0: made}
        trace.fixes.append(Fix(trace.index, _set_groups))
    else:
        made, read = _each_group(trace, made, groups), _each_group(trace, read, groups)
        axes = {0: made, 1: read.reshape(groups, per_group)[0]}
    trace.constant(weight, axes)
    _bias(trace, node, made)
    trace.set(out, trace.along(len(trace.shape(out)), 1, made))


@starts
def conv_transpose(trace: Trace, node: onnx.NodeProto) -> None:
    """ConvTranspose: channels end, new ones start; groups get narrower, depthwise ones go."""
    _need_constants(trace, node, 1)
    x, weight, out = node.input[0], node.input[1], node.output[0]
    groups = int(attributes(node).get("group", 1))
    read = trace.channel_axis(x, 1, "ConvTranspose")
    trace.reads.append(Read(x, read, trace.index))
    made = trace.pool.fresh(trace.shape(weight)[1] * groups)
    if groups > 1 and read.size == groups:
        trace.pool.tie(made.reshape(groups, -1), read.reshape(groups, 1))
        axes = {0: read}
        trace.fixes.append(Fix(trace.index, _set_groups))
    else:
        made, read = _each_group(trace, made, groups), _each_group(trace, read, groups)
        axes = {0: read, 1: made.reshape(groups, -1)[0]}
    trace.constant(weight, axes)
    _bias(trace, node, made)
    trace.set(out, trace.along(len(trace.shape(out)), 1, made))


@starts
def gemm(trace: Trace, node: onnx.NodeProto) -> None:
    """Gemm: channels end, new ones start, if the second input is constant."""
    _need_constants(trace, node, 1)
    settings = attributes(node)
    if settings.get("transA", 0):
        raise NotFollowedError("Gemm reads its input transposed")
    transposed = bool(settings.get("transB", 0))
    read = trace.channel_axis(node.input[0], 1, "Gemm")
    trace.reads.append(Read(node.input[0], read, trace.index))
    made = trace.pool.fresh(trace.shape(node.output[0])[1])
    trace.constant(node.input[1], {int(transposed): read, 1 - int(transposed): made})
    _bias(trace, node, made)
    trace.set(node.output[0], made.reshape(1, -1))


@starts
def matmul(trace: Trace, node: onnx.NodeProto) -> None:
    """MatMul: with a constant matrix as Gemm; of two tensors, what is summed over is tied."""
    first, second = node.input
    if trace.is_constant(second) and not trace.is_constant(first):
        linear(trace, node)
    elif not trace.is_constant(first) and not trace.is_constant(second):
        _contract(trace, node)
    else:
        raise NotFollowedError("MatMul has its weight on the left")


def linear(trace: Trace, node: onnx.NodeProto, *, transposed: bool = False) -> None:
    """Follow a product with a constant matrix, (in, out) or transposed; other axes pass."""
    x, weight = node.input
    rank, shape = len(trace.shape(node.output[0])), trace.shape(weight)
    if len(shape) != 2:
        raise NotFollowedError("MatMul has a batched or flat weight")
    moving = [axis for axis in varying(trace.of(x)) if axis != len(trace.shape(x)) - 1]
    if moving:  # tokens that are mixed elsewhere pass; what is read here stays
        if len(varying(trace.of(x))) > 1:
            raise NotFollowedError("MatMul reads channels along several axes")
        trace.set(node.output[0], trace.of(x))
        return
    read = trace.channel_axis(x, -1, "MatMul")
    trace.reads.append(Read(x, read, trace.index))
    made = trace.pool.fresh(shape[0 if transposed else 1])
    trace.constant(weight, {int(transposed): read, 1 - int(transposed): made})
    trace.set(node.output[0], trace.along(rank, rank - 1, made))


def _contract(trace: Trace, node: onnx.NodeProto) -> None:
    """Two tensors: what is summed over is tied, batch axes are tied and pass, other axes pass.

    With ids (..., rows, summed) and (..., summed, columns), each varying along one axis at most.
    """
    first, second = (_with_rank(trace, name, node.output[0]) for name in node.input)
    rank = first.ndim
    if len(varying(first)) > 1 or len(varying(second)) > 1:
        raise NotFollowedError("MatMul multiplies channels along several axes")
    if first.shape[-1] > 1 or second.shape[-2] > 1:
        width = trace.shape(node.input[0])[-1]
        ids = [np.broadcast_to(one.reshape(-1), (width,)) for one in (first, second)]
        if first.shape[-1] == 1 or second.shape[-2] == 1:
            raise NotFollowedError("MatMul sums over channels of one of its inputs only")
        trace.pool.tie(ids[0], ids[1])
        ranks = (len(trace.shape(name)) for name in node.input)
        batch_axes = tuple((axis, axis) for axis in range(-min(ranks), -2))
        other = (node.input[1], ids[1])
        read = Read(node.input[0], ids[0], trace.index, other=other, beside=batch_axes)
        trace.reads.append(read)
        return
    own = [one for one, axis in ((first, rank - 2), (second, rank - 1)) if one.shape[axis] > 1]
    batch = [one for one in (first, second) if any(axis < rank - 2 for axis in varying(one))]
    if len(own) + bool(batch) > 1:
        raise NotFollowedError("MatMul makes channels along two axes")
    if batch:
        out = trace.shape(node.output[0])
        axis = varying(batch[0])[0]
        shape = [out[axis] if a == axis else 1 for a in range(rank)]
        if any(one.shape[axis] not in (1, out[axis]) for one in (first, second)):
            raise NotFollowedError("MatMul repeats heads")
        trace.pool.tie(np.broadcast_to(first, shape), np.broadcast_to(second, shape))
    found = (own or batch)[:1]
    if found:
        trace.set(node.output[0], found[0])


def _with_rank(trace: Trace, name: str, out: str) -> Ids:
    ids, rank = trace.of(name), len(trace.shape(out))
    if ids.ndim < 2:
        raise NotFollowedError("MatMul multiplies a vector")
    return ids.reshape((1,) * (rank - ids.ndim) + ids.shape)


def _need_constants(trace: Trace, node: onnx.NodeProto, index: int) -> None:
    for name in node.input[index:]:
        if name and not trace.is_constant(name):
            raise NotFollowedError(f"{node.op_type} has a weight that is computed")
    if trace.is_constant(node.input[0]):
        raise NotFollowedError(f"{node.op_type} has a constant input")


def _each_group(trace: Trace, ids: Ids, groups: int) -> Ids:
    """Tie the channels at the same place of every group, so that groups stay equally wide."""
    if groups > 1:
        by_group = ids.reshape(groups, -1)
        trace.pool.tie(by_group, by_group[:1])
    return ids


def _bias(trace: Trace, node: onnx.NodeProto, made: Ids) -> None:
    if len(node.input) > 2 and node.input[2]:
        shape = trace.shape(node.input[2])
        if shape and shape[-1] == made.size and made.size > 1:
            trace.constant(node.input[2], {len(shape) - 1: made})
        elif int(np.prod(shape, dtype=np.int64)) != 1:
            raise NotFollowedError(f"{node.op_type} has a bias of another shape")


def _set_groups(node: onnx.NodeProto, left: Left) -> None:
    set_attribute(node, "group", left.size(node.input[0], 1))


RULES: dict[str, Rule] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Gemm": gemm,
    "MatMul": matmul,
}
