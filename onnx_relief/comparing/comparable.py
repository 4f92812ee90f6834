"""Which outputs of a model can be compared with those of another, element by element.

An output whose length hangs on the data (detections that were found, words that were read) has
other elements in another model, or none: a difference of such elements says nothing about either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_relief.data import Batch
from onnx_relief.graph.document import Document
from onnx_relief.graph.endings import joined_parts, scores_behind
from onnx_relief.graph.taps import with_outputs
from onnx_relief.runtime import Session
from onnx_relief.tensors import is_float

Array = NDArray[Any]


def taken_apart(document: Document) -> Document:
    """Return the model with the outputs by which it can be told from others."""
    given = [value.name for value in document.proto.graph.output]
    judged = judged_tensors(document)
    if judged == given:
        return document
    return with_outputs(document, dict.fromkeys(judged, 0), without=set(given) - set(judged))


def judged_tensors(document: Document) -> list[str]:
    """Return the tensors by which a model can be told from others of its kind.

    These are its outputs, but where one joins several tensors these tensors, and where the model
    only decides the scores behind its decisions, too.
    """
    parts = joined_parts(document.proto)
    given = [value.name for value in document.proto.graph.output]
    judged = [part for name in given for part in parts.get(name, (name,))]
    return list(dict.fromkeys((*judged, *scores_behind(document.proto))))


def comparable_outputs(session: Session, batches: Iterable[Batch]) -> tuple[str, ...]:
    """Return the outputs of real numbers whose shapes follow from the shapes that are fed.

    One that is nothing but zeros here, like an alarm that never went off, has no size by which
    a difference could be large or small.

    Args:
        session: The dense model.
        batches: What it is run on; feeds of one shape tell whether an output keeps its own.

    Raises:
        ModelError: It cannot be run.
    """
    shapes: dict[tuple[object, ...], dict[str, tuple[int, ...]]] = {}
    says: dict[str, bool] = {}
    changing = set()
    for batch in batches:
        fed = tuple((name, np.shape(array)) for name, array in sorted(batch.feed.items()))
        known = shapes.setdefault(fed, {})
        for name, array in real_outputs(session.run(batch.feed)).items():
            says[name] = says.get(name, False) or bool((np.isfinite(array) & (array != 0)).any())
            if known.setdefault(name, array.shape) != array.shape:
                changing.add(name)
    return tuple(name for name in says if says[name] and name not in changing)


def real_outputs(results: Mapping[str, Any]) -> dict[str, Array]:
    """Return the outputs that hold real numbers."""
    return {
        name: array
        for name, array in results.items()
        if isinstance(array, np.ndarray) and is_float(array.dtype)
    }


def like(answer: Array, found: Array | None) -> Array:
    """Return what was found in place of an answer; silence where it has another shape or type.

    So it counts as an output that says nothing any more, whatever the other batches hold.
    """
    fits = found is not None and is_float(found.dtype) and found.shape == answer.shape
    return found if found is not None and fits else np.zeros(answer.shape, answer.dtype)
