"""Models whose channels are cut in docs/channels.md, and what their layers weigh."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from _bench import from_models, from_shared

from onnx_relief.data import Dataset, Preprocess
from onnx_relief.graph.cost import layer_costs
from onnx_relief.graph.document import Document
from onnx_relief.graph.layers import find_layers
from onnx_relief.measuring.positions import positions_on_data

SAMPLES: Final = 500
"""At most so many calibration samples."""
CIFAR: Final = Preprocess(scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
UNIT: Final = Preprocess(scale=1 / 255)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One model with its data."""

    name: str
    model: Path
    calibration: str
    test: str
    preprocess: Preprocess


def sizes(document: Document, data: Dataset) -> tuple[float, float]:
    """Return the weights of all layers and their multiply-accumulates for a sample."""
    survey = find_layers(document)
    costs = layer_costs(survey, positions_on_data(survey, data, "cpu").by_layer)
    return sum(cost.weights for cost in costs), sum(cost.macs or 0.0 for cost in costs)


def _cifar() -> Task:
    data = from_shared("data", "cifar10-original-6k.npz")
    return Task(
        name="ResNet-20, CIFAR-10 (BatchNormalization as nodes)",
        model=from_shared("models", "cifar10-resnet20.onnx"),
        calibration=f"{data}:train",
        test=f"{data}:test",
        preprocess=CIFAR,
    )


def _shipped(model: str, data: str, preprocess: Preprocess) -> Task:
    return Task(
        name=model,
        model=from_models(f"{model}.onnx"),
        calibration=str(from_models(f"{data}-calibration.npz")),
        test=str(from_models(f"{data}-test.npz")),
        preprocess=preprocess,
    )


TASKS: Final[dict[str, Callable[[], Task]]] = {
    "lenet-5": partial(_shipped, "lenet-5", "mnist", UNIT),
    "fashion-keras": partial(_shipped, "fashion-keras", "fashion", replace(UNIT, layout="nhwc")),
    "resnet20": _cifar,
}
"""Each raises `MissingError` where its files are not there."""
