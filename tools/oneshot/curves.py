"""Accuracy against what is left, one shot without retraining, beside magnitude at the same share.

LeNet-300-100 and LeNet-5 on MNIST and ResNet-20 on the original CIFAR-10 pictures, both estimators,
both granularities. The magnitude baselines keep exactly as many connections of the same layers:
`global` ranks all of them together, `per layer` keeps in each layer as many as relief does. A whole
kernel is ranked by the root mean square of its weights, which can be compared with single weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from _bench import ROOT, MissingError, from_models, from_shared, provenance, table, write_aside
from numpy.typing import NDArray

from onnx_relief.comparing.evaluation import evaluate_model
from onnx_relief.data import Dataset, Preprocess, open_data
from onnx_relief.graph.document import Document, input_specs, load
from onnx_relief.graph.mask import mask
from onnx_relief.pipeline import Pruned, prune
from onnx_relief.plan import LayerKind, LayerPlan, PrunePlan
from onnx_relief.settings import Estimator, Settings
from onnx_relief.structures import KERNEL, WEIGHT, Structure

ALPHAS: Final = (0.99, 0.975, 0.95, 0.925, 0.9, 0.85, 0.8)
QUICK_ALPHAS: Final = (0.99, 0.95, 0.9)
BATCH: Final = 100
MNIST: Final = Preprocess(scale=1 / 255)
CIFAR: Final = Preprocess(scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@dataclass(frozen=True, eq=False, kw_only=True)
class Task:
    """A model, what it is calibrated on, and one or two sets of test pictures by name."""

    document: Document
    calibration: Dataset
    tests: Mapping[str, Dataset]


@dataclass(frozen=True, kw_only=True)
class Line:
    """What one alpha leaves, in percent, and the accuracies by way of pruning and test set."""

    alpha: float
    connections: float
    weights: float
    scores: Mapping[str, Sequence[float]]


WAYS: Final = ("relief", "magnitude, global", "magnitude, per layer")


def write_page(only: str | None, *, quick: bool) -> None:
    """Measure and print; write the page unless a part was asked for."""
    alphas = QUICK_ALPHAS if quick else ALPHAS
    sections = []
    for name in [only] if only else TASKS:
        try:
            sections.append(section(name, TASKS[name](), alphas))
        except MissingError as error:
            sections.append(f"## {name}\n\nNot measured: {error}.")
        print(f"{sections[-1]}\n", flush=True)
    if not (only or quick):
        head = [
            "# One shot, beside magnitude",
            _INTRODUCTION,
            provenance("python tools/bench_oneshot.py curves"),
        ]
        write_aside(ROOT / "docs" / "oneshot.md", "\n\n".join([*head, *sections]) + "\n")
        print("written: docs/oneshot.md")


_INTRODUCTION: Final = (
    "Accuracy in percent of test pictures, pruned in one shot without retraining. Both columns of "
    "magnitude keep exactly as many connections as relief does: `global` ranks all layers "
    "together, `per layer` keeps in each layer as many as relief keeps there. Whole kernels are "
    "ranked by the root mean square of their weights. With granularity `weight` it is single "
    "weights that all ways keep as many of, and a kernel counts as left if any of its weights is. "
    "Relief also drops biases and whole units, magnitude does not."
)


def _lenet(name: str) -> Task:
    document = load(from_models(f"{name}.onnx"))
    tests: dict[str, object] = {"2000": str(from_models("mnist-test.npz"))}
    try:
        tests["10000"] = f"{from_shared('data', 'mnist.npz')}:test"
    except MissingError:
        print("The full MNIST is not here: the 2000 test pictures of models/ alone.")
    calibration = str(from_models("mnist-calibration.npz"))
    return _task(document, calibration, tests, MNIST)


def _resnet() -> Task:
    document = load(from_shared("models", "cifar10-resnet20.onnx"))
    pictures = from_shared("data", "cifar10-original-6k.npz")
    return _task(document, f"{pictures}:train", {"1017": f"{pictures}:test"}, CIFAR)


def _task(
    document: Document, calibration: object, tests: Mapping[str, object], preprocess: Preprocess
) -> Task:
    inputs = input_specs(document.proto)
    return Task(
        document=document,
        calibration=open_data(calibration, inputs, preprocess=preprocess),
        tests={
            name: open_data(test, inputs, preprocess=preprocess) for name, test in tests.items()
        },
    )


TASKS: Final = {
    "lenet-300-100": lambda: _lenet("lenet-300-100"),
    "lenet-5": lambda: _lenet("lenet-5"),
    "cifar10-resnet20": _resnet,
}


def section(name: str, task: Task, alphas: Sequence[float]) -> str:
    """Return the tables of one model and what they say about magnitude."""
    dense = " / ".join(f"{score:.2f}" for score in _accuracies(task.document, task))
    pictures = " / ".join(task.tests)
    parts = [f"## {name}", f"Dense: {dense} % of {pictures} test pictures."]
    for title, estimator, granularity in _variants(task):
        lines = [measured(task, alpha, estimator, granularity) for alpha in alphas]
        rows = [_row(line) for line in lines]
        head = ["alpha", "connections left, %", "weights left, %", *WAYS]
        parts += [f"### {title}", table(head, rows), _verdict(lines)]
    return "\n\n".join(parts)


def _variants(task: Task) -> Iterator[tuple[str, Estimator, Structure]]:
    calibration = task.calibration.take(1)
    found = prune(task.document, calibration, Settings(alpha=1.0)).survey.layers
    if not any(layer.kind is LayerKind.CONVOLUTION for layer in found):
        title = "no convolutions, so estimators and granularities do not differ"
        yield title, Estimator.PAPER, KERNEL
        return
    for structure in (KERNEL, WEIGHT):
        for estimator in Estimator:
            yield (
                f"granularity {structure}, estimator {estimator.value}",
                estimator,
                structure,
            )


def measured(task: Task, alpha: float, estimator: Estimator, structure: Structure) -> Line:
    """Return what one alpha leaves, and the accuracy of all ways to leave as much."""
    settings = Settings(
        alpha=alpha, estimator=estimator, structure=structure, samples=1000, batch_size=BATCH
    )
    pruned = prune(task.document, task.calibration, settings, keep_scores=False)
    models = [pruned.document, *(_by_magnitude(pruned, together) for together in (True, False))]
    scores = [_accuracies(model, task) for model in models]
    kept, weights = _shares(pruned)
    return Line(
        alpha=alpha,
        connections=kept,
        weights=weights,
        scores=dict(zip(WAYS, scores, strict=True)),
    )


def _shares(pruned: Pruned) -> tuple[float, float]:
    """Return the connections and the single weights that are left, in percent."""
    sizes = {layer.name: layer for layer in pruned.survey.layers}
    kept = weights = total = total_weights = 0
    for plan in pruned.plan:
        layer = sizes[plan.layer]
        kept, total = kept + plan.kept_connections, total + layer.connections
        weights += sum(int(k.sum()) * (layer.taps // k.shape[2]) for k in plan.keep)
        total_weights += layer.connections * layer.taps
    return 100 * kept / total, 100 * weights / total_weights


def _by_magnitude(pruned: Pruned, together: bool) -> Document:
    """Return the dense model with as many of its largest connections as `pruned` keeps."""
    strengths = {plan.layer: _strengths(pruned, plan) for plan in pruned.plan}
    counts = {plan.layer: sum(int(keep.sum()) for keep in plan.keep) for plan in pruned.plan}
    if together:
        joined = np.concatenate([part for parts in strengths.values() for part in parts])
        kept = iter(np.split(_largest(joined, sum(counts.values())), _ends(strengths.values())))
        keeps = {name: [next(kept) for _ in parts] for name, parts in strengths.items()}
    else:
        keeps = {
            name: np.split(_largest(np.concatenate(parts), counts[name]), _ends([parts]))
            for name, parts in strengths.items()
        }
    plans = tuple(
        LayerPlan(
            layer=plan.layer,
            alpha=plan.alpha,
            keep=tuple(
                k.reshape(o.shape) for k, o in zip(keeps[plan.layer], plan.keep, strict=True)
            ),
            keep_bias=np.ones_like(plan.keep_bias),
            removed=np.zeros_like(plan.removed),
        )
        for plan in pruned.plan
    )
    return mask(pruned.survey, PrunePlan(layers=plans), pruned.flows)


def _strengths(pruned: Pruned, plan: LayerPlan) -> list[NDArray[np.float64]]:
    """Return the size of every connection of a layer, flat, one array for each of its weights."""
    site = next(site for site in pruned.survey.sites if site.layer.name == plan.layer)
    parts = []
    for part, keep in zip(site.parts, plan.keep, strict=True):
        squares = np.square(pruned.survey.rows(part).astype(np.float64))
        by_kernel = keep.shape[2] == 1
        parts.append(np.sqrt(squares.mean(axis=2) if by_kernel else squares).ravel())
    return parts


def _largest(values: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
    kept = np.zeros(values.shape, dtype=bool)
    kept[np.argsort(-values, kind="stable")[:count]] = True
    return kept


def _ends(groups: Any) -> NDArray[np.int64]:  # noqa: ANN401
    """Return where to split what was concatenated."""
    return np.cumsum([len(part) for parts in groups for part in parts])[:-1]


def _accuracies(model: Document, task: Task) -> list[float]:
    return [evaluate_model(model, test, batch_size=BATCH).value for test in task.tests.values()]


def _row(line: Line) -> list[str]:
    scores = (" / ".join(f"{score:.2f}" for score in line.scores[way]) for way in WAYS)
    return [f"{line.alpha:g}", f"{line.connections:.1f}", f"{line.weights:.1f}", *scores]


def _verdict(lines: Sequence[Line]) -> str:
    """Return in words where magnitude is ahead, on the largest test set."""
    leads = []
    for line in lines:
        relief, *others = (line.scores[way][-1] for way in WAYS)
        leads.append((max(others) - relief, f"{line.alpha:g}"))
    said = [
        f"{word} at alpha {', '.join(alpha for _, alpha in found)}{_by(found)}"
        for word, found in (
            ("ahead of relief", [lead for lead in leads if lead[0] > 0]),
            ("level with it", [lead for lead in leads if lead[0] == 0]),
            ("behind it", [lead for lead in leads if lead[0] < 0]),
        )
        if found
    ]
    return f"The better of the two magnitudes is {'; '.join(said)}."


def _by(leads: Sequence[tuple[float, str]]) -> str:
    most = max(abs(lead) for lead, _ in leads)
    return f" (by up to {most:.2f} points)" if most else ""
