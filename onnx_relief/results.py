"""What was measured: frozen values between those who measure and those who tell.

They know neither ONNX nor a runtime. Sizes are in bytes, times in milliseconds, shares in percent
where `unit` says so. None always means "not known", never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Progress = Callable[[str, int, "int | None"], None]
"""Called with a stage in words, how much of it is done, and of how much (None: not known)."""


@dataclass(frozen=True, kw_only=True)
class FileSize:
    """One file of a model.

    Attributes:
        name: Name relative to the model's folder.
        plain: Size in bytes.
        zipped: Size after deflate at level 6, as zip does it.
        sha256: Digest of the contents, in hex.
    """

    name: str
    plain: int
    zipped: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """Size and work of one layer, as its weights are now.

    Attributes:
        layer: The layer's name.
        connections: Kernels or weights.
        kept: Connections with a weight that is not zero.
        weights: Single weights.
        nonzero: Weights that are not zero.
        units: Output channels or neurons.
        alive: Units with a weight that is not zero.
        positions: How often every weight is applied per sample.
    """

    layer: str
    connections: int
    kept: int
    weights: int
    nonzero: int
    units: int
    alive: int
    positions: float | None = None

    @property
    def macs(self) -> float | None:
        """Multiply-accumulates per sample, zeros included."""
        return None if self.positions is None else self.weights * self.positions

    @property
    def effective_macs(self) -> float | None:
        """Multiply-accumulates per sample with weights that are not zero."""
        return None if self.positions is None else self.nonzero * self.positions


@dataclass(frozen=True, kw_only=True)
class ModelCost:
    """Size and work of a model.

    Attributes:
        name: The model as messages call it.
        files: The model's file, then its data files.
        parameters: Elements of all constants that act on data as real numbers.
        nonzero: Those that are not zero.
        layers: One entry per layer.
    """

    name: str
    files: tuple[FileSize, ...]
    parameters: int
    nonzero: int
    layers: tuple[LayerCost, ...]

    @property
    def plain(self) -> int:
        """Bytes of all files."""
        return sum(file.plain for file in self.files)

    @property
    def zipped(self) -> int:
        """Bytes of all files, zipped."""
        return sum(file.zipped for file in self.files)

    @property
    def macs(self) -> float | None:
        """Multiply-accumulates per sample of the layers where they are known."""
        return _total([layer.macs for layer in self.layers])

    @property
    def effective_macs(self) -> float | None:
        """The same without zeros."""
        return _total([layer.effective_macs for layer in self.layers])

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """Layers that `macs` leaves out."""
        return tuple(layer.layer for layer in self.layers if layer.positions is None)


@dataclass(frozen=True, kw_only=True)
class RepairRow:
    """How a repair turned out.

    Attributes:
        kind: How it was repaired.
        before: Relative mean square error of the outputs to the dense model's, on held-out
            samples, before the repair; None where no output can be compared.
        after: The same with the repair, whether it is undone or not.
        undone: Whether the repair made that worse, and so was taken back.
        notes: What has to be said besides, in sentences.
    """

    kind: str
    before: float | None
    after: float | None
    undone: bool
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class OutputDifference:
    """How far one output of two models lies apart.

    Attributes:
        output: Name of the output.
        largest: Largest absolute difference of an element.
        relative_error: Euclidean norm of the difference over that of the dense output.
        unexplained: Euclidean norm of the difference over that of the dense output's distance from
            its own mean over samples: 1 for the best constant, whatever that mean is.
        cosine: Mean over samples of the cosine between both outputs; None where a sample is a
            single number, of which it would be the sign.
        nan_dense: Elements of the dense output that are NaN; they are left out above.
        nan_pruned: The same of the pruned output.
        broken: Elements that are numbers in the dense output, and NaN or infinite in the pruned
            one: the differences are infinite then, and such samples have a cosine of 0.
    """

    output: str
    largest: float | None
    relative_error: float | None
    unexplained: float | None = None
    cosine: float | None = None
    nan_dense: int = 0
    nan_pruned: int = 0
    broken: int = 0


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a comparison of two models on data showed.

    Attributes:
        metric: Name of the metric.
        unit: ``%`` or nothing.
        output: The output that the metric looked at.
        dense: Score of the dense model; None where the metric compares with it.
        pruned: Score of the pruned model.
        samples: Number of samples.
        data: What the data is, in words.
        margin: Half of the 95 % confidence interval of the difference between both scores, in
            points, as far as the number of samples allows; None where it is not known.
        differences: One entry per output that can be compared.
        notes: What has to be said besides, in sentences.
    """

    metric: str
    unit: str
    output: str
    dense: float | None
    pruned: float | None
    samples: int
    data: str
    margin: float | None = None
    differences: tuple[OutputDifference, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Score:
    """What one model reached on labelled data; fields as in `Evaluation`."""

    metric: str
    unit: str
    output: str
    value: float
    samples: int
    data: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long one run of a model takes.

    Attributes:
        median: The lowest of the medians of several sessions.
        slowest: The highest of them.
        sessions: Number of sessions.
        runs: Timed runs in all of them.
    """

    median: float
    slowest: float
    sessions: int
    runs: int


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Timings of several models side by side, in the order they were given.

    Attributes:
        timings: One entry per model.
        samples: Samples in one run.
        provider: The execution provider that ran them.
        threads: Threads within an operator; None for ONNX Runtime's own choice.
    """

    timings: tuple[Timing, ...]
    samples: int
    provider: str
    threads: int | None = None


def _total(parts: Sequence[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if known else None
