"""A plan and what was measured -> a frozen report that can be printed and saved as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any

import numpy as np

from onnx_relief.graph.follow import UnitFlow
from onnx_relief.graph.layers import Survey
from onnx_relief.plan import Layer, LayerPlan, PrunePlan
from onnx_relief.results import Evaluation, Latency, LayerCost, ModelCost, RepairRow

FORMAT = "onnx-relief report 1"


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """What happened to one layer.

    Attributes:
        name: The layer's name.
        op: The ONNX operator.
        kind: Which equations it was scored with.
        alpha: The share of signal that was asked for; None if it was left alone.
        connections: Kernels or weights before.
        kept: Those with a weight left.
        weights: Single weights.
        nonzero: Those that are not zero any more.
        units: Units before.
        alive: Units with a connection left.
        removed: Units that went as a whole.
        macs: Multiply-accumulates per sample.
        effective_macs: The same without zeros.
        left_alone: Why it has no plan, or None.
        not_followed: Why its units can not be removed, or None.
    """

    name: str
    op: str
    kind: str
    alpha: float | None
    connections: int
    kept: int
    weights: int
    nonzero: int
    units: int
    alive: int
    removed: int
    macs: float | None
    effective_macs: float | None
    left_alone: str | None
    not_followed: str | None


@dataclass(frozen=True, kw_only=True)
class RefusalRow:
    """A node that multiplies by constants and is no layer, and why."""

    node: str
    op: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class DataRow:
    """Which data was used.

    Attributes:
        calibration: What the activity was measured on, in words; None for a replayed plan.
        evaluation: What the models were compared on, in words.
        same: Whether both are the same data.
        samples: Samples that the activity was measured on.
        skipped: Pictures that could not be read, and why.
    """

    calibration: str | None = None
    evaluation: str | None = None
    same: bool = False
    samples: int | None = None
    skipped: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that can be said about one run of `prune`.

    Attributes:
        versions: Of this package and of what it ran with.
        settings: What the user chose, by flag.
        dense: What the model cost before.
        pruned: What it costs now.
        layers: What happened to each layer.
        refusals: Nodes that are no layers, and why.
        data: Which data was used.
        evaluation: How far the pruned model is from the dense one; None without data.
        latency: Of the dense and the pruned model; None without data.
        repair: How the repair turned out; None where none was asked for.
        missed: What was asked and not reached, in words; None where all is well.
        advice: What to make of it, in sentences.
    """

    versions: Mapping[str, str]
    settings: Mapping[str, Any]
    dense: ModelCost
    pruned: ModelCost
    layers: tuple[LayerRow, ...]
    refusals: tuple[RefusalRow, ...]
    data: DataRow
    evaluation: Evaluation | None
    latency: Latency | None
    repair: RepairRow | None = None
    missed: str | None = None
    advice: tuple[str, ...] = ()

    @property
    def connections(self) -> int:
        """Connections of all layers before."""
        return sum(row.connections for row in self.layers)

    @property
    def kept(self) -> int:
        """Connections of all layers that are left."""
        return sum(row.kept for row in self.layers)

    @property
    def dead_units(self) -> int:
        """Units without a connection left, in all layers."""
        return sum(row.units - row.alive for row in self.layers)

    @property
    def drops_nothing(self) -> bool:
        """Whether no number became zero that was not zero before.

        Biases that a repair adds must not hide it, so layers are looked at, too.
        """
        left = {layer.layer: layer.nonzero for layer in self.pruned.layers}
        return self.pruned.nonzero >= self.dense.nonzero and all(
            left.get(layer.layer, 0) >= layer.nonzero for layer in self.dense.layers
        )

    @property
    def is_same_file(self) -> bool:
        """Whether the pruned model's files are those of the dense one, byte for byte."""
        before, after = ([file.sha256 for file in one.files] for one in (self.dense, self.pruned))
        return before == after

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data: dicts, lists, numbers, text, None."""
        totals = {
            "connections": {"before": self.connections, "after": self.kept},
            "parameters": {"before": self.dense.nonzero, "after": self.pruned.nonzero},
            "macs": {"before": self.dense.effective_macs, "after": self.pruned.effective_macs},
            "bytes": {"before": self.dense.plain, "after": self.pruned.plain},
            "bytes_zipped": {"before": self.dense.zipped, "after": self.pruned.zipped},
            "dead_units": self.dead_units,
            "layers_without_macs": list(self.pruned.unmeasured),
        }
        return {"format": FORMAT, "totals": totals, **as_plain(self)}

    def to_json(self) -> str:
        """Return the report as JSON text."""
        return to_json(self.to_dict())


def layer_rows(
    survey: Survey,
    plan: PrunePlan,
    flows: Mapping[str, UnitFlow],
    left_alone: Mapping[str, str],
    pruned: ModelCost,
) -> tuple[LayerRow, ...]:
    """Return what happened to each layer.

    Args:
        survey: The dense model.
        plan: What was decided.
        flows: Where the units of each layer go.
        left_alone: Layers without a plan, and why.
        pruned: What the pruned model costs; of the survey's layers those that it still has.
    """
    costs = {cost.layer: cost for cost in pruned.layers}
    rows = []
    for layer in survey.layers:
        entry, cost = plan.for_layer(layer.name), costs.get(layer.name) or _cut_out(layer.name)
        reason = None if entry else left_alone.get(layer.name, "no plan was made for it")
        rows.append(
            LayerRow(
                name=layer.name,
                op=layer.op,
                kind=layer.kind.value,
                alpha=entry.alpha if entry else None,
                connections=layer.connections,
                units=layer.units,
                weights=cost.weights,
                nonzero=cost.nonzero,
                macs=cost.macs,
                effective_macs=cost.effective_macs,
                left_alone=reason,
                not_followed=flows[layer.name].blocked,
                **_decided(layer, entry),
            )
        )
    return tuple(rows)


def refusal_rows(survey: Survey) -> tuple[RefusalRow, ...]:
    """Return what is no layer, and why."""
    return tuple(
        RefusalRow(node=refusal.node, op=refusal.op, reason=refusal.reason)
        for refusal in survey.refusals
    )


def as_plain(value: object) -> Any:  # noqa: ANN401 - JSON has no narrower type
    """Return a value as JSON takes it; numbers that JSON does not have become None."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(part) for part in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, np.generic):
        return as_plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def to_json(value: object) -> str:
    """Return a value as JSON text of printable ASCII; names from files may hold anything."""
    return json.dumps(as_plain(value), indent=1, allow_nan=False)


def _cut_out(name: str) -> LayerCost:
    """Return what a layer costs that is not in the model any more."""
    return LayerCost(
        layer=name, connections=0, kept=0, weights=0, nonzero=0, units=0, alive=0, positions=0.0
    )


def _decided(layer: Layer, entry: LayerPlan | None) -> dict[str, int]:
    if entry is None:
        return {"kept": layer.connections, "alive": layer.units, "removed": 0}
    return {
        "kept": entry.kept_connections,
        "alive": int(entry.alive.sum()),
        "removed": int(entry.removed.sum()),
    }
