"""`onnx-relief prune --sweep`: several models that differ in how much went, and their curve."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Group
from rich.text import Text

from onnx_relief.accounting import account, plain_settings
from onnx_relief.api.compare import compare
from onnx_relief.budget import Budget
from onnx_relief.channels.pruning import rank_channels
from onnx_relief.commands.console import Speaker
from onnx_relief.commands.opening import open_options
from onnx_relief.commands.options import parse_sparsities
from onnx_relief.commands.outputs import check_outputs
from onnx_relief.commands.prune_options import PruneOptions
from onnx_relief.commands.signals import check_stopped
from onnx_relief.commands.storing import stored
from onnx_relief.errors import DataError, SettingsError, TargetError
from onnx_relief.files import remove_asides, write_file
from onnx_relief.graph.origin import note_dense
from onnx_relief.graph.save import save, staged
from onnx_relief.job import Job, run_each
from onnx_relief.measuring.shortage import about_few_samples
from onnx_relief.pipeline import Pruned
from onnx_relief.repair import check_repair
from onnx_relief.report.advice import SAME_DATA
from onnx_relief.report.build import to_json
from onnx_relief.report.swept import Sweep, SweepPoint, sweep_page, sweep_svg, sweep_table
from onnx_relief.report.text import plain
from onnx_relief.results import ModelCost, Progress

Found = tuple[ModelCost, SweepPoint]


def sweep(options: PruneOptions, speaker: Speaker) -> None:
    """Prune to every share, write the models, and tell what each costs and how good it is.

    Raises:
        TargetError: A share is not reached; the models are written all the same.
        ReliefError: As `prune`.
    """
    shares = _shares(options)
    places = [_place(options, share) for share in shares]
    _check(options, places)
    try:
        with speaker.progress() as progress:
            trace = _channels if options.cuts_channels else _masks
            # With a budget, what is not said is chosen as for any other budget.
            aimed = options if options.cuts_channels else replace(options, sparsity=shares[-1])
            job = open_options(aimed)
            found = list(trace(options, job, shares, places, progress))
    finally:
        remove_asides(places)
    dense, points = found[0][0], tuple(point for _, point in found)
    curve = Sweep(
        dense=dense,
        points=points,
        settings={**plain_settings(job), "budget": f"--sweep {options.sweep}"},
        notes=tuple(_about_samples(options, job, dense)),
    )
    told = to_json(curve.to_dict())
    _write(options, curve, told)
    named = (("report", options.report), ("curve", options.plot))
    written = [Text(f"{what}: {plain(str(path))}") for what, path in named if path is not None]
    speaker.result(Group(sweep_table(curve), *written), told)
    missed = [point.missed for point in curve.points if point.missed]
    if missed:
        raise TargetError(f"{missed[0]}; the models that come closest are written")


def _about_samples(options: PruneOptions, job: Job, dense: ModelCost) -> Iterator[str]:
    if job.calibration is not None:
        yield from about_few_samples(
            dense,
            job.calibration.take(job.settings.samples).size,
            criterion=job.settings.criterion,
            repair=(options.channel_settings() if options.cuts_channels else job.settings).repair,
        )
    if job.same_data:
        yield SAME_DATA


def _masks(
    options: PruneOptions,
    job: Job,
    shares: Sequence[float],
    places: Sequence[Path],
    progress: Progress,
) -> Iterator[Found]:
    budgets = [Budget(sparsity=share) for share in shares]
    each = zip(budgets, shares, places, run_each(job, budgets, progress=progress), strict=True)
    for budget, share, place, pruned in each:
        own = replace(job, settings=replace(job.settings, budget=budget))
        small = stored(
            pruned, job, compact=options.compact, round_to=options.round_to, store=options.store
        )
        yield _masked(options, own, small, share, place, progress)


def _masked(
    options: PruneOptions, job: Job, pruned: Pruned, share: float, place: Path, progress: Progress
) -> Found:
    with staged(pruned.document, place, force=options.force) as model:
        report = account(job, pruned, model.path, name=str(place), progress=progress)
        check_stopped()
        model.commit()
    return report.dense, SweepPoint(
        share=share,
        written=str(place),
        cost=report.pruned,
        evaluation=report.evaluation,
        latency=report.latency,
        repair=report.repair,
        missed=pruned.missed,
    )


def _channels(
    options: PruneOptions,
    job: Job,
    shares: Sequence[float],
    places: Sequence[Path],
    progress: Progress,
) -> Iterator[Found]:
    settings, channels = job.settings, options.channel_settings()
    if job.calibration is None:
        raise DataError("there is no calibration data; give some with --data")
    check_repair(channels.repair, job.calibration, settings.reconstruction)
    ranked = rank_channels(
        job.document,
        job.calibration,
        settings,
        heads=channels.heads,
        compare=channels.scope == "global",
        progress=progress,
    )
    for share, place in zip(shares, places, strict=True):
        found = ranked.prune(replace(channels, ratio=share), progress=progress)
        save(note_dense(found.document, job.document), place, force=options.force)
        both = compare(
            options.model,
            place,
            job.evaluation,
            metric=options.metric,
            output=options.output,
            batch_size=settings.batch_size,
            provider=settings.provider,
            progress=progress,
        )
        check_stopped()
        yield (
            both.first,
            SweepPoint(
                share=share,
                written=str(place),
                cost=both.second,
                evaluation=both.evaluation,
                latency=both.latency,
                repair=found.repair,
                missed=found.decision.missed,
                went=found.removed / max(found.groups, 1),
            ),
        )


def _shares(options: PruneOptions) -> list[float]:
    for flag, value in options.budgets_besides_sweep.items():
        if value is not None:
            raise SettingsError(f"--sweep and {flag} both say how much goes; give one of them")
    for flag, value in (
        ("--plan", options.plan),
        ("--save-plan", options.save_plan),
        ("--save-scores", options.save_scores),
        ("--dump-activations", options.dump_activations),
    ):
        if value is not None:
            raise SettingsError(
                f"{flag} is about one model and --sweep makes several; leave it out"
            )
    if options.settings.has_exact_share:
        raise SettingsError(
            f"--granularity {options.granularity} always drops the same share, so there is nothing "
            "to sweep"
        )
    assert options.sweep is not None
    shares = sorted(set(parse_sparsities("--sweep", options.sweep)))
    if shares[0] == 0:
        raise SettingsError("--sweep 0 is the dense model; give shares above 0")
    return shares


def _place(options: PruneOptions, share: float) -> Path:
    """Return where one model goes: in a folder, or beside the name of -o, with its share."""
    if options.out is None or options.out.is_dir():
        base = (options.out or Path()) / f"{options.model.stem}.pruned.onnx"
    else:
        base = options.out
    return base.with_name(f"{base.stem}-{100 * share:.6g}{base.suffix}")


def _check(options: PruneOptions, places: Sequence[Path]) -> None:
    files = [("--report", options.report), ("--plot", options.plot)]
    outputs = [("-o", place) for place in places]
    outputs += [(flag, path) for flag, path in files if path is not None]
    if options.report is not None and options.report.suffix.lower() != ".json":
        raise SettingsError(f"--report writes JSON, so {options.report} has to end in .json")
    check_outputs(
        outputs,
        models=[("MODEL", options.model)],
        data=[("--data", options.data), ("--eval-data", options.eval_data)],
        others=[("--sensitivity", options.sensitivity)],
        force=options.force,
    )


def _write(options: PruneOptions, curve: Sweep, told: str) -> None:
    if options.report is not None:
        text = f"{told}\n".encode()
        write_file(options.report, "--report", lambda file: file.write(text), force=options.force)
    if options.plot is not None:
        page = options.plot.suffix.lower() == ".html"
        drawn = (sweep_page(curve) if page else sweep_svg(curve)).encode()
        write_file(options.plot, "--plot", lambda file: file.write(drawn), force=options.force)
