"""Build the throw-away graph that emits statistics of layer inputs and nothing else.

onnx-graphsurgeon edits a copy; the user's document is never touched. Statistics from inside the
bodies of If, Loop and Scan are passed outwards, level by level, as further rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnx_relief.errors import UnsupportedError
from onnx_relief.graph.emit import emit
from onnx_relief.graph.emitter import fresh_name
from onnx_relief.graph.layers import Survey
from onnx_relief.graph.light import names_read
from onnx_relief.graph.probes import Probe, ProbeKind
from onnx_relief.graph.sites import Site
from onnx_relief.graph.surgeon import from_surgeon, to_surgeon
from onnx_relief.graph.walk import Place

_BRANCHES_DIFFER = 11
"""The opset from which the branches of an If may give tensors of different shapes."""


@dataclass(frozen=True, eq=False)
class Instrumented:
    """A runnable graph and the names of its outputs.

    Attributes:
        proto: The graph; external data still lies in the document's folder.
        weights: The large initializers that it names and does not hold.
        outputs: Per probe the names of its rows of statistics and of sizes.
        dumps: Per layer the name of its raw input, where that was asked for.
    """

    proto: onnx.ModelProto
    weights: Mapping[str, NDArray[Any]]
    outputs: Mapping[Probe, tuple[str, str]]
    dumps: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class _Place:
    """A graph in gs form, and the node whose body it is."""

    graph: gs.Graph
    parent: _Place | None
    owner: gs.Node | None
    attribute: str


def instrument(
    survey: Survey,
    wanted: Mapping[str, Sequence[Probe]],
    kernels: Mapping[str, NDArray[np.floating]],
    dump: Sequence[str] = (),
) -> Instrumented:
    """Return a copy of the model that emits the probes of the layers in `wanted`.

    Args:
        survey: The model and its layers.
        wanted: Probes by layer name.
        kernels: KERNELS probes: absolute kernels by first output of the layer's node, shape
            (channels, units per channel, *kernel).
        dump: Layers of the main graph whose raw inputs are emitted as well.

    Raises:
        UnsupportedError: A probe sits in a body that cannot pass statistics outwards.
    """
    graph, weights = to_surgeon(survey)
    places = dict(_places(graph))
    ranks = _ranks(survey, wanted)
    graph.outputs = []
    # An input that has a default is not fed; as an input it would keep the runtime from folding it.
    defaults = {tensor.name for tensor in survey.model.proto.graph.initializer}
    graph.inputs = [tensor for tensor in graph.inputs if tensor.name not in defaults]
    outputs: dict[Probe, tuple[str, str]] = {}
    # ONNX Runtime starts from the last node that nothing reads. The first layers' statistics go
    # last, so that they are taken before the tensors that they read would have to be kept.
    for name, probes in reversed(list(wanted.items())):
        site = survey.by_name[name]
        for probe in probes:
            if probe in outputs:
                continue
            place = places[probe.path]
            node = _node_of(place.graph, site)
            rank = ranks.get((probe.path, probe.tensor))
            bank = kernels.get(probe.node) if probe.kind is ProbeKind.KERNELS else None
            rows = emit(probe, place.graph, node, survey.model.opset, bank, rank)
            lifted = [_lift(row, place) for row in rows]
            graph.outputs += lifted
            outputs[probe] = (lifted[0].name, lifted[1].name)
    dumps = _emit_dumps(graph, [survey.by_name[name] for name in dump])
    proto = from_surgeon(graph, survey.model.proto)
    read = names_read(proto.graph)
    weights = {name: array for name, array in weights.items() if name in read}
    return Instrumented(proto, weights, outputs, dumps)


def _places(graph: gs.Graph) -> list[tuple[str, _Place]]:
    """Return every graph by its path, spelt as `onnx_relief.graph.walk` spells it."""
    found: list[tuple[str, _Place]] = []
    waiting = [("", _Place(graph, None, None, ""))]
    while waiting:
        path, place = waiting.pop()
        found.append((path, place))
        for node in place.graph.nodes:
            for attribute, body in node.attrs.items():
                if isinstance(body, gs.Graph):
                    first = next((out.name for out in node.outputs if out.name), node.name)
                    step = f"{first}.{attribute}"
                    inner = _Place(body, place, node, attribute)
                    waiting.append((f"{path}/{step}" if path else step, inner))
    return found


def _node_of(graph: gs.Graph, site: Site) -> gs.Node:
    wanted = next(name for name in site.node.output if name)
    return next(n for n in graph.nodes if any(out.name == wanted for out in n.outputs))


def _ranks(survey: Survey, wanted: Mapping[str, Sequence[Probe]]) -> Mapping[Place, int]:
    """Infer the ranks that reductions over an axis counted from the end need, if any do."""
    needed = [
        probe
        for probes in wanted.values()
        for probe in probes
        if probe.batch or (probe.axis == -2 and not probe.matrix)
    ]
    return survey.ranks if needed else {}


def _lift(row: gs.Variable, place: _Place) -> gs.Variable:
    """Pass rows out of every body that they are computed in and return the main graph's tensor.

    On the way they are flat: branches and iterations then agree in rank, and join end to end.
    """
    while place.parent is not None and place.owner is not None:
        pass_out = _PASS_OUT.get(place.owner.op)
        if pass_out is None:
            raise UnsupportedError(f"statistics cannot leave the body of a {place.owner.op}")
        flat = gs.Variable(f"{row.name}|", dtype=row.dtype)
        whole = gs.Constant(f"{row.name}whole", np.array([-1], dtype=np.int64))
        place.graph.nodes.append(gs.Node("Reshape", flat.name, {}, [row, whole], [flat]))
        row = pass_out(flat, gs.Variable(f"{row.name}^", dtype=row.dtype), place)
        place = place.parent
    return row


def _out_of_if(row: gs.Variable, out: gs.Variable, place: _Place) -> gs.Variable:
    assert place.owner is not None
    for attribute, body in place.owner.attrs.items():
        if not isinstance(body, gs.Graph):
            continue
        given = row
        if attribute != place.attribute:
            # The branch that does not compute the rows has none of them.
            given = _no_rows(body, row, f"{row.name}~")
        if body.opset < _BRANCHES_DIFFER:
            given = _of_any_length(body, given, place.owner.inputs[0])
        body.outputs.append(given)
    place.owner.outputs.append(out)
    return out


def _no_rows(graph: gs.Graph, like: gs.Variable, name: str) -> gs.Variable:
    empty = gs.Variable(name, dtype=like.dtype)
    value = gs.Constant(f"{name}value", np.zeros((0,), dtype=like.dtype))
    graph.nodes.append(gs.Node("Identity", name, {}, [value], [empty]))
    return empty


def _of_any_length(graph: gs.Graph, rows: gs.Variable, condition: gs.Variable) -> gs.Variable:
    """Return rows whose number nobody can tell from the graph: -1 is computed from a condition."""
    name = rows.name
    number, zero, length = (gs.Variable(f"{name}{mark}", np.int64) for mark in "?0-")
    nothing = gs.Constant(f"{name}nothing", np.array([0], np.int64))
    all_of_them = gs.Constant(f"{name}all", np.array([-1], np.int64))
    found = gs.Variable(f"{name}!", dtype=rows.dtype)
    graph.nodes += [
        gs.Node("Cast", number.name, {"to": onnx.TensorProto.INT64}, [condition], [number]),
        gs.Node("Mul", zero.name, {}, [number, nothing], [zero]),
        gs.Node("Add", length.name, {}, [zero, all_of_them], [length]),
        gs.Node("Reshape", found.name, {}, [rows, length], [found]),
    ]
    return found


def _out_of_scan(row: gs.Variable, out: gs.Variable, place: _Place) -> gs.Variable:
    owner = place.owner
    assert owner is not None
    owner.attrs["body"].outputs.append(row)
    for setting in ("scan_output_axes", "scan_output_directions"):
        if setting in owner.attrs:
            owner.attrs[setting] = [*owner.attrs[setting], 0]
    owner.outputs.append(out)
    return out


def _out_of_loop(row: gs.Variable, out: gs.Variable, place: _Place) -> gs.Variable:
    """Carry the rows of all iterations in one tensor: Loop stacks only equal shapes."""
    owner = place.owner
    assert owner is not None
    body: gs.Graph = owner.attrs["body"]
    carried = len(body.inputs) - 2
    so_far = gs.Variable(f"{row.name}<", dtype=row.dtype)
    joined = gs.Variable(f"{row.name}>", dtype=row.dtype)
    body.nodes.append(gs.Node("Concat", joined.name, {"axis": 0}, [so_far, row], [joined]))
    body.inputs.append(so_far)
    body.outputs.insert(1 + carried, joined)
    owner.inputs.append(gs.Constant(f"{row.name}none", np.zeros((0,), dtype=row.dtype)))
    owner.outputs.insert(carried, out)
    return out


_PASS_OUT = {"If": _out_of_if, "Loop": _out_of_loop, "Scan": _out_of_scan}


def _emit_dumps(graph: gs.Graph, sites: Sequence[Site]) -> dict[str, str]:
    """Emit the raw inputs of `sites` through Identity, since a graph input cannot be an output."""
    dumps: dict[str, str] = {}
    copies: dict[str, gs.Variable] = {}
    for site in sites:
        if site.scope.path:
            continue
        if site.data not in copies:
            source = graph.tensors()[site.data]
            copy = gs.Variable(fresh_name("dump"), dtype=source.dtype)
            graph.nodes.append(gs.Node("Identity", copy.name, {}, [source], [copy]))
            graph.outputs.append(copy)
            copies[site.data] = copy
        dumps[site.layer.name] = copies[site.data].name
    return dumps
