"""What is decided: layers, and which of their connections and units are kept.

Frozen values that know neither ONNX nor the data. A plan can be printed, saved as JSON, read back
and applied again to give the same bytes.

Canonical layout, the same for every kind of layer: weights are (units, inputs, taps), with `inputs`
counted inside the unit's group and `taps` 1 for anything that is not a convolution; biases are
(units, biases per unit).
"""

from __future__ import annotations

import base64
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onnx_relief.errors import SettingsError
from onnx_relief.geometry import ConvGeometry

BoolArray = NDArray[np.bool_]
FORMAT = "onnx-relief plan 1"
TOGETHER: Final = " + "
"""Between the names of constants that are one weight together."""


class LayerKind(Enum):
    """Which equations a layer is scored with."""

    CONVOLUTION = "convolution"
    FULLY_CONNECTED = "fully connected"
    RECURRENT = "recurrent"


@dataclass(frozen=True, kw_only=True)
class Weight:
    """One constant that a layer multiplies its input with.

    Attributes:
        name: The tensor's name in the file.
        inputs: Inputs that one unit reads through it.
        groups: Unit j reads the inputs of group j // (units / groups).
        scale: What the node multiplies the product with (Gemm's alpha).
    """

    name: str
    inputs: int
    groups: int = 1
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Bias:
    """The constant that a layer adds; `count` entries per unit (LSTM has two), times `scale`."""

    name: str
    count: int = 1
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One node that multiplies by constant weights.

    Attributes:
        name: Unique in the model: the node's name, or that of its output.
        op: The ONNX operator.
        kind: Which equations apply.
        units: Output channels or neurons; gates of all directions for LSTM, GRU and RNN.
        weights: One, or two (input and recurrent) for recurrent layers.
        bias: The bias that competes with the connections, if there is one.
        geometry: For convolutions.
    """

    name: str
    op: str
    kind: LayerKind
    units: int
    weights: tuple[Weight, ...]
    bias: Bias | None = None
    geometry: ConvGeometry | None = None

    @property
    def taps(self) -> int:
        """Weights in one kernel; 1 where there are no kernels."""
        return self.geometry.taps if self.geometry else 1

    @property
    def connections(self) -> int:
        """Kernels of a convolution, weights of anything else."""
        return self.units * sum(weight.inputs for weight in self.weights)

    @property
    def biases(self) -> int:
        """Bias entries that compete."""
        return self.units * self.bias.count if self.bias else 0


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerPlan:
    """What is kept of one layer, in canonical layout.

    Attributes:
        layer: The layer's name.
        alpha: The share of each unit's signal that was asked for.
        keep: Per weight, (units, inputs, taps); the last axis is 1 where whole kernels are kept.
        keep_bias: (units, biases per unit); no columns where no bias competes.
        removed: (units,): units that went as a whole, with their normalisation parameters.
        normalisation: Names of the tensors whose entries go with removed units.
    """

    layer: str
    alpha: float
    keep: tuple[BoolArray, ...]
    keep_bias: BoolArray
    removed: BoolArray
    normalisation: tuple[str, ...] = ()

    @property
    def kept_connections(self) -> int:
        """Connections with at least one weight left."""
        return sum(int(keep.any(axis=2).sum()) for keep in self.keep)

    @property
    def alive(self) -> BoolArray:
        """(units,): units with at least one connection left."""
        return np.asarray(np.any([keep.any(axis=(1, 2)) for keep in self.keep], axis=0))

    @property
    def drops_nothing(self) -> bool:
        """Whether applying this changes nothing."""
        return all(keep.all() for keep in self.keep) and bool(
            self.keep_bias.all() and not self.removed.any()
        )

    def within(self, earlier: LayerPlan) -> LayerPlan:
        """Return the plan that keeps what this one and an earlier one of the layer keep."""
        return replace(
            self,
            keep=tuple(a & b for a, b in zip(self.keep, earlier.keep, strict=True)),
            keep_bias=self.keep_bias & earlier.keep_bias,
            removed=self.removed | earlier.removed,
            normalisation=self.normalisation or earlier.normalisation,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class PrunePlan:
    """The decision for a whole model.

    Attributes:
        layers: One for each layer that may lose something.
        model: Digest of the file that it was made for; empty where there was none.
    """

    layers: tuple[LayerPlan, ...]
    model: str = ""

    def __iter__(self) -> Iterator[LayerPlan]:
        return iter(self.layers)

    def for_layer(self, name: str) -> LayerPlan | None:
        """Return the plan of the layer `name`, or None if it is left alone."""
        return next((plan for plan in self.layers if plan.layer == name), None)

    @property
    def drops_nothing(self) -> bool:
        """Whether applying this changes nothing."""
        return all(plan.drops_nothing for plan in self.layers)

    @property
    def kept_connections(self) -> int:
        """Connections with at least one weight left."""
        return sum(plan.kept_connections for plan in self.layers)

    def within(self, earlier: PrunePlan) -> PrunePlan:
        """Return the plan that keeps what this one and an earlier one keep: masks only grow."""
        before = {plan.layer: plan for plan in earlier}
        both = [p.within(before[p.layer]) if p.layer in before else p for p in self]
        rest = before.keys() - {plan.layer for plan in self}
        return replace(self, layers=(*both, *(plan for plan in earlier if plan.layer in rest)))

    def to_json(self) -> str:
        """Return the plan as JSON text; masks are packed bits, compressed, in base64."""
        model = {"model": self.model} if self.model else {}
        layers = [_to_dict(p) for p in self.layers]
        return json.dumps({"format": FORMAT, **model, "layers": layers}, indent=1)

    @staticmethod
    def from_json(text: str, *, limit: int = 1 << 32) -> PrunePlan:
        """Return the plan that `to_json` wrote.

        Args:
            text: The JSON text.
            limit: Most mask entries that it may have: a hostile file of some kilobytes may
                otherwise ask for all memory.

        Raises:
            SettingsError: The text is not such a plan.
        """
        try:
            data = json.loads(text)
            if data["format"] != FORMAT:
                raise ValueError(f"its format is {data['format']!r}")
            if _entries(data["layers"]) > limit:
                raise ValueError(f"its masks have more than {limit} entries")
            layers = tuple(_from_dict(entry) for entry in data["layers"])
            plan = PrunePlan(layers=layers, model=_text(data.get("model", "")))
            names = Counter(entry.layer for entry in plan)
            if len(names) != len(plan.layers):
                raise ValueError(f"it names layer {max(names, key=names.__getitem__)!r} twice")
        except _NOT_A_PLAN as error:
            raise SettingsError(
                "this is not a plan that --save-plan wrote "
                f"({type(error).__name__}: {str(error)[:200]}); make it again"
            ) from error
        return plan


# What json, base64, zlib and our own questions raise on text that is anything else.
_NOT_A_PLAN = (
    *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError),
    *(RecursionError, zlib.error),
)


def _to_dict(plan: LayerPlan) -> dict[str, Any]:
    return {
        "layer": plan.layer,
        "alpha": plan.alpha,
        "connections": sum(keep.shape[0] * keep.shape[1] for keep in plan.keep),
        "kept": plan.kept_connections,
        "keep": [_pack(keep) for keep in plan.keep],
        "keep_bias": _pack(plan.keep_bias),
        "removed": _pack(plan.removed),
        "normalisation": list(plan.normalisation),
    }


def _entries(layers: list[dict[str, Any]]) -> int:
    """Return how many entries the masks of a plan say that they have."""
    masks = (mask for entry in layers for mask in (*entry["keep"], entry["keep_bias"]))
    return sum(prod(_shape(mask)) for mask in masks) + sum(
        prod(_shape(entry["removed"])) for entry in layers
    )


def _from_dict(entry: dict[str, Any]) -> LayerPlan:
    plan = LayerPlan(
        layer=_text(entry["layer"]),
        alpha=float(entry["alpha"]),
        keep=tuple(_unpack(packed, rank=3) for packed in entry["keep"]),
        keep_bias=_unpack(entry["keep_bias"], rank=2),
        removed=_unpack(entry["removed"], rank=1),
        normalisation=tuple(_text(name) for name in entry["normalisation"]),
    )
    if not 0.0 < plan.alpha <= 1.0:
        raise ValueError(f"alpha of layer {plan.layer!r} is {plan.alpha}")
    masks = (*plan.keep, plan.keep_bias)
    if not plan.keep or any(len(mask) != len(plan.removed) for mask in masks):
        raise ValueError(f"the masks of layer {plan.layer!r} do not belong together")
    if any(mask[plan.removed].any() for mask in masks):
        raise ValueError(f"layer {plan.layer!r} keeps something of a removed unit")
    return plan


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no name")
    return value


def _shape(entry: dict[str, Any]) -> tuple[int, ...]:
    shape = tuple(entry["shape"])
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"a mask has the shape {shape}")
    return shape


def _pack(mask: BoolArray) -> dict[str, Any]:
    packed = zlib.compress(np.packbits(mask).tobytes(), level=9)
    return {"shape": list(mask.shape), "bits": base64.b64encode(packed).decode("ascii")}


def _unpack(entry: dict[str, Any], *, rank: int) -> BoolArray:
    shape = _shape(entry)
    if len(shape) != rank:
        raise ValueError(f"a mask has the shape {shape}")
    size = prod(shape)
    length = (size + 7) // 8
    # A tiny stream may inflate to gigabytes: take what the shape allows.
    stream = zlib.decompressobj()
    raw = stream.decompress(base64.b64decode(entry["bits"], validate=True), length + 1)
    if len(raw) != length:
        raise ValueError(f"a mask of shape {shape} has other than {length} bytes")
    bits = np.unpackbits(np.frombuffer(raw, dtype=np.uint8), count=size)
    return bits.view(bool).reshape(shape)
