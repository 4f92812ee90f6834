"""How often the weights of every layer are applied per sample, learnt from one run of the model.

That depends on the size of the data, not on its values. Where there is no data, a run on made-up
values of the right shapes tells the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_relief.data import Batch, Dataset
from onnx_relief.data.batch import Array, first_sample
from onnx_relief.errors import ReliefError, SettingsError
from onnx_relief.graph.layers import Survey
from onnx_relief.measuring.measure import measure
from onnx_relief.settings import Settings
from onnx_relief.tensors import TensorSpec


@dataclass(frozen=True)
class Positions:
    """By layer how often its weights are applied per sample, and why that is not known for all."""

    by_layer: Mapping[str, float]
    reason: str | None = None


def positions_on_data(survey: Survey, data: Dataset, provider: str) -> Positions:
    """Return what one sample of `data` shows."""
    try:
        return _run(survey, first_sample(data), provider)
    except ReliefError as error:
        return Positions({}, str(error))


def positions_on_shapes(
    survey: Survey,
    inputs: Sequence[TensorSpec],
    shapes: Mapping[str, tuple[int, ...]],
    provider: str,
) -> Positions:
    """Return what made-up values show; a free first axis is taken as one sample.

    Args:
        survey: The model.
        inputs: What it takes.
        shapes: By input, the shape that --shape gave it.
        provider: Execution provider of ONNX Runtime.

    Raises:
        SettingsError: A shape does not fit its input.
    """
    check_shapes(inputs, shapes)
    sizes = {spec.name: shape_of(spec, shapes.get(spec.name)) for spec in inputs}
    unknown = [name for name, shape in sizes.items() if shape is None]
    if unknown:
        return Positions({}, f"needs {shapes_to_give(inputs, unknown)}")
    problem = "the model takes no inputs"
    # Ones first: zeros make models that normalise divide by zero, but some tables are short.
    for value in (1, 0):
        feed = _made_up(inputs, sizes, value)
        if feed is None:
            return Positions({}, "an input has a type that cannot be made up; give data")
        try:
            return _run(survey, Batch(feed=feed, labels=None, count=_samples(feed)), provider)
        except ReliefError as error:
            problem = str(error)
    return Positions({}, f"the model does not run on made-up values ({problem})")


def shapes_to_give(inputs: Sequence[TensorSpec], names: Sequence[str]) -> str:
    """Return the flags that say how large some inputs are, with N for every free size."""
    flags = []
    for spec in inputs:
        if spec.name in names:
            sizes = (str(one) if isinstance(one, int) else "N" for one in spec.shape or ())
            flags.append(f"--shape {spec.name}={'x'.join(sizes) or '...'}")
    return " ".join(flags)


def check_shapes(inputs: Sequence[TensorSpec], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a shape of what the model does not take: it is a typing mistake.

    Raises:
        SettingsError: Naming it and what there is.
    """
    known = [spec.name for spec in inputs]
    for name in shapes:
        if name not in known:
            raise SettingsError(
                f"--shape names no input {name!r}; the model takes {', '.join(map(repr, known))}"
            )


def shape_of(spec: TensorSpec, asked: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Return the shape to feed: what was asked, else fixed sizes with a free first axis as 1.

    Raises:
        SettingsError: What was asked does not fit.
    """
    if asked is not None:
        fixed = spec.shape if spec.shape is not None else (None,) * len(asked)
        if len(asked) != len(fixed) or any(
            isinstance(size, int) and size != given
            for size, given in zip(fixed, asked, strict=True)
        ):
            raise SettingsError(
                f"--shape {spec.name}={'x'.join(map(str, asked))} does not fit the input, which is "
                f"{spec.describe()}"
            )
        return asked
    if spec.shape is None:
        return None
    sizes = [1 if axis == 0 and not isinstance(s, int) else s for axis, s in enumerate(spec.shape)]
    return None if any(not isinstance(size, int) for size in sizes) else tuple(map(int, sizes))  # type: ignore[arg-type]


def made_up_feed(
    inputs: Sequence[TensorSpec], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Array] | None:
    """Return ones of the right shapes; None where a size is free or a type is no number.

    Raises:
        SettingsError: A shape of `shapes` does not fit its input.
    """
    return _made_up(
        inputs, {spec.name: shape_of(spec, shapes.get(spec.name)) for spec in inputs}, 1
    )


def _made_up(
    inputs: Sequence[TensorSpec], sizes: Mapping[str, tuple[int, ...] | None], value: int
) -> dict[str, Array] | None:
    feed: dict[str, Array] = {}
    for spec in inputs:
        shape = sizes[spec.name]
        if spec.dtype is None or spec.dtype.kind in "OUS" or shape is None:
            return None
        feed[spec.name] = np.full(shape, value, dtype=spec.dtype)
    return feed


def _samples(feed: Mapping[str, Array]) -> int:
    """Return the length of the first axis, where all inputs agree on it."""
    lengths = {len(array) for array in feed.values() if array.ndim}
    return max(1, lengths.pop()) if len(lengths) == 1 else 1


def _run(survey: Survey, batch: Batch, provider: str) -> Positions:
    # The cheapest statistics that there are: only the sizes that come with them are wanted.
    settings = Settings(provider=provider)
    measured = measure(survey, survey.sites, [batch], settings, brief=survey.sites)
    found = {name: activity.positions for name, activity in measured.activities.items()}
    reason = next(iter(measured.unobserved.values()), None)
    return Positions(found, reason)
