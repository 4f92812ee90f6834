"""Cut dead and unread channels out of a model, again and again, until there are none.

Nothing here runs the result: `onnx_relief.compaction.compact` proves it equal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_relief.errors import SettingsError
from onnx_relief.graph import external
from onnx_relief.graph.channels import RULES, cut, trace_channels
from onnx_relief.graph.channels.dead import removable
from onnx_relief.graph.channels.ids import STAYS
from onnx_relief.graph.channels.joins import without_idle_branches
from onnx_relief.graph.channels.mean_signal import (
    add_after,
    corrections,
    give_back,
    why_not_exact,
)
from onnx_relief.graph.channels.merge import with_merged_constants
from onnx_relief.graph.document import Document
from onnx_relief.graph.folded import ready_to_cut
from onnx_relief.graph.inside import brought_inside
from onnx_relief.graph.layers import find_layers
from onnx_relief.graph.orphans import drop_orphans
from onnx_relief.graph.sparse_store import store_sparse
from onnx_relief.graph.unique_names import with_old_names, with_unique_names
from onnx_relief.measuring.observe import observe
from onnx_relief.selection.rounding import Rounding

Array = NDArray[Any]
_BLOCKS = (16, 8, 4)
"""ONNX Runtime's convolutions work on blocks of channels."""
_AT_LEAST = 4
"""With fewer blocks than this, `auto` takes smaller ones: too much of the rest would stay."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Shrunk:
    """A model without dead and unread channels.

    Attributes:
        document: The smaller model; the one that was given if nothing could go.
        groups: Groups of channels that live or die together.
        removed: Those that were cut.
        joins: Sums that do not wait any more for a branch which was a constant.
        kept: Why groups stay, and how many.
        again: Whether a next step may find more.
    """

    document: Document
    groups: int
    removed: int
    joins: int
    kept: Mapping[str, int]
    again: bool = False


def how_many_stay(round_to: int | None) -> Callable[[int, Sequence[int]], int]:
    """Return how many groups of channels stay, by the number that is needed and their entries.

    For None the number fits itself: it is a multiple of 16, 8 or 4 if it is four times as much at
    least. So what was rounded once needs no more rounding.

    Raises:
        SettingsError: `round_to` is less than 1.

    >>> [how_many_stay(None)(count, [1]) for count in (3, 17, 20, 33, 70)]
    [3, 20, 20, 40, 80]
    """
    if round_to is not None and round_to < 1:
        raise SettingsError(f"--round-to must be at least 1, or auto, got {round_to}")
    multiples = _BLOCKS if round_to is None else (round_to,)

    def step_of(count: int, entries: Sequence[int]) -> int:
        steps = [Rounding(multiple=multiple).step(count, entries) for multiple in multiples]
        return next(
            (step for step in steps if count >= _AT_LEAST * step), steps[-1] if round_to else 1
        )

    def staying(needed: int, entries: Sequence[int]) -> int:
        count = needed
        while count % step_of(count, entries):
            count += 1
        return count

    return staying


def shrink(document: Document, feed: Mapping[str, Array], *, round_to: int | None = None) -> Shrunk:
    """Return the model without the channels that are dead or unread.

    Args:
        document: A masked model; it is not changed.
        feed: Inputs of the right shapes, by name.
        round_to: Of channels that live in the same axes a multiple of so many stays, some of them
            as zeros; 1 removes all, None decides by their number.

    Raises:
        SettingsError: `round_to` is less than 1.
        ModelError: The model cannot be run.
    """
    staying = how_many_stay(round_to)
    smaller, names = with_unique_names(ready_to_cut(document))
    step = first = _once(smaller, feed, staying)
    removed = joins = 0
    while step.again:
        removed, joins = removed + step.removed, joins + step.joins
        smaller = step.document
        step = _once(smaller, feed, staying)
    nothing = removed == joins == 0
    if document.proto.graph.sparse_initializer:
        smaller = store_sparse(smaller)[0]  # the form that it came in
    smaller = smaller if nothing else brought_inside(smaller)
    if nothing or bytes_of(smaller) > bytes_of(document):  # a new bias has a name, too
        return Shrunk(document=document, groups=first.groups, removed=0, joins=0, kept=step.kept)
    return Shrunk(
        document=with_old_names(smaller, names),
        groups=first.groups,
        removed=removed,
        joins=joins,
        kept=step.kept,
    )


def bytes_of(document: Document) -> int:
    """Return the size of a model as a file, with the tensors that it keeps in others."""
    outside = filter(external.is_external, external.tensors(document.proto))
    return int(document.proto.ByteSize()) + sum(external.byte_count(document, t) for t in outside)


def _once(
    document: Document,
    feed: Mapping[str, Array],
    staying: Callable[[int, Sequence[int]], int],
) -> Shrunk:
    survey = find_layers(document)
    trace, groups = trace_channels(survey.model, observe(survey, feed), RULES)
    uneven = why_not_exact(trace, survey)
    found = removable(
        trace,
        groups,
        lambda name: survey.constants.array(trace.whole.homes[name], name),
        uneven,
        staying,
    )
    roots = np.unique(np.concatenate([[STAYS], *(groups.of(m.ids) for m in trace.members)]))
    kept = Counter(groups.reasons.values()) + Counter(found.stuck)
    removed = int(found.gone[roots].sum())
    if removed:
        changes = corrections(trace, groups, found.gone, survey, found.constants, may_add=True)
        smaller = cut(give_back(document, trace, changes), trace, groups, found.gone)
        smaller = add_after(smaller, trace, groups, found.gone, changes)
        joins = merged = 0
    else:  # only now: a branch may be idle because of what went before
        smaller, joins = without_idle_branches(document, trace, found.settled)
        merged = 0
        if not joins:
            smaller, merged = with_merged_constants(
                survey, trace, groups, found.alike, found.constants, uneven
            )
    return Shrunk(
        document=drop_orphans(smaller, document),
        groups=len(roots) - 1,
        removed=removed,
        joins=joins,
        kept=kept,
        again=bool(removed or joins or merged),
    )
