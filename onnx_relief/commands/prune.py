"""`onnx-relief prune`: look before, measure, mask, check, and only then give files their names."""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from onnx_relief.accounting import account, try_written
from onnx_relief.commands.channels import ChannelJob, cut_channels
from onnx_relief.commands.console import Speaker
from onnx_relief.commands.opening import open_options
from onnx_relief.commands.options import check_plot, preprocess_of
from onnx_relief.commands.outputs import check_outputs
from onnx_relief.commands.prune_checks import check_flags
from onnx_relief.commands.prune_options import PruneOptions
from onnx_relief.commands.signals import check_stopped, undisturbed
from onnx_relief.commands.storing import parse_round_to, stored
from onnx_relief.commands.sweep import sweep
from onnx_relief.errors import SettingsError, TargetError
from onnx_relief.files import (
    StagedFiles,
    check_output_folder,
    remove_asides,
    staged_files,
)
from onnx_relief.graph.save import staged
from onnx_relief.graph.sparse_store import is_sparse
from onnx_relief.job import read_plan, run
from onnx_relief.pipeline import Pruned
from onnx_relief.report.build import Report, to_json
from onnx_relief.report.table import report_table
from onnx_relief.report.text import plain
from onnx_relief.scores import scores_by_weight, write_scores


def prune(options: PruneOptions) -> None:
    """Set to zero what carries little signal, and say what it cost.

    Example: onnx-relief prune model.onnx --data calibration/ --preset imagenet --alpha 0.95

    Nothing is written before everything has been checked. The model itself stays as it is, unless
    -o names it too, with --force. With --granularity channel whole channels are cut out, so that
    tensors really get smaller.
    """
    speaker = Speaker(options)
    check_flags(options)
    check_plot(options.plot)
    if options.sweep is not None:
        is_sparse(options.store), parse_round_to(options.round_to)  # before anything is done
        sweep(options, speaker)
        return
    if options.plot is not None:
        raise SettingsError("--plot draws the curve of a --sweep; leave it out, or sweep")
    if options.cuts_channels:
        _check_outputs(options)
        try:
            cut_channels(_channel_job(options), speaker)
        finally:
            remove_asides(path for _, path in options.outputs)
        return
    try:
        report, missed = _prune(options, speaker)
    finally:
        remove_asides(path for _, path in options.outputs)
    if report is not None:
        _show(options, speaker, report)
    if missed is not None:
        raise TargetError(f"{missed}; the model that comes closest is written")


def _show(options: PruneOptions, speaker: Speaker, report: Report) -> None:
    written = dict(options.outputs)
    table = Group(
        report_table(report, verbose=options.verbose),
        *(Text(f"{_MEANING[flag]}: {plain(str(path))}") for flag, path in written.items()),
    )
    paths = {_MEANING[flag]: str(path) for flag, path in written.items()}
    speaker.result(table, to_json({**report.to_dict(), "written": paths}))


def _channel_job(options: PruneOptions) -> ChannelJob:
    return ChannelJob(
        model=options.model,
        data=options.data,
        eval_data=options.eval_data,
        preprocess=preprocess_of(options),
        strict=options.strict,
        settings=options.settings,
        channels=options.channel_settings(),
        metric=options.metric,
        output=options.output,
        target=options.target,
        report=options.report,
        read=_is_read(options),
        force=options.force,
    )


def _is_read(options: PruneOptions) -> bool:
    """Whether anybody reads what came of it."""
    return options.json or options.report is not None or not options.quiet


def _prune(options: PruneOptions, speaker: Speaker) -> tuple[Report | None, str | None]:
    """Prune, write, and return the report, if anybody reads it, and what was missed."""
    is_sparse(options.store), parse_round_to(options.round_to)  # before anything is done
    _check_outputs(options)
    plan = None if options.plan is None else read_plan(options.plan)
    with speaker.progress() as progress, staged_files(force=options.force) as files:
        job = open_options(options, plan)
        scored = options.save_scores is not None
        dump = options.dump_activations
        pruned = run(job, progress=progress, dump=dump, keep_scores=scored)
        pruned = stored(
            pruned, job, compact=options.compact, round_to=options.round_to, store=options.store
        )
        with staged(pruned.document, options.target, force=options.force) as model:
            name = str(options.target)
            report = None
            if _is_read(options):
                report = account(job, pruned, model.path, name=name, progress=progress)
            else:
                try_written(job, model.path)
            _stage(options, pruned, report, files)
            check_stopped()
            with undisturbed():
                model.commit()
                files.commit()
    return report, pruned.missed


_MEANING = {
    "-o": "pruned model",
    "--save-plan": "plan",
    "--save-scores": "scores",
    "--report": "report",
}


def _check_outputs(options: PruneOptions) -> None:
    if options.report is not None and options.report.suffix.lower() != ".json":
        raise SettingsError(f"--report writes JSON, so {options.report} has to end in .json")
    if options.plan is not None and options.save_scores is not None:
        raise SettingsError("--plan replays without measuring, so there are no --save-scores")
    check_outputs(
        options.outputs,
        models=[("MODEL", options.model)],
        data=[("--data", options.data), ("--eval-data", options.eval_data)],
        others=[("--plan", options.plan), ("--sensitivity", options.sensitivity)],
        force=options.force,
    )
    if options.dump_activations is not None:
        check_output_folder(options.dump_activations, "--dump-activations", force=options.force)


def _stage(
    options: PruneOptions, pruned: Pruned, report: Report | None, files: StagedFiles
) -> None:
    if options.save_plan is not None:
        plan = f"{pruned.plan.to_json()}\n".encode()
        files.add(options.save_plan, "--save-plan", lambda file: file.write(plan))
    if options.report is not None and report is not None:
        text = f"{report.to_json()}\n".encode()
        files.add(options.report, "--report", lambda file: file.write(text))
    if options.save_scores is not None:
        scores = scores_by_weight(pruned, options.settings.structure)
        files.add(options.save_scores, "--save-scores", lambda file: write_scores(file, scores))
