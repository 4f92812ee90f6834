"""The iterative algorithm on one screen: prune, retrain, judge, repeat; masks only grow.

Source: "Neural network relief", arXiv 2109.10795, section 3; rewinding as in its authors' code.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from onnx_relief.comparing.judge import points_lost
from onnx_relief.graph.cost import count_parameters, layer_costs
from onnx_relief.graph.document import Document
from onnx_relief.graph.layers import Survey, find_layers
from onnx_relief.graph.origin import note_dense
from onnx_relief.graph.walk import parts_of
from onnx_relief.history import IterateSettings, IterationRow, choose_best
from onnx_relief.measuring.positions import positions_on_data
from onnx_relief.pipeline import prune
from onnx_relief.results import Progress, Score
from onnx_relief.retraining.job import mask_by_plan
from onnx_relief.retraining.opening import TrainingJob
from onnx_relief.retraining.rewinding import rewound
from onnx_relief.retraining.run_folder import RunFolder
from onnx_relief.retraining.train import retrain
from onnx_relief.training import OnEpoch

OnIteration = Callable[[IterationRow], None]


@dataclass(frozen=True, eq=False, kw_only=True)
class Iterated:
    """What `iterate` came to.

    Attributes:
        rows: The dense model (iteration 0), then every iteration.
        best: The one that was kept.
        document: Its model.
        metric: What the scores are.
        unit: ``%`` or nothing.
        data: What the models were judged on.
        met: Whether every target was reached.
        reason: Why it stopped, in words.
        advice: What may reach a target that was not reached.
    """

    rows: tuple[IterationRow, ...]
    best: IterationRow
    document: Document
    metric: str
    unit: str
    data: str
    met: bool
    reason: str
    advice: str


def iterate(
    job: TrainingJob,
    settings: IterateSettings,
    folder: RunFolder,
    *,
    rewind_to: Document | None = None,
    progress: Progress | None = None,
    on_epoch: OnEpoch | None = None,
    on_iteration: OnIteration | None = None,
) -> Iterated:
    """Prune and retrain in turns; a folder that holds finished iterations is gone on with.

    Layers whose weights are frozen are left alone, by pruning too.

    Args:
        job: The dense model, the data, and who judges.
        settings: How to prune and train, and when to stop.
        folder: Where each iteration is kept.
        rewind_to: A model whose weights the surviving ones go back to before each retraining.
        progress: Told how far the work has come.
        on_epoch: Called after each epoch.
        on_iteration: Called after each iteration, also for those that were finished before.

    Raises:
        ReliefError: As `prune` and `retrain`; finished iterations stay in the folder.
    """
    if rewind_to is not None:
        rewind_to = rewound(job.document, rewind_to)
    dense = job.judge.score(job.document, progress=progress, stage="judging the dense model")
    survey = find_layers(job.document)
    settings = settings.sparing(_frozen_layers(survey, job.freeze))
    positions = positions_on_data(survey, job.training, job.provider).by_layer
    work = _Work(job, settings, folder, rewind_to, positions, progress, on_epoch)
    rows = folder.rows()
    if not rows:
        rows = [folder.finish(work.row(0, job.document, dense, dense), dense.metric)]
    done_before = len(rows) - 1
    for row in rows:
        _tell(on_iteration, row)
    asked = max(done_before, settings.iterations)
    reason = f"all {asked} iterations are done" if asked > 1 else "its one iteration is done"
    for number in range(len(rows), settings.iterations + 1):
        if _stops(rows[-1], dense, settings) is not None:
            break
        done = _one_iteration(work, number)
        if done is None:
            reason = _STUCK
            break
        rows.append(folder.finish(done, dense.metric))
        _tell(on_iteration, done)
    reason = _stops(rows[-1], dense, settings) or reason
    return _finished(job, settings, folder, rows, dense, reason)


@dataclass(frozen=True, eq=False)
class _Work:
    """What stays the same from iteration to iteration."""

    job: TrainingJob
    settings: IterateSettings
    folder: RunFolder
    rewind_to: Document | None
    positions: Mapping[str, float]
    progress: Progress | None
    on_epoch: OnEpoch | None

    def score(self, model: Document, what: str) -> Score:
        """Return how good a model is."""
        return self.job.judge.score(model, progress=self.progress, stage=f"judging the {what}")

    def row(
        self, number: int, model: Document, pruned: Score, retrained: Score, started: float = 0.0
    ) -> IterationRow:
        """Return the line of the history for a retrained model."""
        survey = find_layers(model)
        costs = layer_costs(survey, self.positions)
        macs = [cost.effective_macs for cost in costs]
        chosen = self.settings.pruning(number) if number else None
        return IterationRow(
            iteration=number,
            alpha=chosen.alphas if chosen else (1.0, 1.0),
            metric_pruned=pruned.value,
            metric_retrained=retrained.value,
            remaining=100 * sum(c.nonzero for c in costs) / max(1, sum(c.weights for c in costs)),
            nonzero=count_parameters(survey)[1],
            architecture=tuple(cost.alive for cost in costs),
            flops=None if None in macs else 2 * sum(m for m in macs if m is not None),
            epochs=self.settings.train.epochs if number else 0,
            seconds=time.monotonic() - started if number else 0.0,
        )


def _frozen_layers(survey: Survey, patterns: Sequence[str]) -> tuple[str, ...]:
    """Return the layers one of whose weights is called what a pattern says."""
    homes = {site.layer.name: [part.view.home for part in site.parts] for site in survey.sites}
    return tuple(
        layer
        for layer, weights in homes.items()
        if any(
            fnmatchcase(n, p)
            for whole in weights
            for home in (whole, *parts_of(whole))
            for n in (home.name, str(home))
            for p in patterns
        )
    )


def _one_iteration(work: _Work, number: int) -> IterationRow | None:
    """Prune and retrain once; None where pruning finds nothing more."""
    started = time.monotonic()
    before = work.folder.model(number - 1) if number > 1 else work.job.document
    settings = work.settings.pruning(number)
    pruned = prune(before, work.job.training, settings, progress=work.progress, keep_scores=False)
    plan = pruned.plan
    if number > 1:
        earlier = work.folder.plan(number - 1)
        plan = plan.within(earlier)
        stuck = plan.kept_connections == earlier.kept_connections
    else:
        stuck = plan.drops_nothing
    if stuck and not work.settings.changes_after(number):
        return None
    first = work.score(pruned.document, "pruned model")
    masked, kept = mask_by_plan(work.rewind_to or before, plan)
    retrained = retrain(
        masked,
        work.job.training,
        replace(work.job.settings, seed=work.job.settings.seed + number),
        validation=work.job.validation,
        folder=work.folder.training(number),
        kept=kept,
        teacher=work.job.teacher,
        freeze=work.job.freeze,
        provider=work.job.provider,
        progress=work.progress,
        on_epoch=work.on_epoch,
    )
    document = note_dense(retrained.document, work.job.document)
    model = work.folder.save(number, document, plan)
    return work.row(number, model, first, work.score(model, "retrained model"), started)


def _tell(on_iteration: OnIteration | None, row: IterationRow) -> None:
    if on_iteration is not None:
        on_iteration(row)


def _stops(row: IterationRow, dense: Score, settings: IterateSettings) -> str | None:
    """Return why no iteration may follow on this one, or None."""
    if row.iteration == 0:
        return None
    if settings.has_target and settings.reached(row):
        return "the size that was asked for is reached"
    if not settings.good_enough(
        points_lost(dense.metric, dense.unit, row.metric_retrained, dense.value)
    ):
        return f"the {dense.metric} {_FELL}"
    return None


def _finished(
    job: TrainingJob,
    settings: IterateSettings,
    folder: RunFolder,
    rows: list[IterationRow],
    dense: Score,
    reason: str,
) -> Iterated:
    candidates = rows[1:]
    if candidates:
        lost = [
            points_lost(dense.metric, dense.unit, row.metric_retrained, dense.value)
            for row in candidates
        ]
        best, met = choose_best(candidates, lost, settings)
        document = folder.model(best.iteration)
    else:
        best, met, document = rows[0], not settings.has_target, job.document
    folder.keep(document)
    return Iterated(
        rows=tuple(rows),
        best=best,
        document=document,
        metric=dense.metric,
        unit=dense.unit,
        data=dense.data,
        met=met,
        reason=reason,
        advice=_advice(reason),
    )


_STUCK = "nothing more is pruned"
_FELL = "fell by more than was allowed"


def _advice(reason: str) -> str:
    if reason == _STUCK:
        return "a lower --alpha prunes more"
    if reason.endswith(_FELL):
        return "allow a larger --max-drop, or give a higher --alpha or more --epochs"
    return "give it more --iterations or a lower --alpha"
