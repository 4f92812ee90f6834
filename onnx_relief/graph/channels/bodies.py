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

from onnx_relief.graph.channels.ids import varying
from onnx_relief.graph.channels.trace import NotFollowedError, Rule, Trace
from onnx_relief.graph.nodes import attributes


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
