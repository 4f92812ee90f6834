"""What labels say of the outputs of a model that they belong to."""

from __future__ import annotations

from collections.abc import Mapping

from onnx_relief.data.batch import Dataset
from onnx_relief.data.samples import SampleSource


def classes_of(data: Dataset) -> int | None:
    """Return how many classes the labels name, 0 among them, if that is known without reading.

    All samples that there are count, so that every part of them says the same.
    """
    source = data.source
    if not isinstance(source, SampleSource) or source.labels is None:
        return None
    return max(int(source.labels.max(initial=-1)) + 1, source.class_count)


def output_of_labels(classes: Mapping[str, int], wanted: int | None) -> str:
    """Return which of the outputs that suit labels is the one that they belong to.

    It is the first, unless another one, and no third, tells as many classes apart as there are: of
    an embedding and scores labels belong to the scores.

    Args:
        classes: How many classes each output tells apart, by name, in order; 0 where that is
            not known. At least one.
        wanted: How many classes the labels name; None where that is not known.

    >>> output_of_labels({"embedding": 20, "scores": 4}, 4)
    'scores'
    """
    first = next(iter(classes))
    matching = [name for name, count in classes.items() if count == wanted]
    return matching[0] if classes[first] and len(matching) == 1 else first
