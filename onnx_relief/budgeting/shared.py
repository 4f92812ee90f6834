"""Several layers that read one weight: what any of them loses counts, when some of it goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

from onnx_relief.activity.gram import Gram
from onnx_relief.agreement import equal_say, read_alike
from onnx_relief.budgeting.fields import Field
from onnx_relief.scoring.table import criterion_named
from onnx_relief.solving.support import output_error


def shared_field(fields: Sequence[Field]) -> Field:
    """Return the field of a weight, from those of the layers that read it.

    Scores are the mean of theirs. Where second moments decide, those of all layers are added up,
    each relative to what its layer gives: the loudest has no more say than others. If some read it
    otherwise, as the two sides of a tied pair, there is no such sum, and `wanda` scores instead.
    """
    first, *others = fields
    if not others:
        return first
    if not first.solves:
        return replace(first, others=tuple(others))
    if not all(one.solves and _read_alike(first, one) for one in others):
        plain = [replace(one, criterion=criterion_named("wanda")) for one in fields]
        return replace(plain[0], others=tuple(plain[1:]))
    grams = [one.gram for one in fields if one.gram is not None]
    judges = [one.judge for one in fields if one.judge is not None]
    return replace(
        first,
        gram=_together(fields, grams),
        judge=_together(fields, judges) if len(judges) == len(fields) else None,
    )


def _read_alike(one: Field, other: Field) -> bool:
    return one.part == other.part and read_alike(one.survey, one.site, other.site, part=one.part)


def _together(fields: Sequence[Field], grams: Sequence[Gram]) -> Gram:
    """Return second moments of all layers, which count as one on average."""
    weights = equal_say(
        [
            gram.count * output_error(gram.covariance(centred=False), field.split()).sum()
            for field, gram in zip(fields, grams, strict=True)
        ]
    )
    scaled = [gram.scaled(weight) for gram, weight in zip(grams, weights.tolist(), strict=True)]
    return reduce(Gram.merge, scaled)
