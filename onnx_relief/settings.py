"""What the user can decide about pruning, checked when it is said."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from typing import Final

from onnx_relief.analysis import Points
from onnx_relief.budget import Budget
from onnx_relief.errors import SettingsError
from onnx_relief.plan import TOGETHER, Layer, LayerKind
from onnx_relief.structures import KERNEL, WEIGHT, Pattern, Structure

DEFAULT_ALPHA = 0.95
REPAIRS = ("none", "bias", "least-squares", "reconstruct")
NO_BUDGET: Final = Budget()
DEFAULT_MEMORY: Final = 2 << 30


class Estimator(Enum):
    """How the signal of a kernel is estimated: as in the paper, or as in its authors' code."""

    PAPER = "paper"
    MEAN_MAP = "mean-map"


class Scope(Enum):
    """Whether every layer keeps the same share, or what the whole model needs most."""

    LAYER = "layer"
    GLOBAL = "global"


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """How the repair `reconstruct` trains.

    Attributes:
        epochs: Walks through the calibration data; None for about ten minutes of a core.
        flip: Whether pictures are mirrored left to right at random.
        crop_padding: Pixels of zeros around pictures before a random crop to their size.
        crop_scale: Least share of the area that the model sees, a random part of which is enlarged
            to the whole; 1 for none.
        color_jitter: By how much of themselves brightness, contrast and saturation change at most.
        cutmix: Share of pictures that get a part of another one.
    """

    epochs: int | None = None
    flip: bool = False
    crop_padding: int = 0
    crop_scale: float = 1.0
    color_jitter: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        if self.epochs is not None and not 1 <= self.epochs <= 100_000:
            raise SettingsError(f"--repair-epochs must be 1 to 100000, got {self.epochs}")
        if self.crop_padding < 0:
            raise SettingsError(f"--crop-padding must be at least 0, got {self.crop_padding}")
        if not 0 < self.crop_scale <= 1:
            raise SettingsError(f"--crop-scale must lie in (0, 1], got {self.crop_scale}")
        if not 0 <= self.color_jitter < 1:
            raise SettingsError(f"--color-jitter must lie in [0, 1), got {self.color_jitter}")
        if not 0 <= self.cutmix <= 1:
            raise SettingsError(f"--cutmix must lie in [0, 1], got {self.cutmix}")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The choices of `prune`.

    Attributes:
        alpha: Share of each unit's signal to keep; overridden by the next three.
        alpha_conv: The same for convolutions.
        alpha_fc: The same for everything else.
        alpha_layers: (pattern, alpha) by name of layer or weight; the last match counts.
        estimator: How the signal of kernels is estimated.
        structure: What goes as one (``--granularity``).
        criterion: What scores connections; empty for ``relief``, the paper's, without a budget and
            ``obs``, which is ahead of it on every model that was measured, with one.
        budget: How much goes, where that is not said by alpha.
        scope: How a budget is spread over the layers.
        sensitivity: By layer, (share that goes, what the model loses), where that was measured.
        memory: Bytes that statistics may take, about.
        seed: For what is drawn.
        repair: How the weights that stay make up for those that go, one of `REPAIRS`; empty for
            ``least-squares`` with a budget and ``none`` without, where retraining follows.
        reconstruction: How it trains where it does.
        only: Patterns; layers that match none of them are left alone.
        skip: Patterns; layers that match one of them are left alone.
        samples: At most so many samples of the calibration data, evenly spread; None for all.
        batch_size: Samples per run, where the model leaves that open.
        provider: Execution provider of ONNX Runtime.
    """

    alpha: float = DEFAULT_ALPHA
    alpha_conv: float | None = None
    alpha_fc: float | None = None
    alpha_layers: tuple[tuple[str, float], ...] = ()
    estimator: Estimator = Estimator.PAPER
    structure: Structure = KERNEL
    criterion: str = ""
    budget: Budget = NO_BUDGET
    scope: Scope = Scope.GLOBAL
    sensitivity: tuple[tuple[str, Points], ...] = ()
    memory: int = DEFAULT_MEMORY
    seed: int = 0
    repair: str = ""
    reconstruction: Reconstruction = Reconstruction()
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    samples: int | None = 1000
    batch_size: int = 16
    provider: str = "auto"

    def __post_init__(self) -> None:
        named = (("--alpha", self.alpha), ("--alpha-conv", self.alpha_conv))
        layers = (("--alpha-layer " + pattern, value) for pattern, value in self.alpha_layers)
        for flag, value in (*named, ("--alpha-fc", self.alpha_fc), *layers):
            if value is not None and not 0.0 < value <= 1.0:
                raise SettingsError(f"{flag} must lie in (0, 1], got {value}")
        if self.budget.name is not None:
            refuse_besides(str(self.budget), NO_BUDGET, self.structure)
        self._check_alphas()
        if self.samples is not None and self.samples < 1:
            raise SettingsError(f"--samples must be at least 1, got {self.samples}")
        if self.memory < 1_000_000:
            raise SettingsError(f"--memory must be at least 1MB, got {self.memory} bytes")
        if self.seed < 0:
            raise SettingsError(f"--seed must be at least 0, got {self.seed}")
        aims = self.budget.name is not None or self.has_exact_share
        if not self.criterion:
            object.__setattr__(self, "criterion", "obs" if aims else "relief")
        if not self.repair:
            object.__setattr__(self, "repair", "least-squares" if aims else "none")
        if self.repair not in REPAIRS:
            names = ", ".join(REPAIRS)
            raise SettingsError(f"--repair {self.repair!r} does not exist; choose one of {names}")
        if self.batch_size < 1:
            raise SettingsError(f"--batch-size must be at least 1, got {self.batch_size}")

    def _check_alphas(self) -> None:
        alphas = (
            ("--alpha-conv", self.alpha_conv),
            ("--alpha-fc", self.alpha_fc),
            ("--alpha-layer", self.alpha_layers or None),
        )
        for flag, value in alphas:
            if value is not None:
                refuse_besides(flag, self.budget, self.structure)

    @property
    def covers(self) -> bool:
        """Whether this is the paper's method: per unit, the share alpha of its signal."""
        plain = self.structure in (KERNEL, WEIGHT) and self.criterion == "relief"
        return plain and self.budget.name is None

    @property
    def has_exact_share(self) -> bool:
        """Whether the structure itself says how much stays."""
        return self.structure.exact_share is not None

    @property
    def alphas(self) -> tuple[float, float]:
        """Alpha of convolutions, and of everything else, where no name says otherwise."""
        return (
            self.alpha if self.alpha_conv is None else self.alpha_conv,
            self.alpha if self.alpha_fc is None else self.alpha_fc,
        )

    def alpha_for(self, layer: Layer) -> float:
        """Return the alpha of one layer."""
        for pattern, alpha in reversed(self.alpha_layers):
            if matches(layer, pattern):
                return alpha
        convolutions, others = self.alphas
        return convolutions if layer.kind is LayerKind.CONVOLUTION else others

    def leaves_out(self, layer: Layer) -> str | None:
        """Return why the user wants `layer` left alone, or None."""
        if self.only and not any(matches(layer, pattern) for pattern in self.only):
            return "it matches no --only pattern"
        skipped = next((pattern for pattern in self.skip if matches(layer, pattern)), None)
        return f"--skip {skipped}" if skipped is not None else None

    def check_patterns(self, layers: tuple[Layer, ...]) -> None:
        """Refuse a pattern that matches nothing: it is a typing mistake.

        Raises:
            SettingsError: Naming the pattern and some layers that exist.
        """
        alphas = (("--alpha-layer", pattern) for pattern, _ in self.alpha_layers)
        said = (*(("--only", p) for p in self.only), *(("--skip", p) for p in self.skip), *alphas)
        for flag, pattern in said:
            if not any(matches(layer, pattern) for layer in layers):
                names = ", ".join(layer.name for layer in layers[:5])
                raise SettingsError(
                    f"{flag} {pattern!r} matches no layer; there are for example {names} "
                    "(`onnx-relief inspect` lists all)"
                )


def alpha_besides(alpha: float | None, budget: Budget, structure: Structure) -> float:
    """Return alpha as the user gave it, or else by default.

    Raises:
        SettingsError: It is given although something else says how much goes.
    """
    if alpha is None:
        return DEFAULT_ALPHA
    refuse_besides("--alpha", budget, structure)
    return alpha


def refuse_besides(flag: str, budget: Budget, structure: Structure) -> None:
    """Refuse a flag that says how much goes if a budget or the structure says it, too.

    Raises:
        SettingsError: One of them does.
    """
    other = None if budget.name is None else str(budget)
    if structure.pattern is Pattern.N_OF_M:
        other = f"--granularity {structure}"
    if other is not None:
        raise SettingsError(f"{flag} and {other} both say how much goes; give one of them")


def matches(layer: Layer, pattern: str) -> bool:
    """Whether `pattern` (shell wildcards) names the layer, one of its weights or a part of one."""
    weights = [weight.name for weight in layer.weights]
    names = (layer.name, *weights, *(part for name in weights for part in name.split(TOGETHER)))
    return any(fnmatchcase(name, pattern) or name == pattern for name in names)
