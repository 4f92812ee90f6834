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

from onnx_relief.graph.channels.cut import Left, set_attribute
from onnx_relief.graph.channels.ids import Ids, varying
from onnx_relief.graph.channels.layers import starts
from onnx_relief.graph.channels.origins import origins
from onnx_relief.graph.channels.sizes import retarget
from onnx_relief.graph.channels.trace import Fix, NotFollowedError, Read, Rule, Trace
from onnx_relief.graph.walk import attributes

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
    for name in inputs[5:7]:
        _state(trace, name, made)
    for name in node.output:
        if name:
            rank = len(trace.shape(name))
            trace.set(name, trace.along(rank, rank - 1, made))
    # What the units read of each other: the recurrent weights.
    trace.reads.append(Read(next(name for name in node.output if name), made, trace.index))
    trace.fixes.append(Fix(trace.index, partial(_resize, made=made)))


def _state(trace: Trace, name: str, made: Ids) -> None:
    """Let an initial state follow: a constant, channels, or one number in a shape that is told."""
    if not name:
        return
    maker = trace.scope.producers.get(name)
    if maker is not None and maker.op_type == "ConstantOfShape":
        _filled(trace, maker, made)
    elif trace.is_constant(name):
        trace.constant(name, {2: made})
    elif trace.carries(name) and varying(trace.of(name)) == (2,):
        trace.pool.tie(trace.of(name).reshape(-1), made)
    else:
        trace.pool.keep(made, f"they start from {name!r}, which stays")


def _filled(trace: Trace, maker: onnx.NodeProto, made: Ids) -> None:
    """Let the shape of a state that only this node reads follow."""
    name, shape = maker.output[0], maker.input[0]
    here = trace.scope.graph.node[trace.index]
    if any(use.node is not here for use in trace.scope.uses.get(name, ())):
        trace.pool.keep(made, f"they start from {name!r}, which others start from, too")
        return
    if name not in trace.ids:
        trace.set(name, trace.along(3, 2, made))
        place = trace.node_index(maker)
        if not trace.is_constant(shape):
            source = origins(trace, shape)[2]
            if source is None:
                trace.pool.keep(made, f"they start from {name!r}, whose size is computed")
                return
            trace.claims.append((source, made, place))
        trace.fixes.append(Fix(place, partial(retarget, at=0, places={2: 2})))


def _resize(node: onnx.NodeProto, left: Left, *, made: Ids) -> None:
    kept = int(left.stays(made).sum())
    if kept != made.size:
        set_attribute(node, "hidden_size", kept)


RULES: dict[str, Rule] = dict.fromkeys(GATES, recurrent)
