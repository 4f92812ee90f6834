"""Run the instrumented model over data and collect the activity of every layer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_relief.activity.record import Record
from onnx_relief.data import Batch, Dataset
from onnx_relief.errors import DataError, ModelError, OutputError, UnsupportedError
from onnx_relief.graph.instrument import Instrumented, instrument
from onnx_relief.graph.layers import Survey
from onnx_relief.graph.probes import Probe, ProbeKind, probes_for
from onnx_relief.graph.sites import Site
from onnx_relief.measuring.digest import LayerActivity, digest, finish, merged
from onnx_relief.measuring.lengths import check_lengths
from onnx_relief.runtime import Session, open_session
from onnx_relief.settings import Settings

Tick = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class Measurement:
    """Activity by layer, the layers that could not be observed and why, and the samples seen."""

    activities: Mapping[str, LayerActivity]
    unobserved: Mapping[str, str]
    samples: int


def measure(
    survey: Survey,
    sites: Sequence[Site],
    batches: Iterable[Batch],
    settings: Settings,
    *,
    brief: Sequence[Site] = (),
    tick: Tick | None = None,
    dump: Path | None = None,
) -> Measurement:
    """Return the activity of `sites` over `batches`; memory does not grow with their number.

    Args:
        survey: The model.
        sites: The layers.
        batches: Samples.
        settings: How activity is estimated.
        brief: As for `Observer`.
        tick: Told of every sample.
        dump: Folder that raw layer inputs are written to.

    Raises:
        UnsupportedError: No layer's input can be observed.
        DataError: There is no data, or it (or a weight) makes NaN or infinity, named by layer.
        ModelError: The model itself cannot be run on the data.
    """
    observer = Observer(survey, sites, settings, raw=sites if dump else (), brief=brief)
    for number, batch in enumerate(batches):
        raw = observer.see(batch)
        if dump is not None:
            _write_dumps(dump, number, raw)
        if tick is not None:
            tick(batch.count)
    return observer.finish()


class Observer:
    """A model that is watched while it runs, batch by batch; it remembers sums alone."""

    def __init__(
        self,
        survey: Survey,
        sites: Sequence[Site],
        settings: Settings,
        *,
        raw: Sequence[Site] = (),
        brief: Sequence[Site] = (),
    ) -> None:
        """Open the model.

        Args:
            survey: The model.
            sites: The layers whose activity is wanted.
            settings: How activity is estimated.
            raw: Layers among them whose whole inputs are wanted; those of the main graph are given.
            brief: Layers among them of which nobody asks how much single taps of kernels see.

        Raises:
            UnsupportedError: No layer's input can be observed.
            ModelError: The model itself cannot be run.
        """
        plan, self._unobserved = _plan_probes(sites, settings, {id(site) for site in brief})
        self._survey, self._settings = survey, settings
        self._by_name = {site.layer.name: site for site in sites}
        _refuse_to_see_nothing(self._unobserved, self._by_name)
        whole = {site.layer.name for site in raw}
        self._graph, self._session, lost = _start(survey, plan, settings, whole)
        self._unobserved |= lost
        self._plan = {name: probes for name, probes in plan.items() if name not in lost}
        self._record, self._samples = Record(), 0

    @property
    def raw(self) -> Collection[str]:
        """Names of the layers whose whole inputs `see` returns."""
        return self._graph.dumps.keys()

    def see(self, batch: Batch) -> dict[str, NDArray[Any]]:
        """Run a batch; return the inputs of the layers that are wanted raw, by layer.

        Raises:
            DataError: The data (or a weight) makes NaN or infinity, named by layer.
            ModelError: The model cannot be run on it.
            UnsupportedError: A layer repeats an axis.
        """
        if self._samples == 0:
            sites = list(self._by_name.values())
            check_lengths(self._survey, sites, batch, self._settings.provider)
        results = self._session.run(batch.feed)
        seen = digest(self._survey, self._by_name, self._plan, self._graph, results)
        self._record = merged(self._record, seen)
        self._samples += batch.count
        return {name: results[output] for name, output in self._graph.dumps.items()}

    def finish(self) -> Measurement:
        """Return what was seen.

        Raises:
            DataError: That is nothing, or a weight is NaN or infinite.
            UnsupportedError: No layer was ever run.
        """
        if self._samples == 0:
            raise DataError("the calibration data holds no complete batch; give more samples")
        record, plan = self._record, self._plan
        idle = [name for name, probes in plan.items() if not record.means[probes[0]].count]
        reason = "it was never run on this data, in a branch not taken"
        unobserved = self._unobserved | dict.fromkeys(idle, reason)
        _refuse_to_see_nothing(unobserved, self._by_name)
        activities = {
            name: finish(
                self._survey, self._by_name[name], probes, record, self._samples, self._settings
            )
            for name, probes in plan.items()
            if name not in idle
        }
        return Measurement(activities, unobserved, self._samples)


def full_batches(data: Dataset, batch_size: int) -> Iterator[Batch]:
    """Yield the batches that hold real samples only, or the one batch there is.

    A model with a fixed batch gets its last batch filled up with repeated samples, which would
    count twice in every mean.
    """
    first = True
    for batch in data.batches(batch_size):
        rows = max((len(array) for array in batch.feed.values() if array.ndim), default=0)
        if data.whole_feeds or batch.count == rows or first:
            yield batch
        first = False


def _plan_probes(
    sites: Sequence[Site], settings: Settings, brief: Collection[int]
) -> tuple[dict[str, tuple[Probe, ...]], dict[str, str]]:
    plan: dict[str, tuple[Probe, ...]] = {}
    unobserved: dict[str, str] = {}
    for site in sites:
        probes = probes_for(site, settings.estimator, settings.structure, brief=id(site) in brief)
        inside = site.scope
        while inside.parent is not None and inside.owner is not None:
            if inside.owner.op_type not in ("If", "Loop", "Scan"):
                unobserved[site.layer.name] = f"it sits in the body of a {inside.owner.op_type}"
            inside = inside.parent
        if site.layer.name not in unobserved:
            plan[site.layer.name] = probes
    return plan, unobserved


def _start(
    survey: Survey,
    plan: Mapping[str, tuple[Probe, ...]],
    settings: Settings,
    raw: Collection[str],
) -> tuple[Instrumented, Session, dict[str, str]]:
    """Open the instrumented model, without the layers whose statistics the runtime refuses."""
    kernels = _kernel_banks(survey, plan)

    def open_for(names: Sequence[str]) -> tuple[Instrumented, Session]:
        wanted = {name: plan[name] for name in names}
        whole = [name for name in names if name in raw]
        return _open(survey, wanted, kernels, whole, settings)

    names = list(plan)
    try:
        return *open_for(names), {}
    except (ModelError, UnsupportedError):
        # Perhaps the model itself does not run: then its own error says more than ours.
        open_session(survey.document, provider=settings.provider)
    lost = _unobservable(open_for, names)
    _refuse_to_see_nothing(lost, names)
    return *open_for([name for name in names if name not in lost]), lost


def _unobservable(
    open_for: Callable[[Sequence[str]], object], names: Sequence[str]
) -> dict[str, str]:
    """Return the layers that the runtime refuses to measure and why, by halving."""
    try:
        open_for(names)
    except (ModelError, UnsupportedError) as error:
        if len(names) == 1:
            return {names[0]: f"its input cannot be observed: {error}"}
        half = len(names) // 2
        return _unobservable(open_for, names[:half]) | _unobservable(open_for, names[half:])
    return {}


def _refuse_to_see_nothing(unobserved: Mapping[str, str], names: Iterable[str]) -> None:
    if set(names) <= unobserved.keys():
        first = list(unobserved.items())[:3]
        reasons = "; ".join(f"{name!r}: {reason}" for name, reason in first)
        raise UnsupportedError(f"no layer can be observed, so nothing can be scored ({reasons})")


def _open(
    survey: Survey,
    plan: Mapping[str, tuple[Probe, ...]],
    kernels: Mapping[str, NDArray[np.floating]],
    dumped: Sequence[str],
    settings: Settings,
) -> tuple[Instrumented, Session]:
    graph = instrument(survey, plan, kernels, dumped)
    folder = survey.document.folder if survey.document.has_external_data else None
    session = open_session(
        graph.proto, provider=settings.provider, folder=folder, weights=graph.weights
    )
    return graph, session


def _kernel_banks(
    survey: Survey, plan: Mapping[str, tuple[Probe, ...]]
) -> dict[str, NDArray[np.floating]]:
    """Return |K| as (channels, units per channel, *kernel) where kernels are the probes."""
    banks: dict[str, NDArray[np.floating]] = {}
    for site in survey.sites:
        probe = plan.get(site.layer.name, (None,))[0]
        if probe is None or probe.kind is not ProbeKind.KERNELS or probe.geometry is None:
            continue
        weight = site.layer.weights[0]
        rows = np.abs(survey.rows(site.parts[0])).astype(np.float64)
        grouped = rows.reshape(weight.groups, -1, weight.inputs, site.layer.taps)
        by_channel = grouped.transpose(0, 2, 1, 3).reshape(
            probe.channels, -1, *probe.geometry.kernel
        )
        banks[probe.node] = by_channel
    return banks


def _write_dumps(folder: Path, number: int, raw: Mapping[str, NDArray[Any]]) -> None:
    """Write each layer's raw input of this run as `<layer>/<run>.npy` below `folder`."""
    for name, tensor in zip(_folder_names(raw), raw.values(), strict=True):
        target = folder / name
        try:
            target.mkdir(parents=True, exist_ok=True)
            np.save(target / f"{number:06d}.npy", tensor)
        except OSError as error:
            raise OutputError(f"--dump-activations: cannot write {target}: {error}") from error


def _folder_names(layers: Iterable[str]) -> list[str]:
    """Return a folder name per layer; none leads elsewhere, and no two are the same anywhere."""
    names: dict[str, str] = {}
    for layer in layers:
        name = "".join(c if c.isalnum() or c in "._-" else "_" for c in layer).lstrip(".") or "_"
        while name.lower() in names:
            name += "_"
        names[name.lower()] = name
    return list(names.values())
