"""Structured pruning on one screen: measure, score coupled channels, cut, make up for the loss.

A group of channels that live or die together is worth what the layers that read it would lose
(`onnx_relief.channels.worth`): with the criterion `obs`, after their other weights have made up for
it; with the others, the share of their units' score that comes through these channels.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from onnx_relief.channels.budget import Choice, Decision, Stopwatch
from onnx_relief.channels.consumers import consumers_of, sites_of, with_evidence
from onnx_relief.channels.decision import decide
from onnx_relief.channels.mending import mean_inputs, nearer, row_of
from onnx_relief.channels.settings import ChannelSettings
from onnx_relief.channels.worth import Worth, made_up, worth_of
from onnx_relief.data import Dataset, first_sample
from onnx_relief.data.held_out import held_out
from onnx_relief.errors import UnsupportedError
from onnx_relief.graph.channels import RULES, Groups, Trace, cut, trace_channels
from onnx_relief.graph.channels.follow import LAST_CHANNEL
from onnx_relief.graph.channels.ids import STAYS, varying
from onnx_relief.graph.channels.mean_signal import Correction, corrections, give_back
from onnx_relief.graph.document import Document, check
from onnx_relief.graph.folded import ready_to_cut
from onnx_relief.graph.inside import brought_inside
from onnx_relief.graph.layers import Survey, find_layers, require_layers, uniquely_named
from onnx_relief.graph.orphans import drop_orphans
from onnx_relief.graph.unique_names import Names, with_old_names
from onnx_relief.measuring.observe import observe
from onnx_relief.measuring.second_moments import measure_at_once
from onnx_relief.progress import ticker
from onnx_relief.repair import Repaired, check_repair, not_repaired, repair
from onnx_relief.repair.stays import Places
from onnx_relief.result import Made
from onnx_relief.results import Progress, RepairRow
from onnx_relief.settings import Settings


@dataclass(frozen=True, eq=False, kw_only=True)
class ChannelsPruned(Made):
    """What `prune_channels` made.

    Attributes:
        document: The smaller model.
        groups: Groups of channels that could go.
        removed: Those that went.
        corrected: Layers whose bias makes up for the mean signal that they lost.
        kept: Why channels stay that could not be followed, and how many.
        unseen: Why channels stay of which the data shows nothing, and how many.
        decision: How much of them was to go, in which multiples, and how that was found.
        repair: How the repair turned out; None where there was none.
    """

    groups: int
    removed: int
    corrected: int
    kept: Mapping[str, int]
    unseen: Mapping[str, int]
    decision: Decision
    repair: RepairRow | None = None


def prune_channels(
    document: Document,
    calibration: Dataset,
    settings: Settings,
    channels: ChannelSettings,
    *,
    progress: Progress | None = None,
) -> ChannelsPruned:
    """Return a model without the channels that carry the least signal.

    Args:
        document: The dense model; it is not changed.
        calibration: Sample data.
        settings: Which layers, how many samples, and how to run.
        channels: How many channels go.
        progress: Told how far the work has come.

    Raises:
        UnsupportedError: No channel can be followed from where it is made to where it is read.
        DataError, ModelError, SettingsError: As `prune`.
    """
    check_repair(channels.repair, calibration, settings.reconstruction)
    ranked = rank_channels(
        document,
        calibration,
        settings,
        heads=channels.heads,
        compare=channels.scope == "global",
        progress=progress,
    )
    return ranked.prune(channels, progress=progress)


@dataclass(frozen=True, eq=False, kw_only=True)
class Ranked:
    """A model's channels and what they are worth, before it is decided how many go.

    Attributes:
        survey: The dense model, its tensors named uniquely.
        names: What they are called in the file.
        trace: Its channels.
        groups: Which live or die together.
        kinds: Roots of the groups that can go, by the axes that they live in.
        worth: What they are worth.
        positions: How often each layer's weights are applied per sample.
        calibration: Sample data.
        settings: Which layers, how many samples, and how to run.
        unseen: Why groups stay of which the data shows nothing, and how many.
    """

    survey: Survey
    names: Names
    trace: Trace
    groups: Groups
    kinds: Mapping[object, NDArray[np.int64]]
    worth: Worth
    positions: Mapping[str, float]
    calibration: Dataset
    settings: Settings
    unseen: Mapping[str, int]

    @cached_property
    def means(self) -> dict[str, NDArray[np.float64]]:
        """The mean of every channel that a layer reads, by tensor."""
        return mean_inputs(self.survey, self.trace, self.calibration, self.settings)

    def prune(
        self, channels: ChannelSettings, *, progress: Progress | None = None
    ) -> ChannelsPruned:
        """Return the model without so many channels; errors as `prune_channels`."""
        decision = decide(
            Choice(
                survey=self.survey,
                trace=self.trace,
                groups=self.groups,
                kinds=self.kinds,
                worth=self.worth,
                positions=self.positions,
                settings=channels,
            ),
            Stopwatch(
                batch=next(iter(self.calibration.batches(channels.latency_batch))),
                provider=self.settings.provider,
                threads=channels.latency_threads,
                progress=progress,
            ),
        )
        gone = decision.gone
        first, corrected = self._mended(gone, mean=channels.repair != "none")
        check(first.document)
        found = repair(
            "none" if channels.repair == "mean" else channels.repair,
            first.document,
            self.survey.document,
            _stays(self.trace, self.groups, gone),
            held_out(self.calibration, self.settings.samples),
            batch_size=self.settings.batch_size,
            provider=self.settings.provider,
            memory=self.settings.memory,
            training=self.settings.reconstruction,
            seed=self.settings.seed,
            origin=self.without(gone, mean=False, made=(self.survey.document, []))[0],
            progress=progress,
        )
        smaller = brought_inside(found.document) if gone.any() else found.document
        return ChannelsPruned(
            document=with_old_names(smaller, self.names),
            groups=sum(map(len, self.kinds.values())),
            removed=int(gone.sum()),
            corrected=corrected,
            kept=Counter(self.groups.reasons.values()),
            unseen=self.unseen,
            decision=decision,
            repair=row_of(first, found),
        )

    def _mended(self, gone: NDArray[np.bool_], *, mean: bool) -> tuple[Repaired, int]:
        """Return the model without groups, and how many biases make up for it.

        They give back the mean signal with `mean`, unless that does harm on held-out samples.
        """
        document = self.survey.document
        made = made_up(self.worth, gone, document, self.survey)
        plain, corrected = self.without(gone, mean=False, made=made)
        mended, more = self.without(gone, mean=True, made=made) if mean else (plain, corrected)
        if more == corrected:
            return not_repaired(plain), corrected
        found = nearer(plain, mended, document, self.calibration, self.settings)
        return found, corrected if found.undone else more

    def without(
        self,
        gone: NDArray[np.bool_],
        *,
        mean: bool,
        made: tuple[Document, list[Correction]] | None = None,
    ) -> tuple[Document, int]:
        """Return the model without groups, and how many biases make up for it.

        Args:
            gone: Whether a group goes, by root.
            mean: Whether biases give back the mean signal that is lost.
            made: What `made_up` returns for `gone`, where that is known.
        """
        document, trace, groups = self.survey.document, self.trace, self.groups
        updated, changes = made or made_up(self.worth, gone, document, self.survey)
        if mean:
            done = {change.node for change in changes}
            others = corrections(trace, groups, gone, self.survey, self.means)
            changes = [*changes, *(change for change in others if change.node not in done)]
        before = trace.mark()
        try:  # biases that are added belong to this model alone
            smaller = cut(give_back(updated, trace, changes), trace, groups, gone)
        finally:
            trace.forget_since(before)
        return drop_orphans(smaller, document), len(changes)


def rank_channels(
    document: Document,
    calibration: Dataset,
    settings: Settings,
    *,
    heads: bool = False,
    compare: bool = False,
    progress: Progress | None = None,
) -> Ranked:
    """Return a model's channels and what they are worth.

    Args:
        document: The dense model; it is not changed.
        calibration: Sample data.
        settings: Which layers, how many samples, and how to run.
        heads: Whether whole heads of attention go, instead of a part of each.
        compare: Whether channels of different layers have to compare.
        progress: Told how far the work has come.

    Raises:
        UnsupportedError: No channel can be followed from where it is made to where it is read.
        DataError, ModelError, SettingsError: As `prune`.
    """
    survey, names = uniquely_named(find_layers(ready_to_cut(document)))
    require_layers(survey)
    settings.check_patterns(survey.layers)
    observed = observe(survey, first_sample(calibration).feed)
    trace, groups = trace_channels(survey.model, observed, RULES, outer=heads)
    kinds = _kinds(trace, groups, _left_alone(survey, settings))
    if not kinds:
        reasons = Counter(groups.reasons.values())
        of_inputs = reasons.pop(LAST_CHANNEL, 0)
        unmade = next(iter(trace.unmade), "no node makes any that can be followed")
        nothing = LAST_CHANNEL if of_inputs else unmade
        why = reasons.most_common(1)[0][0] if reasons else nothing
        if _kinds(trace, groups, set()):
            why = "all of them run through layers that --only or --skip leaves alone"
        raise UnsupportedError(f"{document.name} has no channels that could go ({why})")
    consumers = consumers_of(survey, trace, groups)
    tick = ticker(progress, "measuring activity", calibration.take(settings.samples).size)
    measured, known = measure_at_once(
        survey,
        survey.sites,
        calibration,
        settings,
        read=sites_of(consumers),
        signals=False,
        tick=tick,
    )
    kinds, unseen = with_evidence(kinds, consumers, survey, trace, groups, measured)
    if not kinds:
        raise UnsupportedError(
            f"{document.name} has no channels that could go ({next(iter(unseen))})"
        )
    worth = worth_of(
        survey,
        trace,
        groups,
        kinds,
        consumers,
        measured,
        known,
        calibration,
        settings,
        compare=compare,
        progress=progress,
    )
    return Ranked(
        survey=survey,
        names=names,
        trace=trace,
        groups=groups,
        kinds=kinds,
        worth=worth,
        positions={name: found.positions for name, found in measured.activities.items()},
        calibration=calibration,
        settings=settings,
        unseen=unseen,
    )


def _stays(trace: Trace, groups: Groups, gone: NDArray[np.bool_]) -> dict[str, dict[int, Places]]:
    """Return which places of tensors stay, by the axes along which channels lie."""
    found: dict[str, dict[int, Places]] = defaultdict(dict)
    for tensor, ids in trace.ids.items():
        stays = ~gone[groups.of(ids)]
        for axis in varying(ids):
            others = tuple(other for other in range(ids.ndim) if other != axis)
            along = stays.any(axis=others)
            if not along.all():
                found[tensor][axis - ids.ndim] = np.flatnonzero(along)
    return found


def _kinds(trace: Trace, groups: Groups, kept: Collection[str]) -> dict[object, NDArray[np.int64]]:
    """Return the roots of groups that can go, together with those that live in the same axes.

    None goes that lives in one of the constants that are to be kept.
    """
    places: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for member in trace.members:
        for root in np.unique(groups.of(member.ids)).tolist():
            if root != STAYS:
                places[root].append((member.constant, member.axis))
    kinds: dict[object, list[int]] = defaultdict(list)
    for root, where in places.items():
        if not any(name in kept for name, _ in where):
            kinds[tuple(sorted(set(where)))].append(root)
    return {kind: np.array(sorted(roots)) for kind, roots in kinds.items()}


def _left_alone(survey: Survey, settings: Settings) -> set[str]:
    """Return the weights of layers that the user wants left alone."""
    return {
        part.view.home.name
        for site in survey.sites
        if settings.leaves_out(site.layer)
        for part in site.parts
    }
