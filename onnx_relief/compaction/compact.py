"""Compaction: cut what is dead or unread out of a model, and prove that the rest is equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_relief.compaction.shrinking import shrink
from onnx_relief.data import Dataset, first_sample
from onnx_relief.errors import DataError, ModelError, UnsupportedError
from onnx_relief.graph.document import Document, check, input_specs
from onnx_relief.graph.layers import find_layers
from onnx_relief.graph.reach import cut_off
from onnx_relief.graph.sparse_store import store_sparse
from onnx_relief.measuring.positions import made_up_feed
from onnx_relief.result import Made
from onnx_relief.runtime import open_session

Array = NDArray[Any]
TOLERANCE = 1e-5
"""Largest difference of an element to the masked model, relative to its output's magnitude."""
_MOST_ROUNDING = 1e-3
"""Networks that amplify rounding differ from themselves; more than that is taken for a mistake."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Compacted(Made):
    """What `compact` made.

    Attributes:
        document: The smaller model.
        groups: Groups of channels that live or die together.
        removed: Those that were cut.
        joins: Sums that do not wait any more for a branch which was a constant.
        kept: Why groups stay, and how many.
        difference: The largest difference to the masked model on the inputs that were tried.
        sparse: How many weights are stored in sparse form.
        cut_off: Outputs that the mask made the same whatever the input, and a layer without weights
            for each.
    """

    groups: int
    removed: int
    joins: int
    kept: Mapping[str, int]
    difference: float
    sparse: int = 0
    cut_off: Mapping[str, str] = field(default_factory=dict)


def compact(
    document: Document,
    feed: Mapping[str, Array],
    *,
    more_feeds: Sequence[Mapping[str, Array]] = (),
    provider: str = "auto",
    round_to: int | None = None,
    sparse: bool = False,
) -> Compacted:
    """Return a model that computes the same without the channels that are dead or unread.

    Args:
        document: A masked model; it is not changed.
        feed: Inputs of the right shapes, by name.
        more_feeds: Further inputs that both models are compared on, besides random ones.
        provider: Execution provider of ONNX Runtime.
        round_to: Keep a multiple of so many channels, some of them as zeros; 1 removes all, None
            decides by their number.
        sparse: Whether weights are stored in sparse form where that makes the file smaller.

    Raises:
        UnsupportedError: The smaller model would differ; nothing is lost, since it is not returned.
        ModelError: The model cannot be run.
    """
    found = shrink(document, feed, round_to=round_to)
    smaller, stored = store_sparse(found.document) if sparse else (found.document, 0)
    check(smaller)
    feeds = [feed, *more_feeds, *_made_from(feed)]
    return Compacted(
        document=smaller,
        groups=found.groups,
        removed=found.removed,
        joins=found.joins,
        kept=found.kept,
        difference=_checked(document, smaller, feeds, provider),
        sparse=stored,
        cut_off=cut_off(find_layers(document)),
    )


def compact_on(
    document: Document,
    data: Dataset | None,
    *,
    shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
    provider: str = "auto",
    round_to: int | None = None,
    sparse: bool = False,
) -> Compacted:
    """Return what `compact` makes on a first sample of `data`, or on made-up inputs without data.

    Args:
        document: As `compact`.
        data: Sample data.
        shapes: Without data, the shapes of inputs with free sizes.
        provider: As `compact`.
        round_to: As `compact`.
        sparse: As `compact`.

    Raises:
        DataError: There is no data and the inputs cannot be made up.
        SettingsError: A shape does not fit its input.
        UnsupportedError, ModelError: As `compact`.
    """
    if data is not None:
        feed: Mapping[str, Array] | None = first_sample(data).feed
    else:
        feed = made_up_feed(input_specs(document.proto), shapes)
    if feed is None:
        raise DataError(
            f"the inputs of {document.name} cannot be made up, so it cannot be compacted without "
            "data; give some with --eval-data"
        )
    return compact(document, feed, provider=provider, round_to=round_to, sparse=sparse)


def _checked(
    masked: Document, smaller: Document, feeds: Sequence[Mapping[str, Array]], provider: str
) -> float:
    """Return the largest relative difference of two models.

    Raises:
        UnsupportedError: It is larger than rounding explains.
    """
    sessions = [open_session(model, provider=provider) for model in (masked, smaller)]

    def fusing_explains(feed: Mapping[str, Array], name: str, gap: float) -> bool:
        """Whether the models agree when nothing is fused, or the masked one is as far from itself.

        With int8 weights ONNX Runtime may quantise what they meet, too, when it fuses.
        """
        one, other = (
            open_session(model, provider=provider, optimised=False).run(feed)[name]
            for model in (masked, smaller)
        )
        if _gap(one, other) <= TOLERANCE * _rounding(one):
            return True
        own = _gap(sessions[0].anew().run(feed)[name], one)
        return gap <= 2 * min(own, _MOST_ROUNDING)

    worst = 0.0
    for place, feed in enumerate(feeds):
        try:
            before = sessions[0].anew().run(feed)
        except ModelError:
            if place == 0:
                raise
            continue  # other numbers, or another batch, than this model takes
        try:
            after = sessions[1].anew().run(feed)
        except ModelError as error:
            raise UnsupportedError(f"{masked.name} cannot be compacted: {error}") from error
        for name, expected in before.items():
            gap = _gap(expected, after[name])
            worst = max(worst, gap)
            allowed = TOLERANCE * _rounding(expected)
            if gap > allowed and not fusing_explains(feed, name, gap):
                raise UnsupportedError(
                    f"{masked.name} cannot be compacted: output {name!r} would differ by "
                    f"{gap:.1e} of its size; please report this"
                )
    return worst


def _gap(expected: object, found: object) -> float:
    if not isinstance(expected, np.ndarray) or expected.dtype.kind not in "fiub":
        return 0.0
    if not isinstance(found, np.ndarray) or expected.shape != found.shape:
        return float("inf")
    if expected.size == 0 or np.array_equal(expected, found, equal_nan=expected.dtype.kind == "f"):
        return 0.0
    one, other = expected.astype(np.float64), found.astype(np.float64)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    largest = float(np.abs(one[np.isfinite(one)]).max(initial=1e-3))
    difference = float(np.abs(one[~same] - other[~same]).max(initial=0.0))
    return difference / largest if np.isfinite(difference) else float("inf")


def _rounding(expected: object) -> float:
    """Return how much coarser an output's type is than fp32."""
    narrow = isinstance(expected, np.ndarray) and expected.dtype.itemsize < 4
    return 1e3 if narrow else 1.0


def _made_from(feed: Mapping[str, Array]) -> list[dict[str, Array]]:
    """Return the feed with normal numbers for its floats, and a batch of two such."""
    rng = np.random.default_rng(0)
    found = []
    for copies in (1, 2):
        made = {}
        for name, array in feed.items():
            twice = np.concatenate([array] * copies) if array.ndim else array
            if array.dtype.kind == "f":
                twice = rng.standard_normal(twice.shape).astype(array.dtype)
            made[name] = twice
        found.append(made)
    return found
