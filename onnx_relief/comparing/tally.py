"""What a comparison of two models counts, batch by batch, and how sure it is of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onnx_relief.comparing.gap import Gap
from onnx_relief.comparing.metrics import METRICS, Array, beside_dense, decisions, is_text
from onnx_relief.data import Batch, Dataset
from onnx_relief.errors import SettingsError
from onnx_relief.results import Evaluation, OutputDifference
from onnx_relief.tensors import is_float

Outputs = Mapping[str, Any]
_FEWEST_OF_ONE_KIND: Final = 8
"""Fewer samples may well be of one kind."""


@dataclass(frozen=True)
class Choice:
    """Which metric looks at which output.

    Attributes:
        metric: Name in `METRICS`.
        output: The output's name.
        each: Whether every number of it is a share for itself. The labels that either model finds
            (above 0.5) are what is decided then (Jaccard's index): most places of a detector are
            empty, and a model that finds nothing would agree on these.
        steps: Whether the last of three axes holds classes.
    """

    metric: str
    output: str
    each: bool = False
    steps: bool = False


@dataclass(eq=False)
class Tally:
    """What has been counted so far."""

    choice: Choice
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # what outputs join
    hits: list[int] = field(default_factory=lambda: [0, 0])
    judged: int = 0
    apart: int = 0
    alone: bool = True  # whether every decision is that of another sample
    decided: Array | None = None  # the dense model's, as long as it is the same for all samples
    highest: int = -1
    classes: int = 0
    samples: int = 0
    gaps: dict[str, Gap] = field(default_factory=dict)
    reshaped: dict[str, str] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)

    def add(self, dense: Outputs, pruned: Outputs, batch: Batch) -> None:
        """Take in the outputs of both models for one batch."""
        self.samples += batch.count
        self.notes |= dict.fromkeys(odd_outputs(dense, judged=self.choice.output))
        for name, first in dense.items():
            second = pruned[name]
            if not (is_array(first) and is_array(second)):
                continue
            if first.shape != second.shape:
                self.reshaped.setdefault(name, f"from {first.shape} to {second.shape}")
                continue
            self.gaps.setdefault(name, Gap(name)).add(first, second, batch.count)
        self._judge(dense[self.choice.output], pruned[self.choice.output], batch)

    def _judge(self, dense: Array, pruned: Array, batch: Batch) -> None:
        if METRICS[self.choice.metric].hits is not None:
            first, second = (hits_of(self.choice, output, batch) for output in (dense, pruned))
            self.hits[0] += int(first.sum())
            self.hits[1] += int(second.sum())
            self.apart += int((first != second).sum())
            self.judged += batch.count
            self.highest = max(self.highest, highest_label(batch))
            self.classes = class_count(dense)
        elif self.choice.metric == "agreement":
            if dense.shape != pruned.shape:
                self.choice = Choice(beside_dense(dense, batch.count), self.choice.output)
                return
            each, steps = self.choice.each, self.choice.steps
            one = decisions(dense, each=each, steps=steps)
            # What the dense model's outputs are says what those of the pruned one are.
            steps = steps or (one is not None and one.ndim < dense.ndim)
            other = decisions(pruned, each=each, steps=steps, shares=True)
            if one is None or other is None:
                other_metric = beside_dense(dense, batch.count)
                self.choice = Choice(other_metric, self.choice.output)
                note = f"output {self.choice.output!r} is not always a decision; {other_metric}"
                self.notes[f"{note} is used"] = None
                return
            same = np.asarray(one == other)
            self.alone &= same.size == batch.count
            if self.alone:
                self._note_decided(one.reshape(-1))
            if each and same.ndim in (2, 3) and same.shape[-1] > 1:  # else it is yes or no
                same = same[one | other]
            self.hits[1] += int(same.sum())
            self.apart += int((~same).sum())
            self.judged += same.size

    def _note_decided(self, decided: Array) -> None:
        first = decided[:1] if self.judged == 0 else self.decided
        same = first is not None and bool((decided == first).all())
        self.decided = first if same else None

    @property
    def _net(self) -> int:
        """How many more samples count for one model than for the other."""
        agreed = METRICS[self.choice.metric].hits is None
        return self.apart if agreed else self.hits[0] - self.hits[1]

    def finish(self, data: Dataset) -> Evaluation:
        """Return the comparison over all batches."""
        gaps = {name: gap.finish() for name, gap in self.gaps.items()}
        self.notes |= dict.fromkeys(
            f"output {name!r} changes its shape, {how}, so it is not compared"
            for name, how in self.reshaped.items()
        )
        self.notes |= dict.fromkeys(_about_gaps(gaps.values()))
        self.notes |= dict.fromkeys(doubtful_classes(data, self.classes, self.highest))
        self.notes |= dict.fromkeys(self._about_sameness())
        metric, chosen = self.choice.metric, gaps.get(self.choice.output)
        if metric == "agreement" and not self.judged:
            metric = "error" if chosen is None or chosen.cosine is None else "cosine"
            note = f"no label of output {self.choice.output!r} reaches 0.5 on this data"
            self.notes[f"{note}; {metric} is used"] = None
        scores: list[float | None] = [None, None]
        counted = self.judged > 0 and metric in ("accuracy", "top5", "agreement")
        if counted:
            scores = [100 * hits / self.judged for hits in self.hits]
        elif chosen is not None:
            scores[1] = self._farthest(metric, chosen, gaps)
        return Evaluation(
            metric=metric,
            unit=METRICS[metric].unit,
            output=self.choice.output,
            dense=scores[0] if METRICS[metric].hits else None,
            pruned=scores[1],
            samples=self.samples,
            data=data.description,
            margin=margin(self.apart, self._net, self.judged) if counted and self.alone else None,
            differences=tuple(self._named(gap) for gap in gaps.values()),
            notes=tuple(self.notes),
        )

    def _about_sameness(self) -> Iterator[str]:
        """Say so where the dense model answers every sample alike: any constant would do as well.

        Copies of one picture, and pictures that are not prepared as the model expects, look so.
        """
        name, chosen = self.choice.output, self.gaps.get(self.choice.output)
        if self.samples < _FEWEST_OF_ONE_KIND:
            return
        if chosen is not None and chosen.is_constant():
            what = f"gives the same {name!r}"
        elif self.alone and self.decided is not None:
            what = f"decides the same by {name!r}"
        else:
            return
        yield (
            f"the dense model {what} for all {self.samples:,} samples, so a comparison says little "
            "of others: give samples that differ, prepared as the model expects"
        )

    def _farthest(
        self, metric: str, chosen: OutputDifference, gaps: Mapping[str, OutputDifference]
    ) -> float | None:
        """Return cosine or error of an output, or of the worst of the tensors that it joins.

        A part that is silent in the dense model, or has no angle, only counts within the whole.
        """

        def score(gap: OutputDifference) -> float | None:
            silent = gap.relative_error is None
            return None if silent else gap.cosine if metric == "cosine" else gap.unexplained

        joined = [gaps[name] for name in self.parts.get(chosen.output, ()) if name in gaps]
        known = {
            one.output: value for one in (chosen, *joined) if (value := score(one)) is not None
        }
        if not known:
            return chosen.cosine if metric == "cosine" else chosen.unexplained
        pick = min if metric == "cosine" else max
        worst = pick(known, key=lambda name: known[name])
        if known[worst] != known.get(chosen.output):
            what = f"output {chosen.output!r} joins {len(joined)} tensors"
            self.notes[f"{what}; {metric} is that of {worst!r}, the farthest off"] = None
        return known[worst]

    def _named(self, gap: OutputDifference) -> OutputDifference:
        """Return a difference under its output's name, where it is that of a part."""
        whole = next((name for name, parts in self.parts.items() if gap.output in parts), None)
        return gap if whole is None else replace(gap, output=f"{whole}, part {gap.output}")


def margin(apart: int, net: int, samples: int) -> float:
    """Return half of the 95 % confidence interval of the difference of two shares, in points.

    Both shares are of the same samples, b of which count for the first model only and c for the
    second only: the variance of the difference of paired proportions is (b + c - (b - c)^2 / n) /
    n^2. Half a sample is added to each of the four kinds there are, so that it is not zero where no
    sample is apart (Agresti and Min 2005).

    Args:
        apart: b + c.
        net: b - c; of an agreement, where all that is apart counts for one side, b + c.
        samples: n.

    >>> [round(margin(apart, net, 100), 1) for apart, net in ((0, 0), (40, 40), (40, 0))]
    [1.9, 9.7, 12.3]
    """
    number = samples + 2
    return float(196 / number * np.sqrt(apart + 1 - net**2 / number))


def hits_of(choice: Choice, output: object, batch: Batch) -> NDArray[np.bool_]:
    """Return for which samples an output hits the label.

    Raises:
        DataError: Labels and output do not belong together.
        SettingsError: The output is not what it was for the first samples.
    """
    judge = METRICS[choice.metric].hits
    assert judge is not None
    assert batch.labels is not None
    try:
        return np.asarray(judge(np.asarray(output), batch.labels), dtype=bool)
    except ValueError as reason:
        raise SettingsError(
            f"--metric {choice.metric} does not suit output {choice.output!r} on all samples: "
            f"{reason}; choose another one with --output or --metric"
        ) from reason


def highest_label(batch: Batch) -> int:
    """Return the highest label of a batch, -1 without labels."""
    return -1 if batch.labels is None else int(batch.labels.max(initial=-1))


def class_count(output: Array) -> int:
    """Return how many scores an output gives for each sample."""
    return int(output.size // max(1, len(output)))


def doubtful_classes(data: Dataset, classes: int, highest: int) -> Iterator[str]:
    """Say so where labels 0, 1, ... were counted off, but stop before the model's classes do.

    Folders of three of a model's ten classes are 0, 1 and 2, whatever the model calls them.
    """
    known = data.source.class_count
    if highest < known < classes:
        yield (
            f"{data.name} has {known} class{'' if known == 1 else 'es'}, but the output tells "
            f"{classes} apart: label 0 has to be its first class, and so on (folders are counted "
            "by name, so add an empty folder for every class that is missing)"
        )


def count_nan(output: Array) -> int:
    """Return how many numbers of an output are NaN; text and class numbers have none."""
    if not is_float(output.dtype):
        return 0
    return int(np.count_nonzero(np.isnan(np.asarray(output, dtype=np.float64))))


def about_nan(output: str, model: str, count: int) -> Iterator[str]:
    """Say how many numbers of an output are none."""
    if count:
        yield f"output {output!r} of the {model} holds {count:,} NaN on this data"


def _about_gaps(gaps: Iterable[OutputDifference]) -> Iterator[str]:
    """Say what the outputs hold that is no number; of the pruned model where it has more of it."""
    for gap in gaps:
        yield from about_nan(gap.output, "dense model", gap.nan_dense)
        if gap.nan_pruned > gap.nan_dense:
            yield from about_nan(gap.output, "pruned model", gap.nan_pruned)
        elif gap.broken:
            yield (
                f"output {gap.output!r} of the pruned model is infinite or NaN in {gap.broken:,} "
                "places where the dense model's is a number"
            )


def odd_outputs(results: Outputs, *, judged: str) -> Iterator[str]:
    """Say of every output but one that is no array of numbers that it is not compared."""
    for name, value in results.items():
        if name != judged and not is_array(value):
            kind = "text" if is_text(value) else "a sequence or map"
            yield f"output {name!r} is {kind}, so it is not compared"


def is_array(value: object) -> bool:
    """Whether an output is an array of real numbers."""
    if not isinstance(value, np.ndarray) or value.dtype.kind in "OUSc":
        return False
    return value.dtype.kind in "biu" or is_float(value.dtype)
