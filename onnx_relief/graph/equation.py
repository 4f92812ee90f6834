"""The equation of an Einsum: a letter for every axis, three dots for those that have none.

Source: the ONNX operator specification, Einsum.
"""

from __future__ import annotations

from dataclasses import dataclass

DOTS = "..."


def terms_of(equation: str) -> tuple[list[str], str]:
    """Return the letters of every operand, and those of the output, which may be left unsaid.

    Without `->` the output has the letters that appear once, in alphabetical order.
    """
    left, arrow, out = equation.replace(" ", "").partition("->")
    if not arrow:
        every = left.replace(",", "").replace(".", "")
        out = DOTS * (DOTS in left) + "".join(x for x in sorted(set(every)) if every.count(x) < 2)
    return left.split(","), out


@dataclass(frozen=True)
class Product:
    """An Einsum of data and a weight that is a matrix, once axes are joined.

    Attributes:
        inputs: Axes of the weight that are summed over, as they lie at the end of the data.
        units: Its other axes, as they lie at the end of the output.
    """

    inputs: tuple[int, ...]
    units: tuple[int, ...]


def product_of(data: str, weight: str, out: str) -> Product | str:
    """Return what a weight does to the last axes of the data, or why it is no matrix, in words.

    Args:
        data: Letters of the operand that carries data.
        weight: Letters of the operand that is constant.
        out: Letters of the output.
    """
    if DOTS in weight:
        return "axes of its weight have no letters; name them to have it pruned"
    if any(len(set(one)) < len(one.replace(DOTS, ".")) for one in (data, weight, out)):
        return "it takes a diagonal, so a weight has no input of its own"
    if any(x in data and x in out for x in weight):
        return "it multiplies an axis of its weight by the data's entry by entry"
    if any(x not in data and x not in out for x in weight):
        return "it sums its weight up before it multiplies"
    inputs = [x for x in data if x in weight]
    units = [x for x in out if x in weight]
    if not inputs or not units:
        return f"its weight has no axis of {'units' if inputs else 'inputs'}"
    places, same = data.removesuffix("".join(inputs)), out.removesuffix("".join(units))
    if places != same or any(x in weight for x in places + same):
        return (
            "what its weight reads or gives does not come last in the data and the output, the "
            "other axes alike; transpose around it to have it pruned"
        )
    return Product(tuple(map(weight.index, inputs)), tuple(map(weight.index, units)))
