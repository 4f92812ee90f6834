"""From the rows that the instrumented model emits to the signal of every connection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_relief.activity.mean import Mean
from onnx_relief.activity.patches import patch_gram
from onnx_relief.activity.record import Record
from onnx_relief.activity.signal import Signal, kernel_norms
from onnx_relief.errors import DataError
from onnx_relief.graph.instrument import Instrumented
from onnx_relief.graph.layers import Survey
from onnx_relief.graph.probes import Probe, ProbeKind
from onnx_relief.graph.sites import Part, Site
from onnx_relief.plan import Layer, Weight
from onnx_relief.settings import Settings
from onnx_relief.structures import KERNEL


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerActivity:
    """What the data showed of one layer.

    Attributes:
        signals: Per weight, the signal of its connections.
        bias_gain: What one unit of bias contributes: 1, or the mean sqrt(height * width).
        positions: Per sample of the data, how often the layer's weights are applied.
    """

    signals: tuple[Signal, ...]
    bias_gain: float
    positions: float


def digest(
    survey: Survey,
    sites: Mapping[str, Site],
    plan: Mapping[str, tuple[Probe, ...]],
    graph: Instrumented,
    results: Mapping[str, Any],
) -> Record:
    """Return the record of one run.

    Raises:
        DataError: The data, or a weight, made NaN or infinity.
    """
    means: dict[Any, Mean] = {}
    sizes: dict[Any, Counter[tuple[int, ...]]] = {}
    for name, probes in plan.items():
        for probe in probes:
            rows, counted = (results[output] for output in graph.outputs[probe])
            counted = counted.reshape(-1, probe.size_entries)
            if not np.all(np.isfinite(rows)):
                for site in survey.sites:
                    refuse_nan_weights(survey, site)
                raise DataError(
                    f"the input of layer {name!r} is NaN or infinite on this data; "
                    "look for them in the data and in the weights before that layer"
                )
            if probe not in means:
                means[probe], sizes[probe] = _digest_probe(probe, rows, counted)
            if probe.kind is ProbeKind.GRAM:
                site = sites[name]
                shape = (-1, probe.channels, site.layer.taps, site.layer.taps)
                kernels = survey.rows(site.parts[0])
                gram = rows.reshape(shape)
                norms = kernel_norms(kernels, gram, site.layer.weights[0].groups)
                means[name] = Mean(norms[:, :, None], len(gram))
    return Record(means, sizes)


def merged(record: Record, other: Record) -> Record:
    """Return the record of the samples of both.

    Raises:
        DataError: `mean-map` met maps of several sizes, which have no mean.
    """
    for probe, sizes in other.sizes.items():
        if isinstance(probe, Probe) and probe.kind is ProbeKind.MAP:
            _refuse_several_sizes(probe, sizes.keys() | record.sizes.get(probe, sizes).keys())
    return record.merge(other)


def _refuse_several_sizes(probe: Probe, sizes: Set[tuple[int, ...]]) -> None:
    if len(sizes) > 1:
        raise DataError(
            f"--estimator mean-map needs maps of one size, and {probe.tensor!r} has "
            f"{' and '.join(map(str, sorted(sizes)[:3]))}; use --estimator paper or --resize"
        )


def refuse_nan_weights(survey: Survey, site: Site) -> None:
    """Refuse a layer with NaN or infinity in a weight or its bias.

    Raises:
        DataError: Naming the tensor and the layer.
    """
    for part in site.tensors:
        if not np.all(np.isfinite(survey.rows(part))):
            raise DataError(
                f"the weight '{part.view.home}' of layer {site.layer.name!r} holds NaN or "
                "infinity; mend the model, or leave the layer out with --skip"
            )


def _digest_probe(
    probe: Probe, rows: NDArray[Any], counted: NDArray[np.int64]
) -> tuple[Mean, Counter[tuple[int, ...]]]:
    if not probe.spatial:
        total = rows.reshape(-1, probe.row_entries).sum(axis=0, dtype=np.float64)
        return Mean(total, int(counted.sum())), Counter()
    sizes: Counter[tuple[int, ...]] = Counter()
    for row in counted.tolist():
        sizes[tuple(row[2:])] += row[0]
    samples = int(counted[:, 0].sum())
    if probe.kind is ProbeKind.GRAM:
        # What is left to know of the input itself: which channels are ever active.
        per_channel = rows.reshape(-1, probe.channels, probe.row_entries // probe.channels)
        energy = per_channel.sum(axis=(0, 2), dtype=np.float64)
        return Mean(energy, samples), sizes
    if probe.kind is ProbeKind.MAP:
        _refuse_several_sizes(probe, sizes.keys())
        if not sizes:
            return Mean(), sizes  # The branch that reads the map was not taken.
        total = rows.reshape(-1, probe.channels, *next(iter(sizes))).sum(axis=0, dtype=np.float64)
        return Mean(total, samples), sizes
    total = rows.reshape(-1, probe.row_entries).sum(axis=0, dtype=np.float64)
    return Mean(total, samples), sizes


def finish(
    survey: Survey,
    site: Site,
    probes: tuple[Probe, ...],
    record: Record,
    samples: int,
    settings: Settings,
) -> LayerActivity:
    """Return the activity of one layer from the record of all runs.

    Raises:
        DataError: A weight or bias of the layer is NaN or infinite.
    """
    refuse_nan_weights(survey, site)
    layer = site.layer
    parts = zip(layer.weights, site.parts, probes, strict=True)
    sizes = record.sizes[probes[0]]
    return LayerActivity(
        signals=tuple(
            _signal(survey, layer, weight, part, probe, record, settings)
            for weight, part, probe in parts
        ),
        bias_gain=_bias_gain(layer, sizes),
        positions=_positions(layer, probes[0], record, sizes) / samples,
    )


def _signal(
    survey: Survey,
    layer: Layer,
    weight: Weight,
    part: Part,
    probe: Probe,
    record: Record,
    settings: Settings,
) -> Signal:
    value = record.means[probe].finish()
    channels = weight.groups * weight.inputs
    if probe.kind is ProbeKind.GRAM:
        return Signal(measured=record.means[layer.name].finish(), is_whole=True, reads=value)
    if probe.kind is ProbeKind.KERNELS:
        by_channel = value.reshape(weight.groups, weight.inputs, -1)
        norms = by_channel.transpose(0, 2, 1).reshape(layer.units, weight.inputs, 1)
        return Signal(measured=norms, is_whole=True, reads=by_channel.sum(axis=2).reshape(-1))
    reads = value.reshape(channels, -1).sum(axis=1)
    if probe.kind is ProbeKind.MAP:
        assert layer.geometry is not None
        gram = patch_gram(value, layer.geometry)
        if settings.structure == KERNEL and layer.taps > 1:
            gram = gram[None].astype(np.float64 if probe.wide else np.float32)
            norms = kernel_norms(survey.rows(part), gram, weight.groups)[:, :, None]
            return Signal(measured=norms, is_whole=True, reads=reads)
        value = np.sqrt(np.einsum("ctt->ct", gram))
    measured = value.reshape(weight.groups, weight.inputs, -1)
    return Signal(measured=measured, is_whole=False, reads=reads)


def _bias_gain(layer: Layer, sizes: Mapping[tuple[int, ...], int]) -> float:
    if layer.geometry is None or not sizes:
        return 1.0
    roots = sum(
        count * float(np.sqrt(np.prod(layer.geometry.output_size(size))))
        for size, count in sizes.items()
    )
    return roots / sum(sizes.values())


def _positions(
    layer: Layer, probe: Probe, record: Record, sizes: Mapping[tuple[int, ...], int]
) -> float:
    """Return how often every weight was applied in all of the data."""
    if layer.geometry is None:
        return record.means[probe].count
    places = 0
    for size, count in sizes.items():
        # A ConvTranspose spreads every input value, a Conv gathers every output value.
        grid = size if layer.geometry.transposed else layer.geometry.output_size(size)
        places += count * int(np.prod(grid))
    return float(places)
