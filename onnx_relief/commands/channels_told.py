"""What `prune --granularity channel` has to tell, as a table for a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Group
from rich.text import Text

from onnx_relief.channels.budget import Decision
from onnx_relief.channels.pruning import ChannelsPruned
from onnx_relief.channels.settings import ChannelSettings
from onnx_relief.report.advice import RETRAIN, about_quality
from onnx_relief.report.build import as_plain, to_json
from onnx_relief.report.compared import Comparison
from onnx_relief.report.table import evaluation_table, repair_sentences, sentences, totals_table
from onnx_relief.report.text import plain, plural, time_text
from onnx_relief.results import Evaluation

_MOST_OF = 0.9


def channels_table(
    found: ChannelsPruned,
    comparison: Comparison,
    advice: Sequence[str],
    *,
    channels: ChannelSettings,
    written: Mapping[str, Path],
) -> Group:
    """Return sizes, outputs and what to make of them; `written` are files by what they are."""
    parts = [totals_table(comparison.first, comparison.second, comparison.latency)]
    notes: tuple[str, ...] = ()
    if comparison.evaluation is not None:
        parts.append(evaluation_table(comparison.evaluation))  # type: ignore[arg-type]
        notes = comparison.evaluation.notes
    return Group(
        *parts,
        *sentences([*_told(channels, found, comparison.evaluation), *advice, *notes]),
        *(Text(f"{what}: {plain(str(path))}") for what, path in written.items()),
    )


def _told(
    channels: ChannelSettings, found: ChannelsPruned, evaluation: Evaluation | None
) -> list[str]:
    layers = plural(found.corrected, "layer")
    given = f"biases of {layers} give back the mean signal that was lost"
    lines = [
        *_decided(channels, found.decision),
        f"{found.removed:,} of {plural(found.groups, 'group')} of channels are cut{_short(found)}",
        *([given] if found.corrected else ()),
        *(repair_sentences(found.repair) if found.repair and found.removed else ()),
        *(about_quality(evaluation, _remedy(channels)) if evaluation and found.removed else ()),
        *(() if found.removed else (_nothing(channels),)),
    ]
    return lines + [
        f"{plural(count, 'channel')} {'stays' if count == 1 else 'stay'}: {why}"
        for why, count in (*_most(found.unseen), *_most(found.kept))
    ]


def _short(found: ChannelsPruned) -> str:
    """Say so where far fewer go than a share of the channels was."""
    decision = found.decision
    asked = decision.left is None and decision.latency is None
    if not asked or found.removed >= _MOST_OF * decision.ratio * found.groups:
        return ""
    by = f", multiples of {decision.multiple} keep more" if decision.multiple > 1 else ""
    return f", not the {decision.ratio:.0%} that were asked for (some have to stay{by})"


def _nothing(channels: ChannelSettings) -> str:
    """Say what would cut more."""
    wider = "" if channels.round_to == 1 else ", or a finer multiple with --round-to 1"
    return f"no channel is cut, so nothing became faster; ask for more{wider}"


def _remedy(channels: ChannelSettings) -> str:
    """Say what brings accuracy back: a few hundred samples are too few for training anew."""
    training = "" if channels.repair == "reconstruct" else "try --repair reconstruct, "
    return f"cut less, {training}and {RETRAIN}"


def _decided(channels: ChannelSettings, decision: Decision) -> Iterator[str]:
    """Yield what was found by measuring."""
    threads = {0: "ONNX Runtime's own number of threads", 1: "one thread"}
    how = (
        f"batch {decision.batch}, "
        f"{threads.get(channels.latency_threads, f'{channels.latency_threads} threads')}"
    )
    if decision.tried:
        times = ", ".join(
            f"{one.multiple}: {time_text(one.milliseconds)}"
            for one in decision.tried
            if one.milliseconds is not None
        )
        chosen = decision.latency is None  # else the target decides, after this first look
        why = ", the coarsest that is neither slower nor loses much more" if chosen else ""
        yield f"multiples of {decision.multiple} channels stay{why} ({times}; {how})"
    if decision.latency is not None:
        yield (
            f"a ratio of {decision.ratio:.3g} leaves {decision.latency:.1%} of the latency "
            f"({how}), when measured last"
        )
    elif decision.left is not None:
        what = "weights" if channels.target_params is not None else "multiply-accumulates"
        yield f"{decision.left:.3%} of the {what} of all layers are left"
        if decision.overdone:
            yield (
                "multiples of channels, which runtimes may like better, would have cut too much "
                f"(to {max(decision.overdone):.1%}); --round-to 8 or 16 takes them all the same"
            )
    elif decision.ratio != channels.ratio:
        yield f"the ratio is {decision.ratio:.3g}"


def _most(kept: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(kept.items(), key=lambda pair: -pair[1])[:5]


def channels_json(
    found: ChannelsPruned, comparison: Comparison, advice: Sequence[str], *, written: Path
) -> str:
    """Return the same as JSON text."""
    return to_json(
        {
            "format": "onnx-relief channels 1",
            "groups": found.groups,
            "removed": found.removed,
            "corrected": found.corrected,
            "repair": None if found.repair is None else as_plain(found.repair),
            "kept": {**found.unseen, **found.kept},
            "ratio": found.decision.ratio,
            "round_to": found.decision.multiple,
            "tried": [as_plain(one) for one in found.decision.tried],
            "latency": found.decision.latency,
            "missed": found.decision.missed,
            "advice": list(advice),
            "comparison": as_plain(comparison),
            "written": str(written),
        }
    )
