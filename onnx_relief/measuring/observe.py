"""Run a model once to learn the shape of every tensor, and the integers that shapes are made of.

The body of an If, Loop or Scan is run on its own, on what the graph around it makes: so branches
that are not taken are seen, too. Of a loop it is the first step that is seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnx_relief.errors import ModelError
from onnx_relief.graph.channels.records import Observed
from onnx_relief.graph.layers import Survey
from onnx_relief.graph.light import names_read, node_reads
from onnx_relief.graph.nodes import attributes, subgraphs
from onnx_relief.graph.walk import Scope
from onnx_relief.runtime import open_session

Array = NDArray[Any]
_AT_ONCE = 48
"""Tensors that are held in memory at a time."""
_SMALL = 1 << 16
_SCALES = 16
"""Whole numbers up to so many may be places or sizes, and others up to so many scales."""


def observe(survey: Survey, feed: Mapping[str, Array], *, provider: str = "cpu") -> Observed:
    """Return what one run of a model shows, in bodies too.

    Args:
        survey: The model; its names are unique throughout.
        feed: Inputs by name.
        provider: Execution provider of ONNX Runtime.

    Raises:
        ModelError: The model cannot be run.
    """
    seen = _Seen(survey, provider)
    main = survey.model.scopes[0]
    for scope in survey.model.scopes:
        for name in (*scope.initializers, *scope.sparse, *_constant_nodes(scope)):
            view = survey.constants.resolve(scope, name)
            if not isinstance(view, str):
                seen.shapes[name] = view.shape
                if _is_told(view.dtype, view.size):
                    seen.values[name] = np.asarray(survey.constants.values(view))
    for name, array in feed.items():
        seen.note(name, array, frozenset())
    _observe(seen, main, survey.document.proto, feed, frozenset())
    return Observed(seen.shapes, seen.values)


@dataclass(eq=False)
class _Seen:
    """What is known so far.

    Attributes:
        survey: The model.
        provider: Execution provider of ONNX Runtime.
        shapes: Of every tensor.
        values: Of those that are told.
        arrays: What bodies read from around them.
    """

    survey: Survey
    provider: str
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    values: dict[str, Array] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)

    def note(self, name: str, value: object, wanted: frozenset[str] | set[str]) -> None:
        """Keep of a tensor what is asked of it later."""
        if isinstance(value, np.ndarray):
            self.shapes[name] = value.shape
            if name in wanted:
                self.arrays[name] = value


def _observe(
    seen: _Seen,
    scope: Scope,
    proto: onnx.ModelProto,
    feed: Mapping[str, Array],
    stepping: frozenset[str],
) -> None:
    """Run one graph as a model of its own, then the bodies in it.

    Args:
        seen: Is added to.
        scope: The graph.
        proto: It as a model.
        feed: What that model takes.
        stepping: Tensors whose numbers change from step to step of a loop around.
    """
    names = [name for name in scope.producers if name not in seen.shapes]
    inner = [node for node in scope.graph.node if any(True for _ in subgraphs(node))]
    wanted = {n for node in inner for _, body in subgraphs(node) for n in names_read(body)}
    wanted.update(name for node in inner for name in node.input)
    seen.arrays.update({name: array for name, array in feed.items() if name in wanted})
    for start in range(0, len(names), _AT_ONCE):
        chunk = names[start : start + _AT_ONCE]
        run = _run if scope.parent is None else _run_what_runs
        for name, value in run(seen, proto, feed, chunk).items():
            seen.note(name, value, wanted)
            is_array = isinstance(value, np.ndarray)
            if is_array and name not in stepping and _is_told(value.dtype, value.size):
                seen.values[name] = value
    own = [scope for scope in seen.survey.model.scopes if scope.parent is not None]
    for body in [one for one in own if one.parent is scope]:
        _observe_body(seen, body, stepping)


def _observe_body(seen: _Seen, scope: Scope, stepping: frozenset[str]) -> None:
    """Run the body of a node on what the graph around it has made, if that is possible."""
    assert scope.owner is not None
    model = seen.survey.document.proto
    proto = onnx.ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import, graph=scope.graph
    )
    feed = {name: array for name, array in _first_step(seen, scope)}
    del proto.graph.input[:]
    for name in sorted(names_read(scope.graph)):
        definer = scope.definer(name) if name else None
        if definer is None or definer is scope or definer not in _around(scope):
            continue
        constant = None if definer.changes(name) else _constant(seen, definer, name)
        if name in definer.initializers:
            proto.graph.initializer.add().CopyFrom(definer.initializers[name])
        elif constant is not None:
            proto.graph.initializer.append(numpy_helper.from_array(constant, name))
        elif name in seen.arrays:
            feed[name] = seen.arrays[name]
    for name, array in feed.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        proto.graph.input.append(helper.make_tensor_value_info(name, kind, [None] * array.ndim))
        seen.shapes[name] = array.shape
    if scope.owner.op_type != "If":
        stepping = frozenset(_changing(scope, stepping))
    _observe(seen, scope, proto, feed, stepping)


def _around(scope: Scope) -> list[Scope]:
    """Return the graphs around a body."""
    found = []
    while scope.parent is not None:
        scope = scope.parent
        found.append(scope)
    return found


def _first_step(seen: _Seen, scope: Scope) -> Iterator[tuple[str, Array]]:
    """Yield what a body is given at the first step of its loop, by name."""
    node, places = scope.owner, [value.name for value in scope.graph.input]
    assert node is not None
    assert scope.parent is not None
    if node.op_type == "Loop":
        yield places[0], np.array(0)
        yield places[1], np.array(True)
        sources, scanned, places = list(node.input[2:]), 0, places[2:]
    elif node.op_type == "Scan":
        sources, scanned = list(node.input), int(attributes(node)["num_scan_inputs"])
    else:
        return
    axes = attributes(node).get("scan_input_axes") or [0] * scanned
    for at, (place, name) in enumerate(zip(places, sources, strict=True)):
        array = seen.arrays.get(name)
        if array is None:
            array = _constant(seen, scope.parent, name)
        if array is not None:
            slice_of = at - (len(sources) - scanned)
            yield place, array if slice_of < 0 else np.take(array, 0, axis=axes[slice_of])


def _changing(scope: Scope, around: frozenset[str]) -> set[str]:
    """Return the tensors of the body of a loop, and of those in it, that change by step."""
    changing = {*around, *(value.name for value in scope.graph.input)}
    waiting = [scope.graph]
    for graph in waiting:
        for node in graph.node:
            inner = [body for _, body in subgraphs(node)]
            waiting += inner
            reads = {*node.input, *(name for body in inner for name in names_read(body))}
            if node.op_type != "Shape" and reads & changing:
                changing.update(node.output)
    return changing


def _constant(seen: _Seen, scope: Scope, name: str) -> Array | None:
    return seen.survey.constants.array(scope, name)


def _is_told(dtype: np.dtype[Any], size: int) -> bool:
    return size <= (_SMALL if dtype.kind in "iu" else _SCALES)


def _constant_nodes(scope: Scope) -> list[str]:
    return [name for name, node in scope.producers.items() if node.op_type == "Constant"]


def _run_what_runs(
    seen: _Seen, model: onnx.ModelProto, feed: Mapping[str, Array], names: list[str]
) -> dict[str, Any]:
    """Return those of some tensors that can be computed.

    A branch that is not taken may not fit this input; what is not seen of it stays whole.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model)
    _keep_what_leads_to(proto.graph, names)
    try:
        return _run(seen, proto, feed, names)
    except ModelError:
        half = len(names) // 2
        if not half:
            return {}
        parts = [_run_what_runs(seen, model, feed, part) for part in (names[:half], names[half:])]
        return {**parts[0], **parts[1]}


def _keep_what_leads_to(graph: onnx.GraphProto, names: list[str]) -> None:
    needed, kept = set(names), []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node_reads(node))
    kept.reverse()
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.node[:], graph.output[:]
    graph.node.extend(nodes)


def _run(
    seen: _Seen, model: onnx.ModelProto, feed: Mapping[str, Array], names: list[str]
) -> dict[str, Any]:
    proto = onnx.ModelProto()
    proto.CopyFrom(model)
    given = {value.name for value in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in given)
    folder = seen.survey.document.folder
    session = open_session(proto, provider=seen.provider, folder=folder)
    return session.run(feed, names)
