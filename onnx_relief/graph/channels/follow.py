"""Walk a model node by node, bodies too, and find out which channels belong together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import numpy as np
import onnx

from onnx_relief.graph.channels.even import even_constants
from onnx_relief.graph.channels.ids import STAYS, Groups, Ids, varying
from onnx_relief.graph.channels.records import Observed
from onnx_relief.graph.channels.sizes import counts_of, freeze, settle
from onnx_relief.graph.channels.trace import GIVES_UP, NotFollowedError, Rule, Trace
from onnx_relief.graph.channels.whole import whole
from onnx_relief.graph.nodes import node_key, operator, subgraphs
from onnx_relief.graph.walk import Model

LAST_CHANNEL = "a tensor has no other channel"
"""Why a channel stays that nothing else stops."""


def trace_channels(
    model: Model,
    observed: Observed,
    rules: Mapping[str, Rule],
    *,
    outer: bool = False,
) -> tuple[Trace, Groups]:
    """Return the ids of all tensors of a model, and which belong together.

    Args:
        model: Its names are unique throughout (`onnx_relief.graph.unique_names`).
        observed: Shapes and integers of one run.
        rules: What operators do to ids.
        outer: Of the axes that Reshape splits channels in, whether the outer one is cut (heads) or
            the inner one (their width); where the one stays, it is another.
    """
    found = _turned(model, observed, rules, outer=outer, spreads=False)
    if found[0].offers and not outer:
        other = _turned(model, observed, rules, outer=outer, spreads=True)
        return other if _live(*other) > _live(*found) else found
    return found


def _turned(
    model: Model, observed: Observed, rules: Mapping[str, Rule], *, outer: bool, spreads: bool
) -> tuple[Trace, Groups]:
    """Choose the axes that Reshape splits off so that most can be cut."""
    found = _traced(model, observed, rules, {}, outer=outer, spreads=spreads)
    step = 1
    while step < max(found[0].ways.values(), default=0):
        turned, stuck = dict(found[0].splits), _stuck(*found)
        if not stuck:
            break
        for out in stuck:
            turned[out] = (turned[out] + step) % found[0].ways[out]
        other = _traced(model, observed, rules, turned, outer=outer, spreads=spreads)
        better = _live(*other) > _live(*found)
        found, step = (other, 1) if better else (found, step + 1)
    return found


def _stuck(trace: Trace, groups: Groups) -> list[str]:
    """Return where Reshape splits channels of which none can be cut; the first of each kind."""
    seen, found = np.zeros(trace.pool.size, dtype=bool), []
    for out in trace.splits:
        ids = trace.of(out)
        if not (groups.of(ids) != STAYS).any():
            if not seen[ids].any():
                found.append(out)
            seen[ids[ids != STAYS]] = True
    return found


def _live(trace: Trace, groups: Groups) -> int:
    """Return how many groups can be cut."""
    members = [groups.of(member.ids) for member in trace.members]
    return np.unique(np.concatenate([np.zeros(1, np.int64), *members])).size


def _traced(
    model: Model,
    observed: Observed,
    rules: Mapping[str, Rule],
    splits: Mapping[str, int],
    *,
    outer: bool,
    spreads: bool,
) -> tuple[Trace, Groups]:
    every = whole(model)
    trace = Trace(
        *(every, observed, model.opset),
        splits=dict(splits),
        outer=outer,
        spreads=spreads,
        even=even_constants(every),
    )
    _walk(trace, model.proto.graph, rules)
    _keep_what_is_seen(trace)
    _tie_shared(trace)
    return trace, settle(trace)


def _walk(trace: Trace, graph: onnx.GraphProto, rules: Mapping[str, Rule]) -> None:
    for node in graph.node:
        rule = rules.get(operator(node))
        for _, body in subgraphs(node):
            with suppress(*GIVES_UP):  # the rule meets the same, and says it
                getattr(rule, "enter", _ignore)(trace, node, body)
            _walk(trace, body, rules)
        trace.index = trace.node_index(node)
        _follow(trace, node, rules)


def _ignore(trace: Trace, node: onnx.NodeProto, body: onnx.GraphProto) -> None:
    """Let a body start without channels."""


def _follow(trace: Trace, node: onnx.NodeProto, rules: Mapping[str, Rule]) -> None:
    where = f"{node.op_type} {node_key(node)!r}"
    rule = rules.get(operator(node))
    given = trace.whole.given_by(trace.index)
    for name in given:
        if name in trace.counts:
            _keep_counted(trace, name, f"their number is what a body of {where} gives")
    begun = trace.whole.begun_by(trace.index)
    carried = [name for name in (*node.input, *begun, *given) if trace.carries(name)]
    counted = [name for name in node.input if name in trace.counts]
    if not carried and not counted and not getattr(rule, "starts", False):
        has_bodies = trace.index in trace.whole.bodies
        if any(name in trace.frozen for name in node.input) and not has_bodies:
            freeze(trace, node, ())
        return
    before = trace.mark()
    trace.understood.clear()
    try:
        if _count(trace, node):
            return
        if carried or not counted:
            if rule is None:
                raise NotFollowedError(f"they meet {where}, which is not followed")
            rule(trace, node)
        freeze(trace, node, [name for name in counted if name not in trace.understood])
    except GIVES_UP as reason:
        said = str(reason) if isinstance(reason, NotFollowedError) else f"{where}: {reason}"
        trace.forget_since(before)
        for name in carried:
            trace.pool.keep(trace.ids[name], said)
        for name in counted:
            _keep_counted(trace, name, said)
        for name in node.output:
            trace.ids.pop(name, None)
        if carried and rule is not None and getattr(rule, "starts", False):
            _start_anyway(trace, node, rule, carried)
        elif not carried and any(name in trace.whole.moving for name in node.input):
            trace.unmade.append(said)


def _start_anyway(trace: Trace, node: onnx.NodeProto, rule: Rule, carried: Sequence[str]) -> None:
    """Let a layer start new channels although what it reads stays."""
    before, put_aside = trace.mark(), {name: trace.ids.pop(name) for name in set(carried)}
    try:
        rule(trace, node)
    except GIVES_UP:
        trace.forget_since(before)
        for name in node.output:
            trace.ids.pop(name, None)
    trace.ids.update(put_aside)


def _count(trace: Trace, node: onnx.NodeProto) -> bool:
    """Whether a node does nothing but to say, or to move, numbers of channels."""
    if node.op_type != "Shape" and not any(name in trace.counts for name in node.input):
        return False
    counts = counts_of(trace, node)
    if counts is None:
        return False
    if any(count is not None for count in counts):
        trace.counts[node.output[0]] = counts
    return True


def _keep_counted(trace: Trace, name: str, reason: str) -> None:
    for ids in trace.counts[name]:
        if ids is not None:
            trace.pool.keep(ids, reason)


def _keep_what_is_seen(trace: Trace) -> None:
    """Keep what outputs show, and the only channel of a tensor."""
    for name, ids in trace.ids.items():
        if not varying(ids):
            trace.pool.keep(ids, LAST_CHANNEL)
        if _is_shown(trace, name):
            trace.pool.keep(ids, f"they reach the output {name!r}")
    for name in trace.counts:
        if _is_shown(trace, name):
            _keep_counted(trace, name, "an output is told their number")


def _is_shown(trace: Trace, name: str) -> bool:
    """Whether a tensor is an output of the model."""
    return any(use.node is None for use in trace.whole.uses.get(name, ()))


def _tie_shared(trace: Trace) -> None:
    """Tie what one constant is used for in several places; keep what is used in unknown ways.

    A constant of one number is one for each node that reads it.
    """
    for name, readers in _by_reader(trace.taken).items():
        _tie_uses(trace, name, readers, _inputs_that_read(trace, name))
    for name, readers in _by_reader(trace.apart).items():
        inputs = _inputs_that_read(trace, name)
        for reader, found in readers.items():
            _tie_uses(trace, name, {reader: found}, {reader: inputs[reader]})


Said = Mapping[int, Sequence[Mapping[int, Ids]]]
"""Axes of channels of a constant, for each input of a node that was said to read it, by node."""


def _by_reader(said: Iterable[tuple[str, int, Mapping[int, Ids]]]) -> dict[str, Said]:
    uses: dict[str, dict[int, list[Mapping[int, Ids]]]] = defaultdict(lambda: defaultdict(list))
    for name, reader, axes in said:
        uses[name][reader].append(axes)
    return dict(uses)


def _tie_uses(trace: Trace, name: str, said: Said, inputs: Mapping[int | None, int]) -> None:
    """Tie what is said of one constant, which so many inputs of nodes read in fact."""
    known = [axes for found in said.values() for axes in found]
    by_axis: dict[int, list[Ids]] = defaultdict(list)
    for axes in known:
        for axis, ids in axes.items():
            by_axis[axis].append(ids)
    for found in by_axis.values():
        if len(found) < len(known):
            _keep(trace, found, f"{name!r} is also read as a whole")
        elif any(ids.shape != found[0].shape for ids in found):
            _keep(trace, found, f"{name!r} is shared in another shape")
        else:
            for ids in found[1:]:
                trace.pool.tie(found[0], ids)
    if any(node is None or len(said.get(node, ())) < count for node, count in inputs.items()):
        for found in by_axis.values():
            _keep(trace, found, f"{name!r} is also read in another way")


def _keep(trace: Trace, found: list[Ids], reason: str) -> None:
    trace.pool.keep(np.concatenate([ids.reshape(-1) for ids in found]), reason)


def _inputs_that_read(trace: Trace, name: str) -> Counter[int | None]:
    """Return how many inputs of each node read a constant; outputs of the model under None."""
    return Counter(use.node for use in trace.whole.uses.get(name, ()))
