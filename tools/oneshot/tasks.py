"""Models with calibration data, and the score of any other model on their test data.

Calibration and test data never overlap, and no label of the calibration data is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from _bench import from_corpus, from_repository, from_shared
from samples import Array, Case, Sizes, noise, overlap, pictures, text

from onnx_relief.data import Dataset, open_data
from onnx_relief.graph.document import Document, input_specs, load
from onnx_relief.runtime import open_session

Judge = Callable[[Array, Array], float]
"""Returns a score from the outputs of a model and those of the dense model."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """One model and its data.

    Attributes:
        name: Short name, also that of its files in the scratch folder.
        group: Tasks of one group are shown as their mean.
        model: The dense model.
        case: Calibration and test data, and how they become what the model takes.
        judge: How outputs on the test data become a score.
        meaning: What the score is, in words.
        peer_batches: At most so many batches for the peer, which takes minutes for more.
    """

    name: str
    group: str
    model: Path
    case: Case
    judge: Judge
    meaning: str
    peer_batches: int | None = None

    @cached_property
    def dense_outputs(self) -> Array:
        """The first output of the dense model on all test data."""
        return self.outputs(load(self.model))

    def data(self, document: Document, *, calibration: bool) -> Dataset:
        """Return the calibration or the test data as `document` takes it."""
        chosen = self.case.calibration if calibration else self.case.test
        return open_data(chosen, input_specs(document.proto), preprocess=self.case.preprocess)

    def outputs(self, document: Document) -> Array:
        """Return the first output of a model on all test data, samples first."""
        session, parts = open_session(document), []
        for batch in self.data(document, calibration=False).batches(self.case.batch_size):
            first = next(iter(session.run(batch.feed).values()))
            parts.append(first[: batch.count])
        return np.concatenate(parts)

    def score(self, model: Path) -> tuple[float, float]:
        """Return the score of a model, and how far its outputs are from those of the dense one.

        The second is the norm of the difference over the norm of the dense outputs.
        """
        return self.judged(self.dense_outputs if model == self.model else self.outputs(load(model)))

    def judged(self, outputs: Array) -> tuple[float, float]:
        """Return score and relative error of outputs."""
        dense = self.dense_outputs.astype(np.float64)
        error = np.linalg.norm(outputs - dense) / np.linalg.norm(dense)
        return self.judge(outputs, self.dense_outputs), float(error)

    def write_data(self, folder: Path) -> tuple[Path, list[str]]:
        """Write the calibration data as one .npz; return it and the flags that go with it."""
        path = folder / f"{self.name}.samples.npz"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            assert isinstance(self.case.calibration, dict)
            samples = {n: a for n, a in self.case.calibration.items() if n != "labels"}
            np.savez(path, allow_pickle=False, **samples)
        flags = ["--batch-size", str(self.case.batch_size)]
        for name in ("crop", "scale", "mean", "std"):
            value = getattr(self.case.preprocess, name)
            if value is not None:
                numbers = value if isinstance(value, tuple) else (value,)
                flags += [f"--{name}", ",".join(map(repr, numbers))]
        return path, flags

    def write_feeds(self, folder: Path) -> Path:
        """Write the calibration data as complete feeds, which any program reads; return where."""
        target = folder / f"{self.name}.feeds"
        if not target.exists():
            aside = folder / f"{self.name}.feeds.part"
            aside.mkdir(parents=True, exist_ok=True)
            document = load(self.model)
            batches = self.data(document, calibration=True).batches(self.case.batch_size)
            for number, batch in enumerate(batches):
                feed = {name: array[: batch.count] for name, array in batch.feed.items()}
                np.savez(aside / f"{number:04}.npz", allow_pickle=False, **feed)
            aside.rename(target)
        return target


def task(name: str) -> Task:
    """Return a task by name.

    Raises:
        MissingError: Its model or its data is not here.
    """
    return _BUILDERS[name](name)


def _sizes(
    calibration: int = 0, test: int = 0, dear_calibration: int = 0, dear_test: int = 0
) -> Sizes:
    return Sizes(
        calibration=calibration,
        test=test,
        dear_calibration=dear_calibration,
        dear_test=dear_test,
    )


def _digits(name: str) -> Task:
    group, _, seed = name.rpartition("-")
    model = from_shared("models", f"{name}.onnx")
    return _labelled(name, group, model, pictures.digits(int(seed)), _sizes(calibration=128))


def _resnet(name: str) -> Task:
    model = from_shared("models", "cifar10-resnet20.onnx")
    return _labelled(name, name, model, pictures.cifar, _sizes(calibration=200, test=600))


def _resnet_int8(name: str) -> Task:
    model = from_repository("corpus", "cifar10-resnet20-int8.onnx", "tools/make_int8.py")
    return _labelled(name, name, model, pictures.cifar, _sizes(calibration=200, test=600))


def _efficientnet(name: str) -> Task:
    model = from_shared("models", "imagenet-efficientnet-lite0.onnx")
    return _labelled(
        name,
        name,
        model,
        pictures.efficientnet,
        _sizes(dear_calibration=125, dear_test=63),
        peer_batches=4,
    )


def _labelled(
    name: str,
    group: str,
    model: Path,
    build: Callable[[Path, Sizes], Case],
    sizes: Sizes,
    peer_batches: int | None = None,
) -> Task:
    case = build(model, sizes)
    assert isinstance(case.test, dict)
    labels = case.test["labels"]
    return Task(
        name=name,
        group=group,
        model=model,
        case=case,
        judge=lambda outputs, _: 100.0 * float(np.mean(outputs.argmax(axis=1) == labels)),
        meaning="correct, %",
        peer_batches=peer_batches,
    )


def _sentences(name: str) -> Task:
    remedy = "tools/oneshot/export_minilm.py with a Python that has transformers"
    model = from_repository("corpus", "minilm-l6.onnx", remedy)
    names = ("input_ids", "attention_mask")
    with np.load(from_repository("corpus", "minilm-l6-sentences.npz", remedy)) as stored:
        parts = [{n: stored[f"{part}_{n}"] for n in names} for part in ("calibration", "test")]
    case = Case(calibration=parts[0], test=parts[1], data="sentences", batch_size=16)
    return Task(
        name=name, group=name, model=model, case=case, judge=mean_cosine, meaning="mean cosine"
    )


def mean_cosine(outputs: Array, dense: Array) -> float:
    """Return the mean over rows of the cosine between two sets of vectors."""
    lengths = np.linalg.norm(outputs, axis=1) * np.linalg.norm(dense, axis=1)
    return float(np.mean((outputs * dense).sum(axis=1) / np.maximum(lengths, 1e-30)))


def _words(name: str) -> Task:
    model, sizes = from_corpus("ppocr-rec.onnx"), _sizes(calibration=64, test=100)
    case, alphabet = text.recognition(model, sizes), text.alphabet_of(model)
    expected = text.words_for(sizes.calibration + sizes.test)[sizes.calibration :]

    def words_read(outputs: Array, _dense: Array) -> float:
        read = [text.decode(rows, alphabet) for rows in outputs]
        return 100.0 * sum(a == b for a, b in zip(read, expected, strict=True)) / len(expected)

    return Task(
        name=name, group=name, model=model, case=case, judge=words_read, meaning="words read, %"
    )


def _pages(name: str) -> Task:
    model = from_corpus("ppocr-det.onnx")
    return Task(
        name=name,
        group=name,
        model=model,
        case=text.detection(model, _sizes(dear_calibration=8, dear_test=16)),
        judge=lambda outputs, dense: overlap(dense, outputs, 0.5),
        meaning="text pixels as dense, %",
    )


def _detector(name: str) -> Task:
    """Return the parts of a YOLOv8n with made-up weights: to compare times and errors by."""
    model = from_repository("corpus", f"{name}.script.onnx", "tools/make_zoo.py")
    return Task(
        name=name,
        group=name,
        model=model,
        case=noise.made_up(model, _sizes(dear_calibration=64, dear_test=32)),
        judge=lambda outputs, dense: mean_cosine(
            *(x.reshape(len(x), -1) for x in (outputs, dense))
        ),
        meaning="mean cosine",
    )


_BUILDERS: Final[dict[str, Callable[[str], Task]]] = {
    **{f"digits-mlp-{seed}": _digits for seed in range(3)},
    **{f"digits-cnn-{seed}": _digits for seed in range(3)},
    "resnet20": _resnet,
    "resnet20-int8": _resnet_int8,
    "efficientnet-lite0": _efficientnet,
    "minilm-l6": _sentences,
    "ppocr-rec": _words,
    "ppocr-det": _pages,
    "zoo-c2f": _detector,
}
GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "digits-mlp": tuple(f"digits-mlp-{seed}" for seed in range(3)),
    "digits-cnn": tuple(f"digits-cnn-{seed}" for seed in range(3)),
    **{name: (name,) for name in _BUILDERS if not name.startswith("digits")},
}
"""By the name in the tables, the tasks whose mean is shown."""
