"""Which statistics of a layer's input have to be measured: the table of probes.

A probe reads one tensor and gives, per run of the model, rows of statistics and rows of sizes.
Layers that read the same tensor in the same way share a probe.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from onnx_relief.geometry import ConvGeometry
from onnx_relief.graph.sites import Site
from onnx_relief.plan import LayerKind
from onnx_relief.settings import Estimator
from onnx_relief.structures import KERNEL, Structure


class ProbeKind(Enum):
    """What the rows of a probe hold; C channels, T taps, all of |x|, x the layer's input."""

    FEATURES = "sum over positions of |x|, one row (groups * features)"
    TAPS = "sum over samples of the norm of |x| as each tap sees it, one row (C * T)"
    GRAM = "patch Gram matrix per sample, rows (C, T, T)"
    KERNELS = "sum over samples of the norm of every kernel's map, one row (C * units per channel)"
    MAP = "sum over samples of |x|, one row (C, *spatial)"
    NORMS = "sum over samples of the norm of |x|, one row (C)"
    HIDDEN = "sum over steps of |previous hidden state|, one row (directions * hidden)"


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One measurement of one tensor; equal probes are the same measurement.

    Attributes:
        kind: What is measured.
        path: Path of the graph that holds the tensor.
        tensor: Name of the tensor.
        channels: Channels or features of the tensor.
        axis: FEATURES: which axis counts features, -1 or -2.
        batch: FEATURES: leading axes of a batched weight.
        matrix: FEATURES: whether the tensor is known to have two axes.
        geometry: TAPS, GRAM, KERNELS: the convolution that reads the tensor.
        width: HIDDEN: features of the layer's input, whose size counts the steps;
            KERNELS: kernels that read one channel.
        spatial: Convolutions: number of spatial axes.
        node: HIDDEN, KERNELS and sequences of several lengths: first output of the reading node.
        wide: Whether the statistics are kept in float64 rather than float32.
    """

    kind: ProbeKind
    path: str
    tensor: str
    channels: int
    axis: int = -1
    batch: tuple[int, ...] = ()
    matrix: bool = False
    geometry: ConvGeometry | None = None
    spatial: int = 0
    width: int = 0
    node: str = ""
    wide: bool = False

    @property
    def row_entries(self) -> int:
        """Entries of one row of statistics, where that does not depend on the data (not MAP)."""
        if self.kind is ProbeKind.KERNELS:
            return self.channels * self.width
        taps = self.geometry.taps if self.geometry else 1
        per_channel = taps * taps if self.kind is ProbeKind.GRAM else taps
        return self.channels * per_channel * int(np.prod(self.batch, dtype=np.int64))

    @property
    def size_entries(self) -> int:
        """Entries of one row of sizes: (N, C, *spatial) for convolutions, else (positions,)."""
        return 2 + self.spatial if self.spatial else 1


def probes_for(
    site: Site, estimator: Estimator, structure: Structure, *, brief: bool = False
) -> tuple[Probe, ...]:
    """Return the probes that `site` needs, one per weight of its layer.

    Args:
        site: The layer.
        estimator: How the signal of kernels is estimated.
        structure: Whether the signal of kernels or of single weights is wanted.
        brief: Whether the norm of every channel is enough, which takes a fraction of the time that
            the patches of convolutions take.
    """
    layer = site.layer
    path = site.scope.path
    wide = site.parts[0].view.dtype == np.float64
    if layer.kind is LayerKind.CONVOLUTION:
        kind = ProbeKind.NORMS if brief else _kind_for(site, estimator, structure)
        return (_convolution_probe(site, path, wide, kind),)
    if layer.kind is LayerKind.RECURRENT:
        return _recurrent_probes(site, path, wide)
    weight = layer.weights[0]
    matmul = layer.op == "MatMul"
    return (
        Probe(
            kind=ProbeKind.FEATURES,
            path=path,
            tensor=site.data,
            channels=weight.inputs,
            axis=site.reads.place,
            batch=site.parts[0].view.shape[:-2] if matmul and weight.groups > 1 else (),
            matrix=not matmul,
            wide=wide,
        ),
    )


def _kind_for(site: Site, estimator: Estimator, structure: Structure) -> ProbeKind:
    """Return how the signal of a convolution's connections is measured."""
    layer = site.layer
    if estimator is Estimator.MEAN_MAP:
        return ProbeKind.MAP
    if structure != KERNEL or layer.taps == 1:
        return ProbeKind.TAPS
    # Where few filters read a channel that has many taps (depthwise), their own maps are the
    # cheaper way to the same norms than the Gram matrix of the patches.
    few = layer.units // layer.weights[0].groups <= layer.taps
    return ProbeKind.KERNELS if few else ProbeKind.GRAM


def _convolution_probe(site: Site, path: str, wide: bool, kind: ProbeKind) -> Probe:
    layer, weight = site.layer, site.layer.weights[0]
    geometry = layer.geometry
    assert geometry is not None
    return Probe(
        kind=kind,
        path=path,
        tensor=site.data,
        channels=weight.inputs * weight.groups,
        # What is said of maps serves layers of any kernel; the rest depends on kernels' patches.
        geometry=None if kind in (ProbeKind.MAP, ProbeKind.NORMS) else geometry,
        spatial=geometry.rank,
        width=layer.units // weight.groups if kind is ProbeKind.KERNELS else 0,
        node=site.node.output[0] if kind is ProbeKind.KERNELS else "",
        wide=wide,
    )


def _recurrent_probes(site: Site, path: str, wide: bool) -> tuple[Probe, ...]:
    inputs, hidden = site.layer.weights
    lengths = len(site.node.input) > 4 and bool(site.node.input[4])
    key = next(name for name in site.node.output if name)
    common = {"path": path, "tensor": site.data, "wide": wide}
    return (
        Probe(
            kind=ProbeKind.FEATURES,
            channels=inputs.inputs,
            node=key if lengths else "",
            **common,  # type: ignore[arg-type]
        ),
        Probe(
            kind=ProbeKind.HIDDEN,
            channels=hidden.inputs * hidden.groups,
            node=key,
            width=inputs.inputs,
            **common,  # type: ignore[arg-type]
        ),
    )
