"""The Python API of `prune`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from onnx_relief.accounting import account
from onnx_relief.budget import Budget
from onnx_relief.data import Preprocess
from onnx_relief.graph.document import load
from onnx_relief.graph.save import write_to
from onnx_relief.graph.sparse_store import is_sparse, store_sparse
from onnx_relief.inspection import Model
from onnx_relief.job import Job, Sources, choose_member, open_job, read_plan, run
from onnx_relief.pipeline import Pruned
from onnx_relief.plan import PrunePlan
from onnx_relief.result import PathLike, Result
from onnx_relief.results import Progress
from onnx_relief.scores import scores_by_weight
from onnx_relief.settings import (
    DEFAULT_MEMORY,
    Estimator,
    Reconstruction,
    Scope,
    Settings,
    alpha_besides,
)
from onnx_relief.structures import parse_structure


def prune(
    model: Model,
    data: object | None = None,
    *,
    alpha: float | None = None,
    alpha_conv: float | None = None,
    alpha_fc: float | None = None,
    alpha_layer: Mapping[str, float] | None = None,
    sparsity: float | None = None,
    target_params: float | None = None,
    target_macs: float | None = None,
    target_bytes: int | None = None,
    max_drop: float | None = None,
    criterion: str | None = None,
    scope: str = "global",
    estimator: str = "paper",
    granularity: str = "kernel",
    memory: int = DEFAULT_MEMORY,
    seed: int = 0,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    samples: int | None = 1000,
    batch_size: int = 16,
    provider: str = "auto",
    eval_data: object | None = None,
    metric: str | None = None,
    output: str | None = None,
    preprocess: Preprocess | None = None,
    strict: bool = False,
    plan: PrunePlan | PathLike | None = None,
    dump_activations: PathLike | None = None,
    store: str = "dense",
    repair: str | None = None,
    repair_epochs: int | None = None,
    flip: bool = False,
    crop_padding: int = 0,
    crop_scale: float = 1.0,
    color_jitter: float = 0.0,
    cutmix: float = 0.0,
    progress: Progress | None = None,
) -> Result:
    """Return a copy of a model whose connections that carry little signal are zero.

    How much goes is said once: by `alpha` or by one of the five budgets after it.

    Args:
        model: Path of an ONNX file, or a model in memory; it is not changed.
        data: Calibration data: a path of any form that the command line takes, an array, a mapping
            from input names to arrays (and ``labels``), or an iterable of feeds.
        alpha: Share of each unit's signal to keep, in (0, 1]; 0.95 without any budget.
        alpha_conv: The same for convolutions alone.
        alpha_fc: The same for everything but convolutions.
        alpha_layer: The same by pattern of layer or weight names; the last match counts.
        sparsity: Share of the prunable weights that goes.
        target_params: Share of all parameters that may stay.
        target_macs: Share of the multiply-accumulates with weights other than zero that may stay.
        target_bytes: Largest size of the files once they are zipped.
        max_drop: Most points of the metric on `eval_data` that may be lost.
        criterion: ``relief``, ``magnitude``, ``magnitude-l1``, ``wanda``, ``obs``, ``taylor`` or
            ``random``; by default ``relief`` with `alpha` and ``obs`` with a budget.
        scope: How a budget is spread: ``global`` or ``layer``.
        estimator: ``paper`` or ``mean-map``.
        granularity: ``kernel``, ``weight``, ``row``, a block like ``4x1``, or N of M like ``2:4``.
        memory: Bytes that second moments may take, about.
        seed: For what is drawn.
        only: Patterns; layers that match none of them are left alone.
        skip: Patterns; layers that match one of them are left alone.
        samples: At most so many samples of `data`, evenly spread; None for all.
        batch_size: Samples per run, where the model leaves that open.
        provider: Execution provider of ONNX Runtime, or ``auto``.
        eval_data: What both models are compared on; by default the calibration data.
        metric: ``accuracy``, ``top5``, ``agreement``, ``cosine`` or ``error``.
        output: The output that the metric looks at.
        preprocess: How samples become what the model takes.
        strict: Whether a broken picture is an error instead of being skipped and counted.
        plan: A plan, or the path of one, to replay instead of measuring.
        dump_activations: Folder for the raw inputs of every layer.
        store: ``dense``, or ``sparse`` for very sparse weights as sparse tensors where the file
            gets smaller by it; only ONNX Runtime reads those.
        repair: ``none``, ``bias``, ``least-squares`` or ``reconstruct``: how the weights that stay
            make up for those that go; by default ``least-squares`` with a budget, else ``none``.
        repair_epochs: Walks of ``reconstruct`` through the data; by default ten minutes of a core.
        flip: Whether it mirrors pictures left to right at random.
        crop_padding: By how many pixels at most it shifts pictures at random.
        crop_scale: Least share of the area that the model sees; it enlarges a random part of that
            size, from within or around the centre crop, to the whole; 1 for none.
        color_jitter: By how much of themselves it changes brightness, contrast and saturation.
        cutmix: Share of pictures into which it puts a part of another one.
        progress: Called with (stage, done, total or None).

    Raises:
        ReliefError: One sentence that says what, where, and what to do.
    """
    sparse = is_sparse(store)
    structure = parse_structure(granularity)
    budget = Budget(
        sparsity=sparsity,
        target_params=target_params,
        target_macs=target_macs,
        target_bytes=target_bytes,
        max_drop=max_drop,
    )
    settings = Settings(
        alpha=alpha_besides(alpha, budget, structure),
        alpha_conv=alpha_conv,
        alpha_fc=alpha_fc,
        alpha_layers=tuple((alpha_layer or {}).items()),
        estimator=choose_member("--estimator", Estimator, estimator),
        structure=structure,
        criterion=criterion or "",
        budget=budget,
        scope=choose_member("--scope", Scope, scope),
        memory=memory,
        seed=seed,
        only=tuple(only),
        skip=tuple(skip),
        samples=samples,
        batch_size=batch_size,
        provider=provider,
        repair=repair or "",
        reconstruction=Reconstruction(
            epochs=repair_epochs,
            flip=flip,
            crop_padding=crop_padding,
            crop_scale=crop_scale,
            color_jitter=color_jitter,
            cutmix=cutmix,
        ),
    )
    job = open_job(
        load(model),
        Sources(
            data=data, eval_data=eval_data, preprocess=preprocess or Preprocess(), strict=strict
        ),
        settings,
        plan=plan if plan is None or isinstance(plan, PrunePlan) else read_plan(Path(plan)),
        metric=metric,
        output=output,
    )
    dump = None if dump_activations is None else Path(dump_activations)
    pruned = run(job, progress=progress, dump=dump)
    if sparse:
        pruned = replace(pruned, document=store_sparse(pruned.document)[0])
    return _finished(job, pruned, progress)


def _finished(job: Job, pruned: Pruned, progress: Progress | None) -> Result:
    with tempfile.TemporaryDirectory(prefix="onnx-relief-") as folder:
        written = write_to(pruned.document, Path(folder), "model.onnx")
        name = f"{job.document.name}, pruned"
        report = account(job, pruned, written, name=name, progress=progress)
    return Result(
        document=pruned.document,
        plan=pruned.plan,
        report=report,
        scores=scores_by_weight(pruned, job.settings.structure),
    )
