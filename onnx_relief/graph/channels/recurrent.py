"""LSTM, GRU and RNN: a hidden unit is a row of every gate, and a column of what reads it.

Source: the ONNX operator specifications. W (directions, gates x hidden, inputs), R (directions,
gates x hidden, hidden), B (directions, 2 x gates x hidden), P (directions, 3 x hidden), Y (steps,
directions, batch, hidden), Y_h and Y_c (directions, batch, hidden).

Both directions have the same number of units, so the units at the same place are one channel.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_relief.graph.channels.cut import Left, set_attribute
from onnx_relief.graph.channels.ids import Ids, varying
from onnx_relief.graph.channels.layers import starts
from onnx_relief.graph.channels.records import Fix, Read
from onnx_relief.graph.channels.trace import NotFollowedError, Rule, Trace
from onnx_relief.graph.nodes import STANDARD, attributes

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@starts
def recurrent(trace: Trace, node: onnx.NodeProto) -> None:
    """LSTM, GRU, RNN: all gates of a unit go with it, in both directions."""
    inputs = [*node.input, *[""] * (8 - len(node.input))]
    x, weights, biases, peepholes = inputs[0], inputs[1:3], inputs[3], inputs[7]
    settings, gates = attributes(node), GATES[node.op_type]
    if any(name and not trace.is_constant(name) for name in (*weights, biases, peepholes)):
        raise NotFollowedError(f"{node.op_type} has a weight that is computed")
    if trace.is_constant(x) or trace.carries(inputs[4]) or len(trace.shape(x)) != 3:
        raise NotFollowedError(f"{node.op_type} reads them in another way")
    if settings.get("layout", 0):
        raise NotFollowedError(f"{node.op_type} has the batch first")
    hidden = trace.shape(weights[1])[2]
    read = trace.channel_axis(x, 2, node.op_type)
    made = trace.pool.fresh(hidden)
    trace.reads.append(Read(x, read, trace.index))
    every = np.tile(made, gates)
    trace.constant(weights[0], {1: every, 2: read})
    trace.constant(weights[1], {1: every, 2: made})
    if biases:
        trace.constant(biases, {1: np.tile(made, 2 * gates)})
    if peepholes:
        trace.constant(peepholes, {1: np.tile(made, 3)})
    for at in (5, 6):
        _state(trace, at, inputs[at], made)
    for name in node.output:
        if name:
            rank = len(trace.shape(name))
            trace.set(name, trace.along(rank, rank - 1, made))
    # What the units read of each other: the recurrent weights.
    trace.reads.append(Read(next(name for name in node.output if name), made, trace.index))
    trace.fixes.append(Fix(trace.index, partial(_resize, made=made)))


def _state(trace: Trace, at: int, name: str, made: Ids) -> None:
    """Let an initial state follow: a constant, channels, or zeros, which need not be said."""
    if not name:
        return
    if is_zero(trace, name):
        trace.fixes.append(Fix(trace.index, partial(_leave_out, at=at, made=made)))
    elif trace.is_constant(name):
        trace.constant(name, {2: made})
    elif trace.carries(name) and varying(trace.of(name)) == (2,):
        trace.pool.tie(trace.of(name).reshape(-1), made)
    else:
        trace.pool.keep(made, f"they start from {name!r}, which stays")


def is_zero(trace: Trace, name: str) -> bool:
    """Whether a tensor is zeros by ConstantOfShape, or one that is only moved and repeated.

    Or several such that are joined: Keras gives each direction zeros of its own.
    """
    while (maker := trace.whole.producers.get(name)) is not None and maker.domain in STANDARD:
        if maker.op_type == "Concat":
            return all(is_zero(trace, part) for part in maker.input)
        if maker.op_type == "ConstantOfShape":
            value = attributes(maker).get("value")
            return value is None or not numpy_helper.to_array(value).any()
        if maker.op_type not in _MOVES:
            break
        name = maker.input[0]
    value = trace.values(name) if trace.is_constant(name) else None
    return value is not None and value.size == 1 and not value.any()


_MOVES = ("Slice", "Expand", "Identity", "Cast", "Unsqueeze", "Squeeze", "Reshape", "Transpose")


def _leave_out(node: onnx.NodeProto, left: Left, *, at: int, made: Ids) -> None:
    """A state that is not given is zero."""
    if not left.stays(made).all():
        node.input[at] = ""


def _resize(node: onnx.NodeProto, left: Left, *, made: Ids) -> None:
    kept = int(left.stays(made).sum())
    if kept != made.size:
        set_attribute(node, "hidden_size", kept)


RULES: dict[str, Rule] = dict.fromkeys(GATES, recurrent)
