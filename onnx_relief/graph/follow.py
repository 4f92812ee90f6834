"""Follow the units of a layer forwards to the layers that read them, where that is simple.

Simple means: through elementwise operators, BatchNormalization, pooling and flattening, in one
graph. Whatever else the units meet blocks the way, with the reason in words; nothing is guessed.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx_relief.errors import ReliefError
from onnx_relief.graph.layers import Survey
from onnx_relief.graph.nodes import STANDARD, node_key
from onnx_relief.graph.sites import Axes, Part, Site
from onnx_relief.graph.unit_rules import RULES, BlockedError, Carrier, Walk
from onnx_relief.graph.walk import Place, Use
from onnx_relief.plan import LayerKind


@dataclass(frozen=True)
class Reader:
    """A layer that reads the units: unit u is its input channels [u * block, (u + 1) * block)."""

    layer: str
    block: int


@dataclass(frozen=True, eq=False)
class UnitFlow:
    """Where the units of a layer go.

    Attributes:
        layer: The layer's name.
        readers: All layers that read the units, if the way is not blocked.
        normalisation: Scales and offsets of BatchNormalization on the way, one entry per unit.
        keeps_zero: Whether a unit that is zero (and whose normalisation is) stays zero to the end.
        blocked: Why the units cannot be followed everywhere, or None.
    """

    layer: str
    readers: tuple[Reader, ...]
    normalisation: tuple[Part, ...]
    keeps_zero: bool
    blocked: str | None

    @property
    def normalisation_names(self) -> tuple[str, ...]:
        """The tensors of `normalisation`, as plans name them."""
        return tuple(str(part.view.home) for part in self.normalisation)


def follow_units(survey: Survey) -> dict[str, UnitFlow]:
    """Return for every layer where its units go."""
    by_node = {(site.scope.path, site.node.output[0]): site for site in survey.sites}
    return {site.layer.name: _follow(survey, site, by_node) for site in survey.sites}


def _follow(survey: Survey, site: Site, by_node: dict[Place, Site]) -> UnitFlow:
    walk = Walk(survey, site)
    readers: list[Reader] = []
    zero_at_readers: dict[str, bool] = {}
    blocked = None
    try:
        waiting = [_start(site)]
        seen = {waiting[0].name: waiting[0]}
        while waiting:
            carrier = waiting.pop()
            for use in _uses(site, carrier):
                onward = _step(walk, carrier, use, by_node)
                if isinstance(onward, Reader):
                    readers.append(onward)
                    zero_at_readers[carrier.name] = carrier.zero
                elif onward.name not in seen or (onward.zero and not seen[onward.name].zero):
                    # Units that meet themselves in a product are zero if they were on either way.
                    seen[onward.name] = onward
                    waiting.append(onward)
    except (BlockedError, ReliefError) as reason:
        blocked = str(reason)
    normalisation = {part.view.home: part for part in walk.normalisation}
    return UnitFlow(
        layer=site.layer.name,
        readers=tuple(dict.fromkeys(readers)),
        normalisation=tuple(normalisation.values()),
        keeps_zero=all(zero_at_readers.values()),
        blocked=blocked,
    )


def _adds_something(site: Site) -> bool:
    """Whether the node adds something, or an Add after it that was taken for its bias."""
    in_node = len(site.node.input) > 2 and bool(site.node.input[2])
    return in_node or site.output not in site.node.output


def _start(site: Site) -> Carrier:
    layer = site.layer
    zero = site.bias is not None or not _adds_something(site)
    if layer.kind is LayerKind.RECURRENT:
        raise BlockedError("gates of a recurrent layer are not followed")
    if layer.geometry is not None:
        return Carrier(site.output, 1, layer.geometry.rank + 2, zero=zero)
    if layer.weights[0].groups > 1 or site.makes.place != -1:
        raise BlockedError("units of a batched or left-hand weight are not followed")
    if site.makes.joined > 1:
        raise BlockedError("units along several axes are not followed")
    if len(site.parts[0].view.shape) == 1:
        raise BlockedError("the product with a vector has no axis of units")
    if layer.op == "Gemm":
        return Carrier(site.output, 1, 2, zero=zero)
    # Features are the last axis of a MatMul; it has as many axes as its input.
    return Carrier(site.output, -1, None, zero=zero)


def _uses(site: Site, carrier: Carrier) -> list[Use]:
    uses = site.scope.uses.get(carrier.name, [])
    for use in uses:
        if use.scope is not site.scope:
            raise BlockedError("they are read inside a body")
        if use.node is None:
            raise BlockedError("they reach the output of the graph")
    return uses


def _step(walk: Walk, carrier: Carrier, use: Use, by_node: dict[Place, Site]) -> Carrier | Reader:
    """Follow the units through what reads them, or return the layer in which they end."""
    node = use.node
    assert node is not None
    layer = by_node.get((use.scope.path, node.output[0]))
    if layer is not None and use.index == layer.data_input:
        return _read_by(carrier, layer, walk.site)
    rule = RULES.get(node.op_type) if node.domain in STANDARD else None
    if rule is None:
        raise BlockedError(f"they meet {node.op_type} {node_key(node)!r}")
    return rule(walk, carrier, node, use)


def _read_by(carrier: Carrier, reader: Site, writer: Site) -> Reader:
    layer, weight = reader.layer, reader.layer.weights[0]
    if layer.kind is LayerKind.CONVOLUTION:
        fits = carrier.axis == 1
    else:
        last = carrier.axis == -1 or carrier.axis + 1 == carrier.rank
        plain = layer.kind is LayerKind.FULLY_CONNECTED and weight.groups == 1
        fits = last and plain and reader.reads == Axes()
    inputs = weight.inputs * weight.groups
    block = inputs // writer.layer.units if carrier.block is None else carrier.block
    if not fits or inputs != writer.layer.units * block:
        raise BlockedError(f"{layer.op} {layer.name!r} reads them in another order")
    return Reader(layer.name, block)
