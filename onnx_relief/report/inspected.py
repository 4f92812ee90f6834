"""What `inspect` found: a value, and the same as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from onnx_relief.report.build import RefusalRow, as_plain, to_json
from onnx_relief.report.groups import CoupledRow, StaysRow, groups_table
from onnx_relief.report.table import NO_WHOLE_UNITS, grouped, named_table
from onnx_relief.report.text import bytes_text, count_text, plain, plural, share_text
from onnx_relief.results import LayerCost, ModelCost


@dataclass(frozen=True, kw_only=True)
class InspectedLayer:
    """One layer and what it costs.

    Attributes:
        name: The layer's name, as --only, --skip and --alpha-layer take it.
        op: The ONNX operator.
        kind: Which equations it is scored with.
        weights: Names of its weights.
        bias: Name of the bias that competes with its connections.
        groups: Groups of its first weight.
        kernel: Kernel size of a convolution.
        cost: Its connections, weights, units and work, as they are now.
        readers: Layers that read its units.
        not_followed: Why its units cannot be removed, or None.
    """

    name: str
    op: str
    kind: str
    weights: tuple[str, ...]
    bias: str | None
    groups: int
    kernel: tuple[int, ...]
    cost: LayerCost
    readers: tuple[str, ...]
    not_followed: str | None


@dataclass(frozen=True, kw_only=True)
class AfterCompaction:
    """What `compact` would leave of a masked model.

    Attributes:
        parameters: How many parameters.
        macs: Multiply-accumulates per sample, where they are known for all layers.
        unknown: Why it cannot be told.
    """

    parameters: int | None = None
    macs: float | None = None
    unknown: str | None = None


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What `inspect` found.

    Attributes:
        inputs: Name -> type and shape in words.
        outputs: The same of what the model gives.
        opset: Version of the default operator set.
        producer: The program that wrote the file.
        cost: Bytes, parameters and work of the whole model.
        layers: What can be pruned.
        refusals: Nodes that multiply by constants and are no layers, and why.
        unknown_work: Why multiply-accumulates are not known for all layers, or None.
        groups: Channels that live or die together, where that was asked for.
        stays: Those that stay, and why, where that was asked for.
        after: What `compact` would leave, if there are connections of zeros.
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    opset: int
    producer: str
    cost: ModelCost
    layers: tuple[InspectedLayer, ...]
    refusals: tuple[RefusalRow, ...]
    unknown_work: str | None
    groups: tuple[CoupledRow, ...] | None = None
    stays: tuple[StaysRow, ...] = ()
    after: AfterCompaction | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        plain = as_plain(self)
        del plain["cost"]["layers"]
        plain["after_compaction"] = plain.pop("after")
        if self.groups is None:
            del plain["groups"], plain["stays"]
        return {
            "format": "onnx-relief inspection 1",
            "macs": self.cost.macs,
            "effective_macs": self.cost.effective_macs,
            **plain,
        }

    def to_json(self) -> str:
        """Return it as JSON text."""
        return to_json(self.to_dict())


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
        *grouped(NO_WHOLE_UNITS, blocked, verbose),
        *([] if found.groups is None else groups_table(found.groups, found.stays, verbose=verbose)),
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
        work += f" ({plural(len(cost.unmeasured), 'layer')} not counted: {found.unknown_work})"
    zipped = f"{bytes_text(cost.plain)}, zipped {bytes_text(cost.zipped)}"
    lines = [
        f"layers: {len(found.layers)}",
        f"parameters: {cost.parameters:,}, not zero {cost.nonzero:,}",
        f"MACs per sample: {work}",
        f"file: {zipped}",
        *([] if found.after is None else [_after(found.after)]),
    ]
    return [Text(plain(line)) for line in lines]


def _after(after: AfterCompaction) -> str:
    if after.parameters is None:
        return f"after compaction: not known, {after.unknown}"
    return f"after compaction: {after.parameters:,} parameters, {count_text(after.macs)} MACs"


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
