"""One layer as pruning to a budget sees it: what its blocks are worth, and what losing them costs.

The loss of a layer is the share of its units' outputs that goes: with `obs` the mean square change
of the outputs relative to their mean square, when the surviving weights make up for the others;
with the other criteria the mean share of a unit's score. Both do not depend on the scale of the
layer, so that folding BatchNormalization into it changes nothing about the shares.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_relief.activity.gram import Gram
from onnx_relief.agreement import as_read_by
from onnx_relief.graph.layers import Survey
from onnx_relief.graph.rows import as_read
from onnx_relief.graph.sites import Site
from onnx_relief.measuring.digest import LayerActivity
from onnx_relief.measuring.evidence import Reading
from onnx_relief.scoring.relief import relief_scores
from onnx_relief.scoring.table import Clues, Criterion
from onnx_relief.selection.allocate import RUNGS
from onnx_relief.solving.admm import Project, Singles, descend, survivors
from onnx_relief.solving.support import damped, fit_on_support, output_error, shrinkage
from onnx_relief.structures import Pattern, Structure

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
RIDGE = 1e-2
"""Added to Hessians, relative to the mean of their diagonal, as SparseGPT does."""
_HOPELESS = 0.9
"""Share of its output that a layer loses where it is not asked any further."""


@dataclass(frozen=True, eq=False)
class Choice:
    """What a layer keeps.

    Attributes:
        keep: (units, inputs, taps or 1).
        weights: New weights (units, inputs, taps), where the criterion makes up for what goes.
        shift: What the outputs should rise by, (units,), to keep their mean.
    """

    keep: Bools
    weights: Floats | None = None
    shift: Floats | None = None


@dataclass(frozen=True)
class Rung:
    """What a layer loses at one share of what it keeps, and by which choice."""

    share: float
    loss: float
    choice: Choice | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Field:
    """A layer (one weight of it), and what is known of it.

    Attributes:
        survey: The model.
        site: The layer.
        part: Which of its weights.
        criterion: What scores it.
        structure: What goes as one.
        activity: What the data showed of its inputs.
        reading: How it reads them; None where Gram matrices cannot be taken.
        gram: Second moments of the inputs, where the criterion needs them.
        judge: The same on held-out samples, which say what a choice really loses; None to take
            those of the others.
        gradient: Mean square of the gradient, where the criterion needs it.
        updates: Whether surviving weights may change.
        seed: For the criterion `random`.
        others: Layers that share the weight, whose scores count as much.
        whole: Whether all of its units stay where units go: they are outputs of the model, or each
            is the only way on for what it reads.
    """

    survey: Survey
    site: Site
    part: int
    criterion: Criterion
    structure: Structure
    activity: LayerActivity
    reading: Reading | None = None
    gram: Gram | None = None
    judge: Gram | None = None
    gradient: Floats | None = None
    updates: bool = False
    seed: int = 0
    others: tuple[Field, ...] = ()
    whole: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the scores, (units, inputs, taps)."""
        units, inputs, taps = self.site.parts[self.part].layout.rows
        return units, inputs, taps

    @property
    def blocks(self) -> int:
        """What there is to keep or to drop."""
        return self.structure.blocks(self.shape)

    @property
    def filled(self) -> int:
        """Blocks that are not zero already; at least one."""
        if self.structure.pattern is Pattern.N_OF_M:
            return self.blocks
        return max(1, int((self.structure.pooled(np.abs(self.rows())) > 0).sum()))

    @property
    def least(self) -> int:
        """Blocks that have to stay, so that no unit is cut off, or where units go, no output."""
        if self.structure.pattern is Pattern.ROW:
            return self.filled if self.whole else 1
        bands = self.structure.pooled(np.abs(self.rows()))
        return int((bands.max(axis=1) > 0).sum())

    @property
    def weights_per_block(self) -> float:
        """Weights that one block holds."""
        return float(np.prod(self.shape)) / self.blocks

    def rows(self) -> Floats:
        """Return the weights, (units, inputs, taps)."""
        return np.asarray(self.survey.rows(self.site.parts[self.part]), dtype=np.float64)

    def scores(self) -> Floats:
        """Return what every weight is worth, (units, inputs, taps or 1).

        As a share of its unit; of the layer, where units go whole and compare with each other.
        """
        own, part = self._own_scores(), self.site.parts[self.part]
        if not self.others:
            return own
        found = [own]
        for one in self.others:
            wide = np.broadcast_to(one._own_scores(), one.shape)
            theirs = as_read_by(part, one.site.parts[one.part], wide)
            found.append(theirs if own.shape[2] > 1 else theirs.mean(axis=2, keepdims=True))
        return np.asarray(np.mean(found, axis=0))

    def _own_scores(self) -> Floats:
        rows, signal = self.rows(), self.activity.signals[self.part]
        clues = Clues(
            layer=f"{self.site.layer.name}/{self.part}",
            weights=rows,
            signals=lambda: signal.of(rows, 0, len(rows)),
            mean_square=self._mean_square(),
            moment=self._moment() if self.solves else None,
            split=self.reading.split if self.reading else None,
            join=self.reading.join if self.reading else None,
            gradient=self.gradient,
            seed=self.seed,
        )
        scores = self.criterion.scores(clues)
        scores = np.where(self._filled(scores), scores, 0.0)  # zeros are worth nothing, ever
        compared = 1 if self.structure.pattern is Pattern.ROW else len(scores)
        return relief_scores(scores.reshape(compared, -1)).reshape(scores.shape)

    def ladder(self) -> Iterator[Rung]:
        """Yield what is lost at falling shares, 1 first."""
        if self.solves:
            yield from self._solved_ladder()
            return
        scores = self.scores()
        whole = float(scores.sum()) or 1.0
        for share in RUNGS:
            keep = self._full(self._ranked(scores), share)
            yield Rung(share, float(scores[~keep].sum()) / whole, Choice(keep))

    def choose(self, count: int) -> Choice:
        """Return the best choice that keeps `count` blocks."""
        if count >= self.blocks and self.structure.pattern is not Pattern.N_OF_M:
            return Choice(np.ones(self.shape, dtype=bool))
        if not self.solves:
            return Choice(self.structure.keep(self._ranked(self.scores()), count))
        split = self.split()
        share = count / self.blocks
        moment = self._moment()
        best = survivors(moment, split, share, self._projection(split), begin=self._speaking())
        return self._fitted(moment, split, best.keep, best.weights)

    def _speaking(self) -> float:
        """Return the share of blocks in which a weight that is not zero reads what changes."""
        assert self.gram is not None
        changes = np.einsum("gii->gi", self.gram.covariance(centred=self._centred)) > 0
        heard = (self.split() != 0) & changes[:, None]
        return float((self.structure.pooled(self.joined(heard)) > 0).sum() / self.blocks)

    def _ranked(self, scores: Floats) -> Floats:
        """Return scores by which zeros go first, before weights of inputs that are always zero."""
        return np.where(self._filled(scores), np.maximum(scores, np.finfo(float).tiny), 0.0)

    def _filled(self, scores: Floats) -> Bools:
        """Return where there is a weight, in the shape of its scores."""
        filled: Bools = self.rows() != 0
        if scores.shape == filled.shape:
            return filled
        return np.asarray(filled.any(axis=2, keepdims=True))

    def choose_covering(self, keep: Bools) -> Choice:
        """Return the choice that keeps just `keep`, with weights that make up for the rest."""
        if not self.solves or keep.all():
            return Choice(keep)
        assert self.reading is not None
        split = self.split()
        wide = np.broadcast_to(keep, self.shape).reshape(len(keep), -1)
        return self._fitted(self._moment(), split, self.reading.split(wide) & (split != 0))

    def moment(self, *, centred: bool) -> Floats:
        """Return the damped second moments of the inputs, (groups, d, d).

        They are shrunk as far as held-out samples say, and by `RIDGE` at least.

        Args:
            centred: Whether they are about the mean, as where the outputs' mean can be moved.
        """
        assert self.gram is not None
        moment = self.gram.covariance(centred=centred)
        if self.judge is None:
            return damped(moment, RIDGE, own_units=self._own_units)
        judge = self.judge.covariance(centred=centred)
        ridge = max(shrinkage(moment, judge, own_units=self._own_units), RIDGE)
        return damped(moment, ridge, own_units=self._own_units)

    def _moment(self) -> Floats:
        return self.moment(centred=self._centred)

    @property
    def _centred(self) -> bool:
        return self.site.bias is not None and self.updates

    @property
    def _own_units(self) -> bool:
        return self.reading is not None and self.reading.own_units

    @property
    def _has_matrix(self) -> bool:
        return self.gram is not None and self.gram.second.ndim == 3

    @property
    def solves(self) -> bool:
        """Whether surviving weights are found together with those that go."""
        return self.criterion.updates and self._has_matrix

    def _mean_square(self) -> Floats:
        """Return mean x**2 of every input, (groups, inputs, taps or 1)."""
        weight = self.site.layer.weights[self.part]
        if self.gram is None or self.reading is None:
            # What recurrent nodes and bodies show: a mean of |x|, whose square stands for it.
            signal = self.activity.signals[self.part]
            squares = np.square(signal.measured)
            if not signal.is_whole:
                return np.asarray(squares)
            # Norms of maps, where a kernel's weights are in already: over all units of a group.
            made, energy = (
                part.reshape(weight.groups, -1, weight.inputs).sum(axis=1, keepdims=True)
                for part in (squares, np.square(self.rows()).sum(axis=2))
            )
            return np.asarray((made / np.where(energy > 0, energy, 1.0)).swapaxes(1, 2))
        flat = self.gram.mean_square.reshape(weight.groups, weight.inputs, -1)
        return np.asarray(flat)

    def split(self) -> Floats:
        """Return the weights in the form of the Gram matrix, (blocks, units, entries)."""
        assert self.reading is not None
        return np.asarray(self.reading.split(self.rows().reshape(self.shape[0], -1)))

    def joined(self, split: NDArray[Any]) -> NDArray[Any]:
        """Return what `split` took apart, (units, inputs, taps)."""
        assert self.reading is not None
        return np.asarray(self.reading.join(split).reshape(self.shape))

    def _projection(self, split: Floats) -> Project:
        """Return what picks survivors among the weights that are not zero: the others stay so."""
        filled = split != 0

        def project(wishes: Singles, share: float) -> Bools:
            assert self.reading is not None
            rows = self._full(self.joined(np.where(filled, np.square(wishes), 0)), share)
            kept: Bools = self.reading.split(rows.reshape(len(rows), -1)) & filled
            return kept

        return project

    def _full(self, scores: NDArray[np.floating], share: float) -> Bools:
        count = round(share * self.blocks)
        return np.asarray(self.structure.keep(scores, max(count, 1)))

    def _solved_ladder(self) -> Iterator[Rung]:
        split = self.split()
        moment = self._moment()
        # On its own samples a layer with more inputs than samples seems to lose nothing.
        judge = moment
        if self.judge is not None:
            judge = self.judge.covariance(centred=self._centred)
            judge = damped(judge, RIDGE, own_units=self._own_units)
        roughly = judge.astype(np.float32)
        energy = float(output_error(judge, split).sum()) or 1.0
        yield Rung(1.0, 0.0, None)
        for step in descend(moment, split, RUNGS[1:], self._projection(split)):
            weights = step.weights if self.updates else np.where(step.keep, split, 0.0)
            choice = self._choice(split, step.keep, weights)
            moved = (weights - split).astype(np.float32)
            lost = float(output_error(roughly, moved).sum()) / energy
            yield Rung(step.share, lost, choice)
            if lost > _HOPELESS:
                yield Rung(RUNGS[-1], 1.0, None)
                return

    def _fitted(
        self, moment: Floats, split: Floats, kept: Bools, start: Floats | None = None
    ) -> Choice:
        if not self.updates:
            return self._choice(split, kept, split)
        cross = np.matmul(split, moment)
        return self._choice(split, kept, fit_on_support(moment, cross, kept, start))

    def shift(self, split: Floats, fitted: Floats) -> Floats:
        """Return what the units' outputs lose on average by new weights, (units,)."""
        assert self.gram is not None
        assert self.reading is not None
        part = self.site.parts[self.part]
        if part.view.quantised:
            stored = as_read(self.survey.constants, part, self.joined(fitted))
            fitted = np.asarray(self.reading.split(stored.reshape(len(stored), -1)))
        lost = ((split - fitted) * self.gram.mean[:, None, :]).sum(axis=2)
        per_unit = lost.reshape(self.reading.groups, self.reading.blocks, -1).sum(axis=1)
        return np.asarray(per_unit.reshape(-1) * self.site.layer.weights[self.part].scale)

    def _choice(self, split: Floats, kept: Bools, fitted: Floats) -> Choice:
        keep = np.asarray(self.joined(kept), dtype=bool)
        if not self.updates:
            return Choice(keep)
        shift = None
        if self._centred:
            shift = self.shift(split, fitted)
        return Choice(keep, np.asarray(self.joined(fitted), dtype=np.float64), shift)
