"""Models over the same samples again and again, each time from where they were left.

Refitting goes through a model layer by layer, and every layer is to see what those before it give
now. These do not change any more, so what later layers read of them is kept where there is room,
and the next layers start from there instead of from the model's inputs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_relief.data import Batch, Dataset
from onnx_relief.graph.document import Document, input_specs
from onnx_relief.graph.light import node_reads
from onnx_relief.measuring.measure import full_batches
from onnx_relief.runtime import Session, open_at

Array = NDArray[Any]
Tensors = Mapping[str, Array]


@dataclass(frozen=True)
class Stretch:
    """A model from some of its tensors to others.

    Attributes:
        wanted: What it gives.
        given: What the session is fed.
        session: Runs the nodes between them; None where there are none.
    """

    wanted: tuple[str, ...]
    given: tuple[str, ...]
    session: Session | None

    def run(self, known: Tensors) -> dict[str, Array]:
        """Return what is wanted, from what is known."""
        made = {name: known[name] for name in self.wanted if name in known}
        if self.session is not None:
            missing = [name for name in self.wanted if name not in known]
            made |= self.session.run({name: known[name] for name in self.given}, missing)
        return made


class Relay:
    """Models over the same batches of samples: the one to repair, and mostly the dense one.

    What is kept of each takes `budget` bytes at most; where that is too little, models start
    further back, at worst from the samples themselves, which are then read anew each time.

    Attributes:
        counts: Samples of each batch.
        batch_size: Of the first one, and of all but the last.
    """

    def __init__(
        self, data: Dataset, *, batch_size: int, budget: int, provider: str, models: int = 2
    ) -> None:
        self._data, self._budget, self._provider = data, budget, provider
        self._asked = batch_size
        self.counts = tuple(batch.count for batch in full_batches(data, batch_size))
        self.batch_size = self.counts[0]
        self._kept: list[list[Tensors] | None] = [None] * models

    def go_on(self, models: Sequence[Document], ahead: Sequence[Collection[str]]) -> None:
        """Go as far as the models can without what is still to change.

        Args:
            models: The model to repair and the others.
            ahead: Of each, what the layers make that are still to be repaired.

        Raises:
            ModelError, DataError: A model cannot be run on the data.
        """
        for place, (model, names) in enumerate(zip(models, ahead, strict=True)):
            kept = self._kept[place]
            stretch = self._stretch(place, model, frontier(model.proto.graph, names))
            sizes, reached = 0, list[Tensors]()
            known = kept if kept is not None else (batch.feed for batch in self._batches())
            for number, tensors in enumerate(known):
                made = stretch.run(tensors)
                if not all(isinstance(value, np.ndarray) for value in made.values()):
                    break  # a sequence, say, which cannot be fed again
                sizes += sum(value.nbytes for value in made.values())
                if sizes / (number + 1) * len(self.counts) > self._budget:
                    break
                reached.append(made)
            else:
                self._kept[place] = reached

    def walk(
        self,
        models: Sequence[Document],
        wanted: Sequence[Sequence[str]],
        samples: int | None = None,
    ) -> Iterator[list[dict[str, Array]]]:
        """Yield what the models give at some tensors, batch by batch.

        Args:
            models: The model to repair and the others; what was passed is as it was.
            wanted: Names of tensors of each.
            samples: About so many are enough; the batches are spread evenly over all of them.
                None for all.

        Raises:
            ModelError, DataError: A model cannot be run on the data.
        """
        stretches = [
            self._stretch(place, model, names)
            for place, (model, names) in enumerate(zip(models, wanted, strict=True))
        ]
        few = len(self.counts)
        if samples is not None:
            few = min(few, ceil(samples / self.batch_size))
        chosen = set(np.linspace(0, len(self.counts) - 1, few).round().astype(int).tolist())
        feeds = self._batches() if None in self._kept else [None] * len(self.counts)
        for number, batch in enumerate(feeds):
            if number not in chosen:
                continue
            known = [
                kept[number] if kept is not None else batch.feed if batch is not None else {}
                for kept in self._kept
            ]
            yield [stretch.run(one) for stretch, one in zip(stretches, known, strict=True)]

    def _batches(self) -> Iterator[Batch]:
        return full_batches(self._data, self._asked)

    def _stretch(self, place: int, model: Document, wanted: Sequence[str]) -> Stretch:
        kept = self._kept[place]
        if kept is not None:
            return between(model, kept[0], wanted, provider=self._provider)
        fed = [spec.name for spec in input_specs(model.proto)]
        missing = [name for name in wanted if name not in fed]
        session = open_at(model, missing, provider=self._provider) if missing else None
        return Stretch(tuple(wanted), tuple(fed), session)


def frontier(graph: onnx.GraphProto, ahead: Collection[str]) -> list[str]:
    """Return the tensors behind, from which all that is ahead can be computed.

    What depends on no input is not among them: it stays in the model, where the runtime folds it.

    Args:
        graph: The main graph, in order.
        ahead: Tensors that are still to change.
    """
    constant = {tensor.name for tensor in graph.initializer}
    varying = {value.name for value in graph.input} - constant
    beyond: set[str] = set()
    found: dict[str, None] = {}
    for node in graph.node:
        read = node_reads(node)
        if not beyond.isdisjoint(read) or not set(ahead).isdisjoint(node.output):
            beyond.update(node.output)
            found |= dict.fromkeys(name for name in read if name in varying - beyond)
        if not varying.isdisjoint(read):
            varying.update(node.output)
    return list(found)


def between(model: Document, known: Tensors, wanted: Sequence[str], *, provider: str) -> Stretch:
    """Return the stretch from what is known to what is wanted.

    Raises:
        ModelError: The runtime refuses it.
    """
    graph = model.proto.graph
    needed = set(wanted) - known.keys()
    if not needed:
        return Stretch(tuple(wanted), (), None)
    nodes, given = [], set[str]()
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            nodes.append(node)
            given.update(name for name in node_reads(node) if name in known)
            needed.update(name for name in node_reads(node) if name not in known)
    cut = onnx.ModelProto(ir_version=model.proto.ir_version)
    cut.opset_import.extend(model.proto.opset_import)
    cut.functions.extend(model.proto.functions)
    cut.graph.name = graph.name
    cut.graph.node.extend(reversed(nodes))
    for tensors, held in (
        (cut.graph.initializer, graph.initializer),
        (cut.graph.sparse_initializer, graph.sparse_initializer),
    ):
        names = [one.name if isinstance(one, onnx.TensorProto) else one.values.name for one in held]
        tensors.extend(one for one, name in zip(held, names, strict=True) if name in needed)
    said = {value.name: value for value in graph.value_info}
    cut.graph.value_info.extend(
        said[name] for node in nodes for name in node.output if name in said
    )
    for name in sorted(given):
        kind = onnx.helper.np_dtype_to_tensor_dtype(known[name].dtype)
        cut.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, None))
    missing = [name for name in wanted if name not in known]
    session = open_at(replace(model, proto=cut), missing, provider=provider)
    return Stretch(tuple(wanted), tuple(sorted(given)), session)
