"""What `inspect` found, as tables for a terminal."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text

from onnx_relief.inspection import InspectedLayer, Inspection
from onnx_relief.report.table import grouped, named_table
from onnx_relief.report.text import bytes_text, count_text, plain, share_text
from onnx_relief.results import LayerCost


def inspection_table(found: Inspection, *, verbose: bool = False) -> list[RenderableType]:
    """Return layers, totals, and what is left alone; names in full only if `verbose`."""
    columns = ("op", "units", "alive", "connections", "weights", "% zero", "MACs", "read by")
    table = named_table("layer", *columns, left=("op", "read by"))
    for layer in found.layers:
        cost = layer.cost
        table.add_row(
            Text(plain(layer.name)),
            Text(plain(_operator(layer))),
            f"{cost.units:,}",
            f"{cost.alive:,}",
            f"{cost.connections:,}",
            f"{cost.weights:,}",
            _zeros(cost),
            count_text(cost.macs),
            Text(plain(_readers(layer))),
        )
    blocked = [(layer.not_followed, layer.name) for layer in found.layers if layer.not_followed]
    refused = [(refusal.reason, f"{refusal.op} {refusal.node}") for refusal in found.refusals]
    return [
        *_head(found),
        table,
        *_totals(found),
        *grouped("Nodes with constants that are no layers", refused, verbose),
        *grouped("Units that cannot be removed", blocked, verbose),
    ]


def _head(found: Inspection) -> list[RenderableType]:
    origin = f", written by {found.producer}" if found.producer else ""
    lines = [f"{found.cost.name}: opset {found.opset}{origin}"]
    lines += [f"  takes {name!r}: {spec}" for name, spec in found.inputs.items()]
    lines += [f"  gives {name!r}: {spec}" for name, spec in found.outputs.items()]
    return [Text(plain(line)) for line in lines]


def _totals(found: Inspection) -> list[RenderableType]:
    cost = found.cost
    work = count_text(cost.macs)
    if found.unknown_work is not None:
        work += f" ({len(cost.unmeasured)} layers not counted: {found.unknown_work})"
    zipped = f"{bytes_text(cost.plain)}, zipped {bytes_text(cost.zipped)}"
    lines = (
        f"layers: {len(found.layers)}",
        f"parameters: {cost.parameters:,}, not zero {cost.nonzero:,}",
        f"MACs per sample: {work}",
        f"file: {zipped}",
    )
    return [Text(plain(line)) for line in lines]


def _zeros(cost: LayerCost) -> str:
    return share_text(cost.weights - cost.nonzero, cost.weights)


def _operator(layer: InspectedLayer) -> str:
    kernel = "x".join(map(str, layer.kernel))
    groups = f" /{layer.groups}" if layer.groups > 1 else ""
    return " ".join(part for part in (layer.op, kernel) if part) + groups


def _readers(layer: InspectedLayer) -> str:
    if layer.not_followed is not None:
        return "not followed"
    return ", ".join(layer.readers) or "nothing"
