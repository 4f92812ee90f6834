"""One whole run of `prune`, as the command line and the Python API share it.

What can be known before the long work is checked before it: model, data, metric, plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Final, TypeVar

from onnx_relief.budget import Budget
from onnx_relief.budgeting.targets import Judged
from onnx_relief.comparing.evaluation import try_out
from onnx_relief.comparing.judge import Judge, points_lost
from onnx_relief.data import Dataset, Preprocess, open_data
from onnx_relief.data.sources import is_same_data
from onnx_relief.errors import DataError, SettingsError
from onnx_relief.graph.document import Document, input_specs
from onnx_relief.graph.origin import digest_of, note_dense
from onnx_relief.pipeline import Pruned, prune, prune_each, replay
from onnx_relief.plan import PrunePlan
from onnx_relief.repair import Mender, check_repair
from onnx_relief.results import Progress, Score
from onnx_relief.settings import Settings

Choice = TypeVar("Choice", bound=Enum)
NO_PREPROCESSING: Final = Preprocess()


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What the user calls the data.

    Attributes:
        data: The calibration data; None where a plan is replayed.
        eval_data: What both models are compared on; None for the calibration data.
        preprocess: How samples become what the model takes.
        strict: Whether a broken picture is an error.
    """

    data: object | None = None
    eval_data: object | None = None
    preprocess: Preprocess = NO_PREPROCESSING
    strict: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Job:
    """Everything that a run needs, opened and tried.

    Attributes:
        document: The dense model.
        calibration: What activity is measured and repairs are made on; None where there is neither.
        evaluation: What both models are compared on; None without data.
        same_data: Whether the comparison uses the calibration data.
        settings: What to prune, and how much.
        plan: A plan to replay instead of measuring.
        metric: How both models are compared; None for the usual way.
        output: The output that the metric looks at; None for the first that suits it.
    """

    document: Document
    calibration: Dataset | None
    evaluation: Dataset | None
    same_data: bool
    settings: Settings
    plan: PrunePlan | None = None
    metric: str | None = None
    output: str | None = None


def about_plan(job: Job) -> Iterator[str]:
    """Say of a plan that is replayed if it was made for another model."""
    made_for = job.plan.model if job.plan is not None else ""
    own = digest_of(job.document) if made_for else ""
    if own and own != made_for:
        yield (
            f"the plan was made for another file than {job.document.name}: if its weights are "
            "others, the plan was not chosen for them; make one of this very model"
        )


def read_plan(path: Path) -> PrunePlan:
    """Return the plan in a file.

    Raises:
        SettingsError: It cannot be read or is no plan.
    """
    try:
        return PrunePlan.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise SettingsError(f"--plan {path} cannot be read: {reason}; check the path") from error
    except SettingsError as error:
        raise SettingsError(f"--plan {path}: {error} with --save-plan") from error


def choose_member(flag: str, kind: type[Choice], value: str, *others: str) -> Choice:
    """Return the member of `kind` that the user named; `others` can be named besides.

    Raises:
        SettingsError: There is none.
    """
    try:
        return kind(value)
    except ValueError as error:
        names = ", ".join([*(str(member.value) for member in kind), *others])
        raise SettingsError(f"{flag} {value!r} does not exist; choose one of {names}") from error


def open_job(
    document: Document,
    sources: Sources,
    settings: Settings,
    *,
    plan: PrunePlan | None = None,
    metric: str | None = None,
    output: str | None = None,
) -> Job:
    """Return a job after trying the model on a first sample.

    Raises:
        SettingsError, DataError, ModelError: Something is missing or does not go together.
    """
    if sources.data is None and plan is None:
        raise DataError("there is no calibration data; give some with --data, or replay a --plan")
    measures = plan is None or settings.repair != "none"
    if sources.data is None and measures:
        raise DataError(f"--repair {settings.repair} needs sample data; give some with --data")
    inputs = input_specs(document.proto)

    def opened(source: object | None) -> Dataset | None:
        if source is None:
            return None
        return open_data(source, inputs, preprocess=sources.preprocess, strict=sources.strict)

    calibration, evaluation = opened(sources.data), opened(sources.eval_data)
    if calibration is not None:
        check_repair(settings.repair, calibration, settings.reconstruction)
    if evaluation is None and calibration is not None:
        evaluation = calibration.take(settings.samples)
    if evaluation is not None:
        try_out(document, evaluation, metric=metric, output=output, provider=settings.provider)
    elif metric is not None or output is not None:
        raise SettingsError("--metric and --output need data to compare on; give --eval-data")
    return Job(
        document=document,
        calibration=calibration if measures else None,
        evaluation=evaluation,
        same_data=measures and is_same_data(sources.data, sources.eval_data),
        settings=settings,
        plan=plan,
        metric=metric,
        output=output,
    )


def run(
    job: Job,
    *,
    progress: Progress | None = None,
    dump: Path | None = None,
    keep_scores: bool = True,
) -> Pruned:
    """Return the masked model, by measuring or by replaying; arguments as `pipeline.prune`.

    Raises:
        ReliefError: As `pipeline.prune` and `pipeline.replay`.
    """
    mender = _mender(job, progress)
    if job.plan is not None:
        pruned = replay(job.document, job.plan)
        pruned = replace(pruned, document=mender.finish(pruned.document, pruned.plan))
    else:
        assert job.calibration is not None
        pruned = prune(
            job.document,
            job.calibration,
            job.settings,
            progress=progress,
            dump=dump,
            keep_scores=keep_scores,
            judged=Judged(finish=mender.finish, drop=_drop_of(job)),
        )
    return _noted(job, pruned, mender)


def run_each(
    job: Job, budgets: Sequence[Budget], *, progress: Progress | None = None
) -> Iterator[Pruned]:
    """Yield the masked model for one budget after the other, measured once for all.

    Raises:
        ReliefError: As `pipeline.prune_each`.
    """
    assert job.calibration is not None
    mender = _mender(job, progress)
    found = prune_each(
        job.document,
        job.calibration,
        job.settings,
        budgets,
        progress=progress,
        judged=Judged(finish=mender.finish, drop=_drop_of(job)),
    )
    for pruned in found:
        yield _noted(job, pruned, mender)


def _mender(job: Job, progress: Progress | None) -> Mender:
    return Mender(job.document, job.calibration, job.settings, progress)


def _noted(job: Job, pruned: Pruned, mender: Mender) -> Pruned:
    """Return what was pruned with what became of its repair, and notes of the dense model."""
    if job.plan is None:
        plan = replace(pruned.plan, model=digest_of(job.document))
        pruned = replace(pruned, plan=plan)
    if pruned.plan.drops_nothing:
        return pruned
    pruned = replace(pruned, repair=mender.told(pruned.document))
    return replace(pruned, document=note_dense(pruned.document, job.document))


def _drop_of(job: Job) -> Callable[[Document], float]:
    """Return what tells how many points of the metric a model loses."""
    dense: list[Score] = []

    def drop(model: Document) -> float:
        assert job.evaluation is not None
        judge = Judge(
            data=job.evaluation,
            dense=job.document,
            metric=job.metric,
            output=job.output,
            batch_size=job.settings.batch_size,
            provider=job.settings.provider,
        )
        if not dense:
            dense.append(judge.score(job.document))
        found = judge.score(model)
        if found.metric != dense[0].metric:  # its outputs are no longer of the same kind
            return float("inf")
        return points_lost(found.metric, found.unit, found.value, dense[0].value)

    return drop
