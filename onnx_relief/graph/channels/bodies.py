"""If, Loop and Scan: channels pass into their bodies and out of them.

What a body reads from around it needs no rule: a name is the same tensor inside.

Source: the ONNX operator specifications. Loop: inputs (trip count, condition, states), body inputs
(iteration, condition, states), body outputs (condition, states, stacked). Scan: inputs (states,
scanned), body inputs and outputs (states, scanned), the scanned ones without their axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from onnx_relief.graph.channels.ids import Ids, varying
from onnx_relief.graph.channels.sizes import follow_sizes
from onnx_relief.graph.channels.trace import GIVES_UP, NotFollowedError, Rule, Trace
from onnx_relief.graph.nodes import attributes, operator


def if_(trace: Trace, node: onnx.NodeProto) -> None:
    """If: what the branches give lives or dies together."""
    branches = trace.whole.bodies[trace.index]
    for out, *given in zip(node.output, *(body.output for body in branches), strict=True):
        _join(trace, out, [value.name for value in given])


def _join(trace: Trace, out: str, given: Sequence[str]) -> None:
    carried = [trace.of(name) for name in given if trace.carries(name)]
    if len(carried) == len(given) and len({ids.shape for ids in carried}) == 1:
        for ids in carried[1:]:
            trace.pool.tie(carried[0], ids)
        trace.set(out, carried[0])
        return
    for ids in carried:
        trace.pool.keep(ids, f"another branch of If gives a {out!r} that stays")


def enter_loop(trace: Trace, node: onnx.NodeProto, body: onnx.GraphProto) -> None:
    """Let the body of a Loop start with the channels of the initial states."""
    for inside, start in zip(body.input[2:], node.input[2:], strict=True):
        _begin(trace, node, inside.name, start)
        if trace.carries(start):
            trace.set(inside.name, trace.of(start))


def loop(trace: Trace, node: onnx.NodeProto) -> None:
    """Loop, Scan: states keep their channels from step to step; the others pass, step by step."""
    (body,) = trace.whole.bodies[trace.index]
    if any(trace.carries(name) for name in (*node.input[:2], body.output[0].name)):
        raise NotFollowedError("Loop takes them for a condition")
    states = len(node.input) - 2
    inside = [value.name for value in body.input[2:]]
    given = [value.name for value in body.output[1:]]
    for at in range(states):
        _carry(trace, inside[at], given[at], node.output[at])
    for name, out in zip(given[states:], node.output[states:], strict=True):
        _stack(trace, name, out, 0)


def enter_scan(trace: Trace, node: onnx.NodeProto, body: onnx.GraphProto) -> None:
    """Let the body of a Scan start with the channels of the states and of what is scanned."""
    states, axes, _ = _scan_settings(trace, node)
    for at, (inside, start) in enumerate(zip(body.input, node.input, strict=True)):
        if at < states:
            _begin(trace, node, inside.name, start)
        if not trace.carries(start):
            continue
        ids = trace.of(start)
        if at >= states:
            axis = axes[at - states] % ids.ndim
            if axis in varying(ids):
                continue  # the rule says why they stay
            ids = np.squeeze(ids, axis)
        trace.set(inside.name, ids)


def scan(trace: Trace, node: onnx.NodeProto) -> None:
    """Loop, Scan: states keep their channels from step to step; the others pass, step by step."""
    (body,) = trace.whole.bodies[trace.index]
    states, axes, out_axes = _scan_settings(trace, node)
    for name, axis in zip(node.input[states:], axes, strict=True):
        if trace.carries(name) and axis % trace.of(name).ndim in varying(trace.of(name)):
            raise NotFollowedError("Scan goes through them one by one")
    inside = [value.name for value in body.input]
    given = [value.name for value in body.output]
    for at in range(states):
        _carry(trace, inside[at], given[at], node.output[at])
    for name, out, axis in zip(given[states:], node.output[states:], out_axes, strict=True):
        _stack(trace, name, out, axis)


def _scan_settings(trace: Trace, node: onnx.NodeProto) -> tuple[int, list[int], list[int]]:
    if trace.opset < 9:
        raise NotFollowedError("Scan has a batch axis")
    settings = attributes(node)
    scanned = int(settings["num_scan_inputs"])
    states = len(node.input) - scanned
    axes = list(settings.get("scan_input_axes") or [0] * scanned)
    out_axes = list(settings.get("scan_output_axes") or [0] * (len(node.output) - states))
    return states, axes, out_axes


def _begin(trace: Trace, node: onnx.NodeProto, inside: str, start: str) -> None:
    """Offer channels to a state that begins as constants, or as one number, as cells mostly do.

    They lie along its last axis. Whether that frees more than it binds is seen in the end.
    """
    if not start or trace.carries(start):
        return
    before = trace.mark()
    try:
        found = _begun(trace, node, inside, start)
    except GIVES_UP:
        trace.forget_since(before)
        trace.ids.pop(start, None)
        return
    if found is not None:
        trace.set(inside, found)


def _begun(trace: Trace, node: onnx.NodeProto, inside: str, start: str) -> Ids | None:
    """Return channels that start with a state, if they are wanted."""
    shape, told, loop = trace.shape(start), trace.values(start), trace.node_index(node)
    is_handed = trace.whole.homes[inside].handed(inside) is not None
    is_count = told is not None and told.dtype.kind != "f"
    width = _where_width_is_told(trace, loop, start)
    if is_handed or is_count or not shape or not (trace.is_constant(start) or width):
        return None
    trace.offers.append(start)
    if not trace.spreads:
        return None
    axis = len(shape) - 1
    ids = trace.along(len(shape), axis, trace.pool.fresh(shape[axis]))
    if width is None:
        trace.index = loop
        trace.constant(start, {axis: ids.reshape(-1)})
    else:
        maker, at, place = width
        trace.index = trace.node_index(maker)
        trace.set(start, ids)
        follow_sizes(trace, maker, at, {axis: place})
    return ids


def _where_width_is_told(
    trace: Trace, loop: int, start: str
) -> tuple[onnx.NodeProto, int, int] | None:
    """Return what makes a tensor of one number for a loop alone, and where it is told the width.

    As which of its inputs, and which entry of that; None if the tensor is another one.
    """
    maker = trace.whole.producers.get(start)
    if maker is None or any(use.node != loop for use in trace.whole.uses[start]):
        return None
    if operator(maker) == "ConstantOfShape":
        return maker, 0, len(trace.shape(start)) - 1
    if operator(maker) == "Expand" and trace.shape(maker.input[0])[-1:] in ((), (1,)):
        return maker, 1, trace.shape(maker.input[1])[0] - 1
    return None


def _carry(trace: Trace, inside: str, given: str, out: str) -> None:
    """Tie a state after a step to the state before it."""
    ids, after = trace.ids.get(inside), trace.ids.get(given)
    if not trace.carries(inside):
        if trace.carries(given):
            trace.pool.keep(trace.of(given), f"the state {inside!r} starts from one that stays")
    elif ids is not None and after is not None and after.shape == ids.shape:
        trace.pool.tie(ids, after)
        trace.set(out, ids)
    else:
        for one in (ids, after):
            if one is not None:
                trace.pool.keep(one, f"the state {inside!r} does not keep its channels")


def _stack(trace: Trace, given: str, out: str, axis: int) -> None:
    """Pass what every step gives, along a new axis."""
    if trace.carries(given):
        ids = trace.of(given)
        trace.set(out, np.expand_dims(ids, axis % (ids.ndim + 1)))


loop.enter = enter_loop  # type: ignore[attr-defined]
scan.enter = enter_scan  # type: ignore[attr-defined]

RULES: dict[str, Rule] = {"If": if_, "Loop": loop, "Scan": scan}
