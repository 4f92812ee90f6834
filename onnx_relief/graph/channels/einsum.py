"""Einsum: a letter is an axis, and channels follow their letter.

Source: the ONNX operator specification.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from onnx_relief.graph.channels.ids import Ids, varying
from onnx_relief.graph.channels.layers import starts
from onnx_relief.graph.channels.records import Read
from onnx_relief.graph.channels.trace import NotFollowedError, Rule, Trace
from onnx_relief.graph.equation import DOTS, terms_of
from onnx_relief.graph.nodes import attributes

_SPARE = "".join(map(chr, range(0x3B1, 0x3C9)))
"""Letters for the axes that an ellipsis stands for, last axis first."""


@dataclass(frozen=True, eq=False)
class _Operand:
    """One operand: its name, a letter for each axis, and the letter that carries channels."""

    name: str
    letters: str
    carries: str
    ids: Ids


@starts
def einsum(trace: Trace, node: onnx.NodeProto) -> None:
    """Einsum: as MatMul; what is summed over or lies over each other lives or dies together."""
    *letters, out = letters_of(trace, node)
    operands = [_operand(trace, name, axes) for name, axes in zip(node.input, letters, strict=True)]
    moving = [one for one in operands if not trace.is_constant(one.name)]
    weights = [one for one in operands if trace.is_constant(one.name)]
    if len(operands) > 2 or not moving:
        raise NotFollowedError("Einsum multiplies more than two tensors, or constants only")
    carried: dict[str, Ids] = {}
    for one in moving:
        if one.carries:
            _meet(trace, one, moving, carried)
    for letter in (one for one in carried if one not in out):
        _end(trace, moving, letter, carried[letter])
    passing = {letter: ids for letter, ids in carried.items() if letter in out}
    if len(passing) > 1:
        raise NotFollowedError("Einsum makes channels along two axes")
    for one in weights:
        axes = {one.letters.index(x): ids for x, ids in carried.items() if x in one.letters}
        if any(trace.shape(one.name)[axis] != ids.size for axis, ids in axes.items()):
            raise NotFollowedError("Einsum repeats its weight")
        fresh = [x for x in out if x in one.letters and all(x not in m.letters for m in moving)]
        if fresh and not passing:
            chosen = _chosen(trace, node, fresh)
            made = trace.pool.fresh(trace.shape(one.name)[one.letters.index(chosen)])
            axes[one.letters.index(chosen)] = made
            passing[chosen] = made
        trace.constant(one.name, axes)
    for letter, ids in passing.items():
        trace.set(node.output[0], trace.along(len(out), out.index(letter), ids))


def letters_of(trace: Trace, node: onnx.NodeProto) -> list[str]:
    """Return the letters of every operand of an Einsum, and of the output.

    Raises:
        NotFollowedError: A letter stands twice in one of them.
    """
    told, out = terms_of(str(attributes(node)["equation"]))
    ranks = [len(trace.shape(name)) for name in node.input]
    spare = [
        rank - len(one) + len(DOTS) if DOTS in one else 0
        for one, rank in zip(told, ranks, strict=True)
    ]
    counts = [*spare, max(spare)]
    found = [
        one.replace(DOTS, _SPARE[:count][::-1])
        for one, count in zip([*told, out], counts, strict=True)
    ]
    if any(len(set(one)) < len(one) for one in found):
        raise NotFollowedError("Einsum takes a diagonal")
    return found


def _operand(trace: Trace, name: str, letters: str) -> _Operand:
    ids = trace.of(name)
    axes = varying(ids) if trace.carries(name) else ()
    if len(axes) > 1:
        raise NotFollowedError("Einsum multiplies channels along several axes")
    return _Operand(name, letters, letters[axes[0]] if axes else "", ids.reshape(-1))


def _meet(trace: Trace, one: _Operand, moving: list[_Operand], carried: dict[str, Ids]) -> None:
    """Tie what two tensors have along the same letter; both have to carry it."""
    for other in moving:
        if one.carries in other.letters and other.carries != one.carries:
            raise NotFollowedError(f"Einsum joins them with {other.name!r}, which stays")
        if other.carries == one.carries and other.ids.size != one.ids.size:
            raise NotFollowedError("Einsum repeats channels")
    if one.carries in carried:
        trace.pool.tie(carried[one.carries], one.ids)
    carried.setdefault(one.carries, one.ids)


def _end(trace: Trace, moving: list[_Operand], letter: str, ids: Ids) -> None:
    """Note that channels are summed over."""
    first, *others = [one for one in moving if one.carries == letter]
    if not others:
        trace.reads.append(Read(first.name, ids, trace.index))
        return
    second = others[0]
    beside = tuple(
        (first.letters.index(one) - len(first.letters), place - len(second.letters))
        for place, one in enumerate(second.letters)
        if one in first.letters and one != letter
    )
    other = (second.name, second.ids)
    trace.reads.append(Read(first.name, ids, trace.index, other=other, beside=beside))


def _chosen(trace: Trace, node: onnx.NodeProto, fresh: list[str]) -> str:
    """Return the axis of new channels: of heads and their widths the finer one by default."""
    if len(fresh) == 1:
        return fresh[0]
    return fresh[trace.split(node.output[0], len(fresh))]


RULES: dict[str, Rule] = {"Einsum": einsum}
