"""What the numbers mean and what could be done about them, in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from onnx_relief.graph.reach import mixes
from onnx_relief.plan import LayerKind
from onnx_relief.report.build import Report
from onnx_relief.report.text import bytes_text, plural, score_text, time_text
from onnx_relief.results import Evaluation

COMMANDS: Final = (
    *("inspect", "prune", "retrain", "iterate", "compact", "evaluate", "compare"),
    *("bench", "verify", "analyze"),
)
"""The commands that exist; advice names no other."""
RETRAIN: Final = "with thousands of samples `onnx-relief retrain` brings much of it back"

_NOTICEABLE = 0.95
_LARGER = 1.01
_PAGE = 4096  # bytes: names of data files, fields that are written otherwise
_MANY_ZEROS = 0.8
"""Share of zeros from which MNN's kernels for sparse weights gain anything (docs/deploy.md)."""
_FEW_WEIGHTS = 0.5
"""Share of the parameters below which layers are not most of a model."""
SAME_DATA: Final = (
    "the comparison used the calibration data itself; give other samples with --eval-data for a "
    "number to rely on"
)
_LOSS_OF_ACCURACY = 1.0
_LOSS_OF_AGREEMENT = 5.0
_FAR_COSINE = 0.95
_FAR_ERROR = 0.3


def advise(report: Report) -> tuple[str, ...]:
    """Return what has to be said about a report, the most important first."""
    if report.drops_nothing:
        what = "the model was written as it is" if report.is_same_file else "no weight became zero"
        return (
            f"nothing was dropped: {what}; {_why_nothing(report)}",
            *_about_data(report),
        )
    rules: tuple[Callable[[Report], Iterator[str]], ...] = (
        _about_quality,
        _about_what_is_no_layer,
        _about_emptied_layers,
        _about_speed,
        _about_zeros,
        _about_size,
    )
    return (*(text for rule in rules for text in rule(report)), *_about_data(report))


def _why_nothing(report: Report) -> str:
    """Return why nothing was dropped, or what would drop more, in the words that were used."""
    budget = str(report.settings.get("budget", "alpha"))
    blocks = str(report.settings.get("structure", ""))
    if report.missed is not None:
        return report.missed
    if not any(layer.nonzero for layer in report.dense.layers):
        return "its layers hold nothing but zeros"
    if report.settings.get("replayed_plan"):
        return "the plan keeps all that is not zero"
    if ":" in blocks:
        return f"it has {blocks} zeros already"
    if budget == "alpha":
        return "a lower --alpha drops more"
    if budget.startswith("--max-drop"):
        return f"nothing can go within {budget}"
    return f"it meets {budget} already"


def _about_quality(report: Report) -> Iterator[str]:
    found = report.evaluation
    if found is None:
        yield "the pruned model was not compared with the dense one; give --data or --eval-data"
        return
    yield from about_quality(found, _remedy(report))


def about_quality(found: Evaluation, remedy: str) -> Iterator[str]:
    """Say what a noticeable loss is, and what would help; nothing of a small one."""
    if found.pruned is None:
        return
    now = score_text(found.pruned, found.unit)
    if found.dense is not None and found.dense - found.pruned > _LOSS_OF_ACCURACY:
        before = score_text(found.dense, found.unit)
        yield f"{found.metric} fell from {before} to {now}; {remedy}"
    elif found.metric == "agreement" and 100 - found.pruned > _LOSS_OF_AGREEMENT:
        yield f"only {now} of decisions are those of the dense model; {remedy}"
    elif (found.metric == "cosine" and found.pruned < _FAR_COSINE) or (
        found.metric == "error" and found.pruned > _FAR_ERROR
    ):
        yield f"{found.output!r} is far from what the dense model gives ({now}); {remedy}"


def _remedy(report: Report) -> str:
    """Return what would help, in the words of the flags that were used."""
    if report.settings.get("replayed_plan") and report.settings.get("repair") == "none":
        return (
            "a plan says which weights stay, not what made up for the others: add --repair "
            "least-squares"
        )
    if report.settings.get("replayed_plan"):
        return f"make a plan of this very model that keeps more, and {RETRAIN}"
    budget = str(report.settings.get("budget", "alpha"))
    pattern = ":" in str(report.settings.get("structure", ""))
    by_alpha = budget == "alpha" and not pattern
    more = "a higher --alpha keeps more" if by_alpha else f"prune less than with {budget}"
    if pattern:
        more = "--granularity weight with --sparsity loses less than a pattern of zeros"
    elif report.settings.get("structure") == "kernel" and _has_kernels(report):
        more += ", take --granularity weight"
    if not by_alpha and report.settings.get("repair") in ("none", "bias"):
        more += ", take --repair least-squares"
    elif not by_alpha and report.settings.get("repair") == "least-squares":
        more += ", try --repair reconstruct"
    return f"{more}, and {RETRAIN}"


def _has_kernels(report: Report) -> bool:
    """Whether kernels are more than single weights."""
    return any(layer.connections < layer.weights for layer in report.dense.layers)


def _about_what_is_no_layer(report: Report) -> Iterator[str]:
    """Say so where a target and the MACs speak of a small part of the model."""
    weights, parameters = (
        sum(layer.weights for layer in report.dense.layers),
        report.dense.parameters,
    )
    if weights < _FEW_WEIGHTS * parameters:
        yield (
            f"only {weights / parameters:.1%} of the parameters are weights of layers; "
            "`onnx-relief inspect` says what the others are"
        )
    left = Counter(row.op for row in report.refusals if mixes(row.op))
    if left:
        nodes = ", ".join(f"{count} {op}" for op, count in left.most_common(3))
        yield (
            f"MACs leave out {plural(left.total(), 'node')} that multiply by weights and are no "
            f"layers ({nodes}); `onnx-relief inspect` says why"
        )


def _about_emptied_layers(report: Report) -> Iterator[str]:
    """Layers without any connection left: often a state or an input that the data keeps at zero."""
    had = {layer.layer for layer in report.dense.layers if layer.kept}
    names = [row.name for row in report.layers if row.name in had and not row.kept]
    if names:
        listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        yield (
            f"no connection is left in {listed}: nothing but zeros came in on the calibration "
            "data, or nothing that is left reads what goes out; give data like that of real use, "
            "or leave such layers alone with --skip"
        )


def _about_speed(report: Report) -> Iterator[str]:
    if report.latency is not None:
        dense, pruned = report.latency.timings
        if pruned.slowest < _NOTICEABLE * dense.median:
            return
        seems_faster = pruned.median < _NOTICEABLE * dense.median
        verdict = "sessions of one model differ as much" if seems_faster else "it is not faster"
        yield (
            f"{verdict} ({time_text(dense.median)} before, {time_text(pruned.median)} now): "
            "zeros alone make no common runtime faster"
        )
    # Gates of a recurrent layer go together with a cell, or not at all.
    dead = sum(r.units - r.alive for r in report.layers if r.kind != LayerKind.RECURRENT.value)
    if report.pruned.parameters < report.dense.parameters:
        return  # they are cut out already
    if not report.dead_units:
        yield "no unit lost all of its connections, so no tensor could become smaller either"
    elif dead:
        yield (
            f"{plural(dead, 'dead unit')} may be cut out of the tensors, as far as nothing else "
            "keeps them: `onnx-relief compact` does, `onnx-relief inspect PRUNED` says beforehand"
        )


def _about_zeros(report: Report) -> Iterator[str]:
    """Name the one runtime that can make use of zeros, and only where it can."""
    weights = sum(layer.weights for layer in report.pruned.layers)
    zeros = weights - sum(layer.nonzero for layer in report.pruned.layers)
    if weights and zeros >= _MANY_ZEROS * weights:
        yield (
            f"{zeros / weights:.0%} of the layers' weights are zero: MNN can be faster with its "
            "converter's flag --detectSparseSpeedUp, no other runtime is; `onnx-relief verify "
            "PRUNED --against DENSE --runtime mnn-sparse` measures it"
        )


def _about_size(report: Report) -> Iterator[str]:
    before, after = report.dense, report.pruned
    zipped = f"zipped {bytes_text(before.zipped)} -> {bytes_text(after.zipped)}"
    if after.plain > _LARGER * before.plain + _PAGE:
        yield (
            f"the file grew from {bytes_text(before.plain)} to {bytes_text(after.plain)}, because "
            "weights that were stored as one repeated number (ConstantOfShape) had to be written "
            f"out to hold zeros; {zipped}"
        )
    elif after.plain >= before.plain / _LARGER - _PAGE:
        yield (
            f"the file keeps its {bytes_text(after.plain)}, because zeros are stored like any "
            f"number; {zipped}"
        )
    else:
        yield f"the file: {bytes_text(before.plain)} -> {bytes_text(after.plain)}; {zipped}"


def _about_data(report: Report) -> Iterator[str]:
    if report.data.same and report.evaluation is not None:
        yield SAME_DATA
    elif str(report.settings.get("budget")).startswith("--max-drop"):
        yield (
            "the model was chosen by this very comparison, as the smallest of several; on data "
            "that chose nothing it may lose a little more"
        )
    if report.data.skipped:
        name, reason = next(iter(report.data.skipped.items()))
        yield (
            f"left out {plural(len(report.data.skipped), 'picture')} that cannot be read, first "
            f"{name} ({reason}); --strict stops instead"
        )
    if report.evaluation is not None:
        yield from report.evaluation.notes
