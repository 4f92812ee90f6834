"""Open what `prune` was told, before any long work."""

from __future__ import annotations

from onnx_relief.commands.options import preprocess_of
from onnx_relief.commands.prune_options import PruneOptions
from onnx_relief.commands.sensitivity import check_sensitivity
from onnx_relief.errors import SettingsError
from onnx_relief.graph.document import load
from onnx_relief.job import Job, Sources, open_job
from onnx_relief.plan import PrunePlan


def open_options(options: PruneOptions, plan: PrunePlan | None = None) -> Job:
    """Return the job that the options ask for.

    Raises:
        SettingsError, DataError, ModelError: As `open_job` and `check_sensitivity`.
    """
    settings, document = options.settings, load(options.model)
    if options.sensitivity is not None:
        if options.cuts_channels:
            raise SettingsError("--sensitivity is about layers, not --granularity channel")
        check_sensitivity(options.sensitivity, document, settings)
    return open_job(
        document,
        Sources(
            data=options.data,
            eval_data=options.eval_data,
            preprocess=preprocess_of(options),
            strict=options.strict,
        ),
        settings,
        plan=plan,
        metric=options.metric,
        output=options.output,
    )
