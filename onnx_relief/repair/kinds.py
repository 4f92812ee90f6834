"""One door to every way of repair, and none of them leaves without being judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from onnx_relief.data import Dataset
from onnx_relief.data.held_out import FEWEST, Split
from onnx_relief.errors import SettingsError, UnsupportedError
from onnx_relief.graph.document import Document
from onnx_relief.repair.bias import match_moments
from onnx_relief.repair.guard import Guard, Verdict
from onnx_relief.repair.least_squares import least_squares
from onnx_relief.repair.stays import Stays
from onnx_relief.results import Progress, RepairRow
from onnx_relief.settings import DEFAULT_MEMORY, Reconstruction

_BETTER_WITHOUT: Final = "without it the model's outputs are nearer to those of the dense model"


@dataclass(frozen=True, eq=False, kw_only=True)
class Repaired:
    """What came of a repair.

    Attributes:
        document: The repaired model; the pruned one as it was where the repair is undone.
        kind: How it was repaired.
        before: Relative mean square error of the outputs to the dense model's, on held-out
            samples, before the repair; None where no output can be compared.
        after: The same with the repair, whether it is undone or not.
        undone: Whether the repair made that worse, and so was taken back.
        notes: What has to be said besides, in sentences.
    """

    document: Document
    kind: str
    before: float | None
    after: float | None
    undone: bool
    notes: tuple[str, ...]

    @property
    def row(self) -> RepairRow:
        """What a report says of it."""
        return RepairRow(
            kind=self.kind,
            before=self.before,
            after=self.after,
            undone=self.undone,
            notes=self.notes,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Work:
    """What every way of repair is given; attributes as the arguments of `repair`."""

    pruned: Document
    dense: Document
    stays: Stays
    samples: Split
    batch_size: int
    provider: str
    memory: int
    training: Reconstruction | None
    seed: int
    origin: Document | None
    progress: Progress | None

    def guard(self) -> Guard:
        """Return what judges, on the samples that are held out."""
        return Guard(
            self.dense, self.samples.judge, batch_size=self.batch_size, provider=self.provider
        )


def repair(
    kind: str,
    pruned: Document,
    dense: Document,
    stays: Stays,
    samples: Split,
    *,
    batch_size: int,
    provider: str,
    memory: int = DEFAULT_MEMORY,
    training: Reconstruction | None = None,
    seed: int = 0,
    origin: Document | None = None,
    progress: Progress | None = None,
) -> Repaired:
    """Return `pruned` repaired without labels, or as it was if that made its outputs worse.

    Args:
        kind: A key of `KINDS`.
        pruned: The masked or smaller model; it is not changed.
        dense: The model it was made from, with layers of the same names.
        stays: What is left of the dense model's tensors.
        samples: What is fitted to; and what chooses how much is done and judges what came of it.
        batch_size: Samples per run.
        provider: Execution provider of ONNX Runtime.
        memory: Bytes that statistics may take, about.
        training: How ``reconstruct`` trains; None for its defaults.
        seed: Decides the order of samples that it trains on, and what is drawn of pictures.
        origin: The dense model, cut as `pruned` is; None where nothing of it was cut. Weights that
            made up for what went may be taken back to its own.
        progress: Told how far the work has come.

    Raises:
        SettingsError: There is no such kind, or what it needs is missing.
        ModelError, DataError, UnsupportedError: A model cannot be run on the data or be trained.
    """
    if kind not in KINDS:
        raise SettingsError(f"--repair {kind!r} does not exist; choose one of {', '.join(KINDS)}")
    if kind == "none":
        return not_repaired(pruned)
    work = Work(
        pruned=pruned,
        dense=dense,
        stays=stays,
        samples=samples,
        batch_size=batch_size,
        provider=provider,
        memory=memory,
        training=training,
        seed=seed,
        origin=origin,
        progress=progress,
    )
    document, notes = KINDS[kind](work)
    found = judged(kind, pruned, document, work.guard(), samples)
    if found.undone:
        notes = tuple(f"undone with it: {note}" for note in notes)
    return replace(found, notes=(*found.notes, *notes))


def check_repair(kind: str, data: Dataset, training: Reconstruction) -> None:
    """Refuse a repair that this machine or this data does not allow, before the long work.

    Args:
        kind: As for `repair`.
        data: What it is made on.
        training: How ``reconstruct`` trains.

    Raises:
        SettingsError: The `[retrain]` extra is missing, or there are no pictures to mirror or crop.
        DataError: A sample cannot be read.
    """
    if kind == "reconstruct":
        from onnx_relief.repair.reconstruction import check_training

        check_training(data, training)


def not_repaired(pruned: Document) -> Repaired:
    """Return a model as it was."""
    return Repaired(document=pruned, kind="none", before=None, after=None, undone=False, notes=())


def judged(kind: str, before: Document, after: Document, guard: Guard, split: Split) -> Repaired:
    """Return the repaired model, or the one before where that is nearer to the dense one.

    Args:
        kind: How it was repaired.
        before: The pruned model.
        after: The same, repaired.
        guard: Tells how far each is from the dense one, on the samples that judge.
        split: Which these are.

    Raises:
        ModelError, DataError: A model cannot be run on the data.
    """
    found = guard.verdict(before, after)
    undone = found.before is not None and found.after is not None and found.after > found.before
    return Repaired(
        document=before if undone else after,
        kind=kind,
        before=found.before,
        after=found.after,
        undone=undone,
        notes=tuple(_told(split, found)),
    )


def _told(split: Split, found: Verdict) -> Iterator[str]:
    if found.before is None or found.after is None:
        yield "no output of the model can be compared, so the repair is not judged"
        return
    if found.broken is not None:
        one, other = found.broken
        yield (
            f"NaN or infinity stands for {one:,} of the dense model's numbers in the pruned model "
            f"and for {other:,} in the repaired one; there nothing is compared"
        )
    if split.same:
        yield (
            f"with fewer than {FEWEST} samples the repair is judged on the samples that it was "
            "made with; give more"
        )


def _bias(work: Work) -> tuple[Document, tuple[str, ...]]:
    found = match_moments(
        work.pruned,
        work.dense,
        work.stays,
        work.samples.work,
        batch_size=work.batch_size,
        provider=work.provider,
        memory=work.memory,
        progress=work.progress,
    )
    return found.document, found.notes


def _least_squares(work: Work) -> tuple[Document, tuple[str, ...]]:
    found = least_squares(
        work.pruned,
        work.dense,
        work.stays,
        work.samples,
        batch_size=work.batch_size,
        provider=work.provider,
        memory=work.memory,
        origin=work.origin,
        progress=work.progress,
    )
    if found.spared is not None:
        guard = work.guard()
        with_ends, without = guard.error(found.document), guard.error(found.spared)
        if with_ends is not None and without is not None and without < with_ends:
            found = found.without_ends(_BETTER_WITHOUT)
    return found.document, found.notes


def _reconstruct(work: Work) -> tuple[Document, tuple[str, ...]]:
    """Train what least squares leaves, unless it did harm: a good start is worth many steps."""
    # It needs torch, which comes with an extra; everything else here does without.
    from onnx_relief.repair.reconstruction import reconstruct

    refitted, notes = _least_squares(work)
    start = judged("least-squares", work.pruned, refitted, work.guard(), work.samples)
    if start.undone:
        notes = ("least squares made the outputs worse, so training starts without it",)
    try:
        found = reconstruct(
            start.document,
            work.dense,
            work.stays,
            work.samples,
            provider=work.provider,
            training=work.training,
            memory=work.memory,
            seed=work.seed,
            progress=work.progress,
        )
    except UnsupportedError as error:
        left = "not repaired" if start.undone else "repaired by least squares alone"
        return start.document, (*notes, f"it is {left}: {error}")
    return found.document, (*notes, *found.notes)


def _none(work: Work) -> tuple[Document, tuple[str, ...]]:
    return work.pruned, ()


KINDS: dict[str, Callable[[Work], tuple[Document, tuple[str, ...]]]] = {
    "none": _none,
    "bias": _bias,
    "least-squares": _least_squares,
    "reconstruct": _reconstruct,
}
