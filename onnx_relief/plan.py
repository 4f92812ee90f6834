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
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_relief.errors import SettingsError
from onnx_relief.geometry import ConvGeometry

BoolArray = NDArray[np.bool_]
FORMAT = "onnx-relief plan 1"


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
        return np.any([keep.any(axis=(1, 2)) for keep in self.keep], axis=0)

    @property
    def drops_nothing(self) -> bool:
        """Whether applying this changes nothing."""
        return all(keep.all() for keep in self.keep) and bool(
            self.keep_bias.all() and not self.removed.any()
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class PrunePlan:
    """The decision for a whole model: one `LayerPlan` per layer that may lose something."""

    layers: tuple[LayerPlan, ...]

    def __iter__(self) -> Iterator[LayerPlan]:
        return iter(self.layers)

    def for_layer(self, name: str) -> LayerPlan | None:
        """Return the plan of the layer `name`, or None if it is left alone."""
        return next((plan for plan in self.layers if plan.layer == name), None)

    @property
    def drops_nothing(self) -> bool:
        """Whether applying this changes nothing."""
        return all(plan.drops_nothing for plan in self.layers)

    def to_json(self) -> str:
        """Return the plan as JSON text; masks are packed bits, compressed, in base64."""
        return json.dumps(
            {"format": FORMAT, "layers": [_to_dict(p) for p in self.layers]}, indent=1
        )

    @staticmethod
    def from_json(text: str) -> PrunePlan:
        """Return the plan that `to_json` wrote.

        Raises:
            SettingsError: The text is not such a plan.
        """
        try:
            data = json.loads(text)
            if data["format"] != FORMAT:
                raise ValueError(f"its format is {data['format']!r}")
            return PrunePlan(layers=tuple(_from_dict(entry) for entry in data["layers"]))
        except (ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
            raise SettingsError(
                f"this is not a plan that --save-plan wrote ({error or type(error).__name__})"
            ) from error


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


def _from_dict(entry: dict[str, Any]) -> LayerPlan:
    plan = LayerPlan(
        layer=str(entry["layer"]),
        alpha=float(entry["alpha"]),
        keep=tuple(_unpack(packed, rank=3) for packed in entry["keep"]),
        keep_bias=_unpack(entry["keep_bias"], rank=2),
        removed=_unpack(entry["removed"], rank=1),
        normalisation=tuple(str(name) for name in entry["normalisation"]),
    )
    units = len(plan.removed)
    if not plan.keep or any(len(part) != units for part in (*plan.keep, plan.keep_bias)):
        raise ValueError(f"the masks of layer {plan.layer!r} do not belong together")
    return plan


def _pack(mask: BoolArray) -> dict[str, Any]:
    packed = zlib.compress(np.packbits(mask).tobytes(), level=9)
    return {"shape": list(mask.shape), "bits": base64.b64encode(packed).decode("ascii")}


def _unpack(entry: dict[str, Any], *, rank: int) -> BoolArray:
    shape = tuple(int(size) for size in entry["shape"])
    size = int(np.prod(shape, dtype=object)) if shape else 1
    if len(shape) != rank or min(shape) < 0:
        raise ValueError(f"a mask has the shape {shape}")
    limit = (size + 7) // 8
    # A hostile file may hold a tiny stream that inflates to gigabytes: take what the shape allows.
    stream = zlib.decompressobj()
    raw = stream.decompress(base64.b64decode(entry["bits"], validate=True), limit + 1)
    if len(raw) != limit:
        raise ValueError(f"a mask of shape {shape} holds {len(raw)} bytes")
    bits = np.unpackbits(np.frombuffer(raw, dtype=np.uint8), count=size)
    return bits.astype(bool).reshape(shape)
