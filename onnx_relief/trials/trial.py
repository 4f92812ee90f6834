"""One trial: prune one part of a model alone, and see how much the model loses by it.

A bench is all that a trial needs, as a value that can be sent to another process or machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from onnx_relief.analysis import DENSE, TrialRow
from onnx_relief.budgeting.fields import Choice, Field
from onnx_relief.budgeting.spending import Fields, written
from onnx_relief.comparing.divergence import Divergence, open_probe
from onnx_relief.comparing.evaluation import try_out
from onnx_relief.comparing.judge import Judge
from onnx_relief.comparing.surprise import Surprise
from onnx_relief.data import Dataset
from onnx_relief.errors import UnsupportedError
from onnx_relief.graph.document import Document
from onnx_relief.runtime import threads_per_session
from onnx_relief.settings import DEFAULT_MEMORY

DIVERGENCE: Final = "divergence"
KL: Final = "kl"
OWN_METRICS: Final = (DIVERGENCE, KL)
PROBED: Final = 128
"""Samples on which outputs are compared with the dense model's."""
_FARTHEST = 1e9
"""The distance of outputs that are no numbers any more."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Task:
    """What to try.

    Attributes:
        kind: As in `TrialRow`.
        name: As in `TrialRow`.
        sparsity: The share that is to go.
        fields: Which of the bench's fields are pruned, by number.
        document: The pruned model, where it is not made from fields.
        kept: The share of it that stays, where it is not made from fields.
    """

    kind: str
    name: str
    sparsity: float
    fields: tuple[int, ...] = ()
    document: Document | None = None
    kept: float = 1.0


Tasks = Iterable[Task]
Runner = Callable[["Bench", Tasks], Iterator[TrialRow]]
"""Tries tasks in any order and yields what they showed as soon as it is known."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Bench:
    """All that a trial needs.

    Attributes:
        dense: The dense model.
        fields: Its layers; None where only channels are tried.
        data: What pruned models are judged on.
        metric: Name of the metric; `DIVERGENCE` and `KL` are among them here.
        output: The output that the metric looks at; None for the first that suits it.
        batch_size: Samples per run.
        memory: Bytes that answers may take, about.
        provider: Execution provider of ONNX Runtime.
    """

    dense: Document
    fields: Fields | None
    data: Dataset
    metric: str
    output: str | None = None
    batch_size: int = 16
    memory: int = DEFAULT_MEMORY
    provider: str = "auto"

    def row(self, task: Task) -> TrialRow:
        """Try a task, with one thread, and return what it showed.

        Raises:
            ModelError, DataError, SettingsError: The pruned model cannot be judged.
        """
        with threads_per_session(1):
            document, kept = self._made(task)
            return TrialRow(
                kind=task.kind,
                name=task.name,
                sparsity=task.sparsity,
                kept=kept,
                score=self._score(document),
                distance=None if self._probe is None else _number(self._probe.of(document)),
            )

    def check(self) -> None:
        """Find out before any long work whether the dense model can be judged.

        Raises:
            SettingsError: The metric does not suit the model or its data.
        """
        with threads_per_session(1):
            if self.metric == DIVERGENCE and self._probe is None:
                what = "no output" if self.output is None else f"no output {self.output!r}"
                raise UnsupportedError(
                    f"{self.dense.name} has {what} of real numbers that can be compared one by "
                    "one; use --metric agreement"
                )
            if self.metric == KL:
                assert self._surprise is not None
            if self.metric not in OWN_METRICS:
                try_out(
                    self.dense,
                    self.data,
                    metric=self.metric,
                    output=self.output,
                    provider=self.provider,
                )

    def _made(self, task: Task) -> tuple[Document, float]:
        if task.kind == DENSE:
            return self.dense, 1.0
        if task.document is not None:
            return task.document, task.kept
        assert self.fields is not None
        choices = {}
        for number in task.fields:
            field = self.fields.fields[number]
            choices[field] = _choice(field, 1 - task.sparsity)
        kept = [np.broadcast_to(c.keep, f.shape).sum() for f, c in choices.items()]
        return written(self.fields, choices), float(
            sum(kept) / sum(np.prod(field.shape) for field in choices)
        )

    def _score(self, document: Document) -> float | None:
        if self.metric == DIVERGENCE:
            return None if self._probe is None else _number(self._probe.of(document))
        if self.metric == KL:
            return _number(self._surprise.of(document))
        value = self._judge.score(document).value
        return float(value) if np.isfinite(value) else None

    @cached_property
    def _judge(self) -> Judge:
        return Judge(
            data=self.data,
            dense=self.dense,
            metric=self.metric,
            output=self.output,
            batch_size=self.batch_size,
            provider=self.provider,
        )

    @cached_property
    def _probe(self) -> Divergence | None:
        return open_probe(
            self.dense,
            self.data.take(PROBED),
            batch_size=self.batch_size,
            output=self.output if self.metric == DIVERGENCE else None,
            memory=self.memory,
            provider=self.provider,
        )

    @cached_property
    def _surprise(self) -> Surprise:
        return Surprise(
            self.dense,
            self.data.take(PROBED),
            batch_size=self.batch_size,
            provider=self.provider,
            output=self.output,
        )


def in_this_process(bench: Bench, tasks: Tasks) -> Iterator[TrialRow]:
    """Try one task after the other."""
    for task in tasks:
        yield bench.row(task)


def _choice(field: Field, share: float) -> Choice:
    """Return what a field keeps of its blocks; no unit is cut off."""
    least = min(field.least, field.blocks)
    return field.choose(max(round(share * field.blocks), least))


def _number(distance: float) -> float:
    return min(distance, _FARTHEST)
