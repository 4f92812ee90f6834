"""Where two versions of one model can be compared on the way: the outputs of its blocks.

A block ends where the graph narrows to one live tensor: everything that layers computed before, and
that anything after still needs, is in this tensor. In a chain that is after every layer, in a
residual network after every join. Of the narrow places between one layer and the next the last one
counts, so that normalisation and activation belong to the block, but not what pads or pools after.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import onnx

from onnx_relief.graph.document import Document
from onnx_relief.graph.layers import Survey
from onnx_relief.graph.light import node_reads
from onnx_relief.graph.nodes import subgraphs

_SQUASHING = frozenset(("Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid", "Tanh"))
# Operators whose output channel k is made from channel k of each of their inputs.
_SAME_UNITS = frozenset(
    (
        *("BatchNormalization", "InstanceNormalization", "LpNormalization", "Identity", "Cast"),
        *("Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Gelu", "Clip", "HardSwish", "Mish"),
        *("ThresholdedRelu", "Sigmoid", "HardSigmoid", "Tanh", "Softplus", "Softsign", "Swish"),
        *("Erf", "Exp", "Abs", "Neg", "Sqrt", "Add", "Sub", "Mul", "Div", "Pow", "Max", "Min"),
        *("Sum", "Mean", "Dropout", "LayerNormalization", "RMSNormalization", "Where"),
    )
)
_FLOATS = (
    onnx.TensorProto.UNDEFINED,  # not known: it may be one
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
)


def block_outputs(survey: Survey) -> tuple[str, ...]:
    """Return the tensors of the main graph by which blocks are compared, in order; may be none.

    Outputs of the model are not among them. What a Softmax or the like at its end reads is: there
    the values are still those of the layer.
    """
    found = _Blocks.of(survey)
    written = {name for node in survey.document.proto.graph.node for name in node.output}
    narrow = {place: name for place, name in found.narrow_places().items() if name in written}
    names = [narrow[place] for place in found.block_ends(narrow)]
    return tuple(dict.fromkeys(names))


def with_outputs(
    document: Document, types: Mapping[str, int], *, without: Collection[str] = ()
) -> Document:
    """Return a throw-away copy that gives further tensors of the main graph as outputs.

    Args:
        document: The model; it is not changed.
        types: Element type of each tensor, as ONNX numbers them, by name; 0 where nobody needs it.
        without: Outputs that are left out.
    """
    copied = document.copy()
    kept = [value for value in document.proto.graph.output if value.name not in without]
    del copied.proto.graph.output[:]
    copied.proto.graph.output.extend(kept)
    given = {value.name for value in kept}
    for name, kind in types.items():
        if name not in given:
            value = onnx.ValueInfoProto(name=name)
            if kind:
                value.type.tensor_type.elem_type = kind
            copied.proto.graph.output.append(value)
    return copied


@dataclass(frozen=True, eq=False)
class _Blocks:
    """The nodes of a main graph, and how long each tensor that layers have a part in is needed.

    Attributes:
        graph: The main graph.
        layers: Whether the node at each place is a layer, or holds a body.
        ends: Place of the last node that reads a tensor, by name.
        born: Place of the node that makes it.
    """

    graph: onnx.GraphProto
    layers: tuple[bool, ...]
    ends: Mapping[str, int]
    born: Mapping[str, int]

    @classmethod
    def of(cls, survey: Survey) -> _Blocks:
        """Return what is known of the main graph of a model."""
        scope = survey.model.scopes[0]
        made = {site.node.output[0] for site in survey.sites if site.scope is scope}
        layers = tuple(
            bool(made.intersection(node.output)) or any(True for _ in subgraphs(node))
            for node in scope.graph.node
        )
        floats = _float_names(survey.model.proto)
        born: dict[str, int] = {}
        ends: dict[str, int] = {}
        for place, node in enumerate(scope.graph.node):
            read = set(node_reads(node))
            if layers[place] or not read.isdisjoint(born):
                born.update({name: place for name in node.output if name in floats})
            ends.update({name: place for name in read if name in born})
        return cls(scope.graph, layers, ends, born)

    def narrow_places(self) -> dict[int, str]:
        """Return the tensor that is live alone behind a node, by the place of the node."""
        outputs = {value.name for value in self.graph.output}
        found: dict[int, str] = {}
        live: set[str] = set()
        for place, node in enumerate(self.graph.node):
            live.update(name for name in node.output if self.born.get(name) == place)
            live = {name for name in live if self.ends.get(name, -1) > place}
            if len(live) == 1 and not live <= outputs:
                found[place] = next(iter(live))
        return found

    def block_ends(self, narrow: Mapping[int, str]) -> Iterator[int]:
        """Yield of the narrow places between one layer and the next the one that ends a block."""
        stretch: list[int] = []
        for place, node in enumerate(self.graph.node):
            at_end = node.op_type in _SQUASHING and not any(self.layers[place:])
            if (self.layers[place] or at_end) and stretch:
                keeping = [k for k in stretch if self._keeps_units(k)]
                yield (keeping or stretch)[-1]
                stretch = []
            if at_end:
                return
            if place in narrow:
                stretch.append(place)

    def _keeps_units(self, place: int) -> bool:
        return self.layers[place] or self.graph.node[place].op_type in _SAME_UNITS


def _float_names(proto: onnx.ModelProto) -> set[str]:
    """Return the tensors of the main graph that hold floats, or whose type is not known."""
    try:
        graph = onnx.shape_inference.infer_shapes(proto).graph
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        graph = proto.graph
    known: dict[str, int] = {}
    values: Iterable[onnx.ValueInfoProto] = (*graph.value_info, *graph.output)
    for value in values:
        if value.type.HasField("tensor_type"):
            known[value.name] = value.type.tensor_type.elem_type
    made = [name for node in proto.graph.node for name in node.output if name]
    return {name for name in made if known.get(name, 0) in _FLOATS}
