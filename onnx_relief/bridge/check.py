"""The module against ONNX Runtime on real inputs, before anybody trusts it.

Where they differ, the first node that does is named.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from onnx_relief.bridge.convert import build
from onnx_relief.bridge.module import OnnxModule
from onnx_relief.errors import ReliefError, UnsupportedError
from onnx_relief.graph.document import Document
from onnx_relief.graph.lift import Lifted, lift_constants
from onnx_relief.graph.nodes import node_key, random_operators
from onnx_relief.graph.quantised import stored_types
from onnx_relief.graph.views import Constants
from onnx_relief.graph.walk import understand
from onnx_relief.runtime import open_session
from onnx_relief.tensors import is_float

Array = NDArray[Any]

TOLERANCE: Mapping[str, float] = {
    "float64": 1e-6,
    "float32": 1e-3,
    "float16": 3e-2,
    "bfloat16": 1e-1,
    **dict.fromkeys(("int8", "uint8"), 3e-2),
}
"""Largest difference that two ways of computing a model may show, by the narrowest element type of
its output and its weights: of an element to the largest magnitude in its output. It is the room
that rounding needs after some fifty layers; a wrong operator misses it by far. Where weights are
integers, ONNX Runtime may round what they are multiplied with to integers, too (MatMulNBits)."""

_SMALLEST = 1e-3
"""Outputs that are smaller everywhere are compared as if their largest magnitude were this: what is
left of a sigmoid at -50 depends on who computes it."""

_SAME_DECISIONS = 0.98
"""Share of integers (classes, indices) that have to agree: near ties fall either way."""


def check(
    module: OnnxModule, document: Document, feed: Mapping[str, Array], *, provider: str = "auto"
) -> dict[str, float]:
    """Return how far each output of `module` lies from that of `document` in ONNX Runtime.

    Args:
        module: What `convert` made of the document, perhaps with masks held.
        document: The same model, masked in the same way.
        feed: Real inputs by name.
        provider: Execution provider of ONNX Runtime.

    Returns:
        The largest difference of an element over the largest magnitude of its output, by name.

    Raises:
        UnsupportedError: An output differs by more than `TOLERANCE`; with the first node that does.
        ModelError: ONNX Runtime cannot run the model.
    """
    expected = open_session(document, provider=provider).run(feed)
    found = _outputs(module, feed, document)
    gaps = {name: gap(expected[name], found[name]) for name in module.outputs}
    stored = _types(module, document)
    wrong = [name for name in module.outputs if not gaps[name] <= _allowed(expected[name], stored)]
    drawn = random_operators(document.proto.graph)
    if wrong and drawn:
        raise UnsupportedError(
            f"{document.name} cannot be trained: it draws random numbers ({', '.join(drawn)}), so "
            "the torch module cannot be checked; export it without them, or prune without "
            "retraining"
        )
    if wrong:
        raise UnsupportedError(
            f"{document.name} cannot be trained: output {wrong[0]!r} of the torch module differs "
            f"from ONNX Runtime by {gaps[wrong[0]]:.2g} of its size"
            f"{_first_difference(document, feed)}; prune without retraining, or report this"
        )
    return gaps


def gap(expected: object, found: object) -> float:
    """Return the largest difference of an element over the largest magnitude; inf if not alike.

    For integers and truth values it is the share that differs, over the share that may.
    """
    if not isinstance(expected, np.ndarray) or not isinstance(found, np.ndarray):
        return 0.0 if _same_structure(expected, found) else float("inf")
    if expected.shape != found.shape:
        return float("inf")
    if not is_float(expected.dtype):
        return float((expected != found).mean()) if expected.size else 0.0
    wide, other = expected.astype(np.float64), found.astype(np.float64)
    same = (wide == other) | (np.isnan(wide) & np.isnan(other))
    if same.all():
        return 0.0
    largest = float(np.abs(wide[np.isfinite(wide)]).max(initial=_SMALLEST))
    difference = float(np.abs(wide - other)[~same].max())
    return difference / largest if np.isfinite(difference) else float("inf")


def _allowed(expected: object, stored: Collection[str] = ()) -> float:
    """Return how far an output may be off, where weights are stored in the types `stored`."""
    if isinstance(expected, np.ndarray) and not is_float(expected.dtype):
        return 1 - _SAME_DECISIONS
    types = (str(getattr(expected, "dtype", "")), *stored)
    return max(TOLERANCE.get(name, 0.0) for name in types) or TOLERANCE["float32"]


def _types(module: OnnxModule, document: Document) -> set[str]:
    """Return the types that the file stores the module's tensors, and quantised weights, in."""
    constants = Constants(document)
    homes = [home for home in module.homes.values() if home in constants]
    found = {constants.shape_and_type(home)[1].name for home in homes}
    return found | stored_types(constants, understand(document.proto))


def _same_structure(expected: object, found: object) -> bool:
    """Whether sequences and maps hold the same; ONNX Runtime gives lists, torch tuples or lists."""
    if isinstance(expected, list | tuple) and isinstance(found, list | tuple):
        return len(expected) == len(found)
    return isinstance(expected, np.ndarray) == isinstance(found, np.ndarray)


def _outputs(module: OnnxModule, feed: Mapping[str, Array], document: Document) -> dict[str, Any]:
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            found = module.run(tensors(feed))
    except ReliefError:
        raise
    except Exception as error:  # whatever an operator of torch may raise
        raise UnsupportedError(
            f"{document.name} cannot be trained: the torch module cannot run "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
            f"{_first_difference(document, feed)}; prune without retraining"
        ) from error
    finally:
        module.train(training)
    return {name: as_array(value) for name, value in found.items()}


def tensors(feed: Mapping[str, Array]) -> dict[str, torch.Tensor]:
    """Return arrays as torch tensors; bfloat16 comes as fp32."""
    return {
        name: torch.from_numpy(
            np.ascontiguousarray(a.astype(np.float32) if a.dtype.name == "bfloat16" else a)
        ).reshape(a.shape)
        for name, a in feed.items()
    }


def as_array(value: object) -> object:
    """Return a tensor as an array; everything else as it is."""
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value


class _Watched(torch.fx.Interpreter):
    """Runs a module and shows every value that belongs to a tensor of the ONNX graph."""

    def __init__(self, net: torch.fx.GraphModule, names: Mapping[torch.fx.Node, str]) -> None:
        super().__init__(net)
        self.extra_traceback = False
        self.values: dict[str, Any] = {}
        self._names = names

    def run_node(self, n: torch.fx.Node) -> Any:  # noqa: ANN401 - as declared by torch
        """Run one node and keep its value."""
        value = super().run_node(n)
        if n in self._names:
            self.values[self._names[n]] = as_array(value)
        return value


def _first_difference(document: Document, feed: Mapping[str, Array]) -> str:
    """Return in words which node is the first whose output differs, or nothing if none is found."""
    lifted = lift_constants(document)
    try:
        builder, net = build(lifted, document.name)
        expected = _intermediates(lifted, feed)
    except ReliefError:
        return ""
    watched = _Watched(net.eval(), {node: name for name, node in builder.env.items()})
    broken = ""
    try:
        with torch.no_grad():
            values = tensors(_widened(feed))
            watched.run(*(values[name] for name in builder.input_names))
    except Exception as error:  # the values up to there are what we want
        broken = f" ({type(error).__name__}: {(str(error).splitlines() or [''])[0]})"
    for node in lifted.proto.graph.node:
        for name in filter(None, node.output):
            if name not in expected:
                continue
            if name not in watched.values:
                if broken:
                    return f"; {node.op_type} {node_key(node)!r} cannot be run{broken}"
                continue
            if not gap(expected[name], watched.values[name]) <= _allowed(expected[name]):
                return f"; the first node that differs is {node.op_type} {node_key(node)!r}"
    return broken


def _widened(feed: Mapping[str, Array]) -> dict[str, Array]:
    narrow = ("float16", "bfloat16")
    return {
        name: array.astype(np.float32) if array.dtype.name in narrow else array
        for name, array in feed.items()
    }


def _intermediates(lifted: Lifted, feed: Mapping[str, Array]) -> dict[str, Any]:
    """Return every tensor between the nodes of the main graph, as ONNX Runtime computes it."""
    proto = onnx.ModelProto()
    proto.CopyFrom(lifted.proto)
    given = {value.name for value in proto.graph.output}
    names = [name for node in proto.graph.node for name in node.output if name]
    proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in given)
    found: dict[str, Any] = {}
    session = open_session(proto, provider="cpu")
    for chunk in _chunks(names, 64):
        found |= session.run(_widened(feed), chunk)
    return found


def _chunks(names: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(names), size):
        yield names[start : start + size]
