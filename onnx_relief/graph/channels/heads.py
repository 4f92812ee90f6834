"""Attention as one operator: of heads and their widths one is cut, the other is tied.

Queries have heads x width channels, keys and values as many or, grouped, fewer heads. What is cut
of queries is cut of keys; what is cut of values is cut of the output.

Source: ONNX, Attention (opset 23); ONNX Runtime, com.microsoft Attention and MultiHeadAttention.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx

from onnx_relief.graph.channels.cut import Left, set_attribute
from onnx_relief.graph.channels.ids import Ids, varying
from onnx_relief.graph.channels.layers import starts
from onnx_relief.graph.channels.records import Fix, Read
from onnx_relief.graph.channels.trace import NotFollowedError, Rule, Trace
from onnx_relief.graph.nodes import attributes


@dataclass(frozen=True, eq=False)
class _Heads:
    """Channels of queries, keys or values, by (head, width); None where they stay.

    What has no name is made inside the operator.
    """

    name: str
    ids: Ids | None
    count: int


def attention(trace: Trace, node: onnx.NodeProto) -> None:
    """Attention: whole heads, or the same widths of all heads."""
    settings = attributes(node)
    shapes = [trace.shape(name) for name in node.input[:3]]
    _refuse(trace, node, 4, "has a cache", outputs=1)
    if len(shapes[0]) == 4:
        counts = [shape[1] for shape in shapes]
    else:
        kept = int(settings["kv_num_heads"])
        counts = [int(settings["q_num_heads"]), kept, kept]
    by_head = _by_head(trace, node, [shape[-1] for shape in shapes], counts)
    if by_head and len(node.input) > 3 and node.input[3]:
        mask = trace.shape(node.input[3])
        if len(mask) > 2 and mask[-3] > 1:
            raise NotFollowedError("Attention has a mask for each head")
    parts = [
        _heads(trace, name, count, by_head)
        for name, count in zip(node.input[:3], counts, strict=True)
    ]
    _set(trace, node, _attend(trace, node, parts, by_head), by_head)
    if len(shapes[0]) == 3:
        _fix_heads(trace, parts, by_head, ("q_num_heads", "kv_num_heads", "kv_num_heads"))
    width = shapes[0][-1] // (counts[0] if len(shapes[0]) == 3 else 1)
    _fix_scale(trace, node, parts[0], width, by_head)


def multi_head_attention(trace: Trace, node: onnx.NodeProto) -> None:
    """Attention: whole heads, or the same widths of all heads."""
    shapes = [trace.shape(name) for name in node.input[:3]]
    _refuse(trace, node, 5, "has a bias of attention, or a cache", outputs=1)
    if len(shapes) < 3 or any(len(shape) != 3 for shape in shapes):
        raise NotFollowedError("MultiHeadAttention has its inputs packed")
    heads = int(attributes(node)["num_heads"])
    by_head = _by_head(trace, node, [shape[-1] for shape in shapes], [heads] * 3)
    parts = [_heads(trace, name, heads, by_head) for name in node.input[:3]]
    if len(node.input) > 3 and node.input[3]:
        if any(part.ids is None for part in parts):
            raise NotFollowedError("MultiHeadAttention has one bias for what stays and what not")
        flat = [part.ids.reshape(-1) for part in parts if part.ids is not None]
        trace.constant(node.input[3], {0: np.concatenate(flat)})
        # What is multiplied is not what comes in: it is not zero where that is.
        parts = [replace(part, name="") for part in parts]
    _set(trace, node, _attend(trace, node, parts, by_head), by_head)
    _fix_heads(trace, parts, by_head, ("num_heads",) * 3)
    _fix_scale(trace, node, parts[0], shapes[0][-1] // heads, by_head)


@starts
def packed_attention(trace: Trace, node: onnx.NodeProto) -> None:
    """Attention with its own weights: channels end, and whole heads, or widths, start."""
    settings, (x, weight, *_) = attributes(node), node.input
    _refuse(trace, node, 4, "has a cache, or a bias of attention", outputs=1)
    if settings.get("qkv_hidden_sizes") or settings.get("do_rotary", 0):
        raise NotFollowedError("Attention has widths of its own, or rotates")
    if not trace.is_constant(weight) or trace.is_constant(x):
        raise NotFollowedError("Attention has a weight that is computed")
    heads, width = int(settings["num_heads"]), trace.shape(weight)[1] // 3
    by_head = _by_head(trace, node, [width] * 3, [heads] * 3)
    made = trace.pool.fresh(3 * width)
    read = trace.channel_axis(x, 2, "Attention")
    trace.reads.append(Read(x, read, trace.index))
    trace.constant(weight, {0: read, 1: made})
    if len(node.input) > 2 and node.input[2]:
        trace.constant(node.input[2], {0: made})
    parts = [_Heads("", ids, heads) for ids in made.reshape(3, heads, -1)]
    _set(trace, node, _attend(trace, node, parts, by_head), by_head)
    _fix_heads(trace, parts, by_head, ("num_heads",) * 3)
    _fix_scale(trace, node, parts[0], width // heads, by_head)
    trace.fixes.append(Fix(trace.index, partial(_set_widths, parts=made.reshape(3, -1))))


def _set_widths(node: onnx.NodeProto, left: Left, *, parts: Ids) -> None:
    """Where values become narrower than queries and keys, or wider, that has to be said."""
    widths = left.stays(parts).sum(axis=1).tolist()
    if len(set(widths)) > 1:
        set_attribute(node, "qkv_hidden_sizes", widths)


def _refuse(trace: Trace, node: onnx.NodeProto, start: int, why: str, *, outputs: int) -> None:
    """Refuse inputs from `start` on, and outputs that anything reads."""
    more = [name for name in node.output[outputs:] if name and trace.whole.uses.get(name)]
    if more or any(node.input[start:]):
        raise NotFollowedError(f"{node.op_type} {why}")
    if any(trace.carries(name) for name in node.input[3:]):
        raise NotFollowedError(f"they are a parameter of {node.op_type}")


def _by_head(trace: Trace, node: onnx.NodeProto, widths: list[int], counts: list[int]) -> bool:
    """Whether heads are cut: as the Reshape before has chosen, or as was asked for."""
    if len(trace.shape(node.input[0])) != 4:
        if any(width % count for width, count in zip(widths, counts, strict=True)):
            raise NotFollowedError(f"{node.op_type} has heads of several widths")
        return trace.split(node.output[0], 2) == -2
    axes = {
        axis for name in node.input[:3] if trace.carries(name) for axis in varying(trace.of(name))
    }
    if axes not in ({1}, {3}):
        raise NotFollowedError("Attention has them along other axes than heads or widths")
    return axes == {1}


def _heads(trace: Trace, name: str, count: int, by_head: bool) -> _Heads:
    if not trace.carries(name):
        return _Heads(name, None, count)
    if len(trace.shape(name)) == 4:
        ids = trace.of(name).reshape(-1)
        return _Heads(name, ids.reshape(-1, 1) if by_head else ids.reshape(1, -1), count)
    return _Heads(name, trace.channel_axis(name, 2, "Attention").reshape(count, -1), count)


def _attend(trace: Trace, node: onnx.NodeProto, parts: list[_Heads], by_head: bool) -> Ids | None:
    """Tie queries, keys and values, and return the channels of the output, by (head, width)."""
    query, key, value = parts
    if (query.ids is None) != (key.ids is None):
        raise NotFollowedError(f"{node.op_type} multiplies them with what stays")
    if by_head and any(part.ids is None for part in parts):
        raise NotFollowedError(f"{node.op_type} has heads that stay")
    if query.ids is not None and key.ids is not None:
        spread = np.repeat(key.ids, query.ids.shape[0] // key.ids.shape[0], axis=0)
        trace.pool.tie(query.ids, spread)
        for ids in (query.ids, key.ids):
            trace.pool.tie(ids, ids[:, :1] if by_head else ids[:1])
        if not by_head:  # a head says what its values say
            _meet(trace, query, key, spread)
    if value.ids is None:
        return None
    trace.pool.tie(value.ids, value.ids[:, :1] if by_head else value.ids[:1])
    if by_head and key.ids is not None:
        trace.pool.tie(value.ids[:, :1], key.ids[:, :1])
    repeats = query.count // value.count if value.ids.shape[0] > 1 else 1
    return np.repeat(value.ids, repeats, axis=0)


def _meet(trace: Trace, query: _Heads, key: _Heads, spread: Ids) -> None:
    """Note that queries end where they are multiplied with keys."""
    assert query.ids is not None
    read = Read(
        query.name, query.ids.reshape(-1), trace.index, other=(key.name, spread.reshape(-1))
    )
    if query.name and key.name:  # else they are inside the node
        if len(trace.shape(query.name)) == 3:  # (samples, tokens, heads * widths)
            read = replace(read, beside=((-3, -3),), heads=(query.count, key.count))
        else:
            read = replace(read, beside=((-4, -4), (-3, -3)))
    trace.reads.append(read)


def _set(trace: Trace, node: onnx.NodeProto, ids: Ids | None, by_head: bool) -> None:
    out = node.output[0]
    if ids is None:
        return
    rank = len(trace.shape(out))
    axis = 1 if rank == 4 and by_head else rank - 1
    if rank == 3 and ids.size != trace.shape(out)[2]:
        ids = np.tile(ids, trace.shape(out)[2] // ids.size)
    trace.set(out, trace.along(rank, axis, ids.reshape(-1)))


def _fix_heads(
    trace: Trace,
    parts: list[_Heads],
    by_head: bool,
    names: tuple[str, ...],
) -> None:
    if not by_head:
        return
    for part, name in zip(parts, names, strict=True):
        if part.ids is not None:
            first = part.ids[:, 0]
            trace.fixes.append(Fix(trace.index, partial(_set_heads, name=name, first=first)))


def _set_heads(node: onnx.NodeProto, left: Left, *, name: str, first: Ids) -> None:
    stays = left.stays(first)
    if not stays.all():
        set_attribute(node, name, int(stays.sum()))


def _fix_scale(
    trace: Trace, node: onnx.NodeProto, query: _Heads, width: int, by_head: bool
) -> None:
    """Scores are divided by the root of the width, as it was; whole heads leave it alone."""
    if not by_head and query.ids is not None and not attributes(node).get("scale", 0.0):
        ids = query.ids.reshape(-1)
        trace.fixes.append(Fix(trace.index, partial(_set_scale, width=width, ids=ids)))


def _set_scale(node: onnx.NodeProto, left: Left, *, width: int, ids: Ids) -> None:
    if not left.stays(ids).all():
        set_attribute(node, "scale", float(1 / np.sqrt(width)))


RULES: dict[str, Rule] = {
    "Attention": attention,
    "com.microsoft.MultiHeadAttention": multi_head_attention,
    "com.microsoft.Attention": packed_attention,
}
