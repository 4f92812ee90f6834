"""One whole run of `retrain`, as the command line and the Python API share it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from onnx_relief.accounting import versions
from onnx_relief.comparing.judge import better
from onnx_relief.data.shuffle import plan_steps
from onnx_relief.graph.document import Document
from onnx_relief.graph.mask import kept_elements
from onnx_relief.graph.origin import noted_name
from onnx_relief.pipeline import replay
from onnx_relief.plan import PrunePlan
from onnx_relief.report.retrained import RetrainReport
from onnx_relief.report.text import plural
from onnx_relief.results import Progress, Score
from onnx_relief.retraining.opening import TrainingJob
from onnx_relief.retraining.train import Kept, Retrained, retrain
from onnx_relief.training import OnEpoch, plain_train_settings

_FEW_HELD = 0.001
_FEW_STEPS = 100


def mask_by_plan(document: Document, plan: PrunePlan) -> tuple[Document, Kept]:
    """Return the document masked by a plan, and what stays of its tensors.

    Raises:
        SettingsError: The plan was made for another model.
    """
    pruned = replay(document, plan)
    return pruned.document, kept_elements(pruned.survey, plan, pruned.flows)


def run(
    job: TrainingJob,
    *,
    folder: Path,
    plan: PrunePlan | None = None,
    progress: Progress | None = None,
    on_epoch: OnEpoch | None = None,
) -> Retrained:
    """Return the retrained model; arguments as `retraining.retrain`.

    Raises:
        ReliefError: As `retraining.retrain`.
    """
    document, kept = (job.document, None) if plan is None else mask_by_plan(job.document, plan)
    return retrain(
        document,
        job.training,
        job.settings,
        validation=job.validation,
        folder=folder,
        kept=kept,
        teacher=job.teacher,
        freeze=job.freeze,
        provider=job.provider,
        progress=progress,
        on_epoch=on_epoch,
    )


def judge_start(
    job: TrainingJob, plan: PrunePlan | None = None, *, progress: Progress | None = None
) -> Score:
    """Return how good the model is before training: what cannot be judged is not worth a training.

    Raises:
        SettingsError, DataError, ModelError: As `Judge.score`.
    """
    start = job.document if plan is None else mask_by_plan(job.document, plan)[0]
    return job.judge.score(start, progress=progress, stage="judging the model as it was")


def account(
    job: TrainingJob,
    retrained: Retrained,
    before: Score,
    *,
    progress: Progress | None = None,
) -> RetrainReport:
    """Return what retraining came to, after judging the model again.

    Raises:
        SettingsError, DataError, ModelError: As `Judge.score`.
    """
    after = job.judge.score(retrained.document, progress=progress)
    report = RetrainReport(
        versions=versions("torch", "onnx2fx", "lightning"),
        settings=plain_train_settings(job.settings),
        before=before,
        after=after,
        trained=retrained.trained,
        weights=retrained.weights,
        held=retrained.held,
        differences=retrained.differences,
        teacher=None if job.teacher is None else job.teacher.name,
    )
    return replace(report, advice=tuple(_advice(job, report)))


def _advice(job: TrainingJob, report: RetrainReport) -> list[str]:
    advice = []
    if job.judge.data is job.validation:
        advice.append(
            "This is the part of the training data that the best epoch was chosen by, so it "
            "flatters a little; --eval-data gives an honest number"
        )
    elif job.judge.data is job.training:
        advice.append("These are the samples it was trained on; --eval-data gives an honest number")
    if report.held < _FEW_HELD * (report.held + report.weights):
        told = "Next to no weight was zero, so nothing was held"
        # Of a pruned model whole channels are gone.
        advice.append(told if noted_name(job.document) else f"{told}; prune the model first")
    steps = plan_steps(job.training, job.settings.batch_size).steps
    taken = steps * len(report.trained.history)
    if taken < _FEW_STEPS:
        few = (
            f"{plural(taken, 'step')} ({steps:,} in each epoch) {'is' if taken == 1 else 'are'} few"
        )
        advice.append(f"{few}; more --epochs or a smaller --batch-size may bring more")
    if report.trained.start is not None and report.trained.best_epoch == 0:
        advice.append(
            "No epoch was better than the weights before on the validation samples, so these were "
            "kept; try a lower --lr, more data or --distill"
        )
    elif better(report.after.metric, report.before.value, report.after.value):
        advice.append("Training made it worse; try a lower --lr, more data or --distill")
    return advice
