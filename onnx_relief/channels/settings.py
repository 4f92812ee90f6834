"""How many channels go, and how what is lost is made up for."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_relief.errors import SettingsError

REPAIRS = ("none", "mean", "bias", "least-squares", "reconstruct")
DEFAULT_RATIO = 0.3


@dataclass(frozen=True, kw_only=True)
class ChannelSettings:
    """How many channels go; of `ratio` and the targets, one at most is given.

    Attributes:
        ratio: Share of the groups that goes; `DEFAULT_RATIO` where there is no target either.
        scope: ``layer``, the same share everywhere, or ``global``, wherever least is lost; None for
            ``layer`` with a ratio and ``global`` with a target.
        round_to: Keep a multiple of so many channels; None decides by measuring latency.
        least: Keep at least so many channels of every kind.
        repair: ``none``, ``mean`` (biases give back the mean signal that is lost, in closed form),
            then ``bias`` (every unit gets its dense mean and variance back, layer by layer),
            ``least-squares`` (weights give the dense layers' outputs again, in closed form) or
            ``reconstruct`` (they are trained to).
        target_params: The share of the layers' weights that may stay.
        target_macs: The share of the multiply-accumulates that may stay.
        target_latency: The share of the latency that may stay, measured on this machine.
        heads: Whether whole heads of attention go, instead of a part of each.
        latency_batch: Samples per run where latency is measured.
        latency_threads: Threads there; 0 for ONNX Runtime's own choice.
    """

    ratio: float | None = None
    scope: str | None = None
    round_to: int | None = None
    least: int = 1
    repair: str = "least-squares"
    target_params: float | None = None
    target_macs: float | None = None
    target_latency: float | None = None
    heads: bool = False
    latency_batch: int = 1
    latency_threads: int = 1

    def __post_init__(self) -> None:
        given = [flag for flag, share in self._budgets.items() if share is not None]
        if len(given) > 1:
            raise SettingsError(
                f"{' and '.join(given)} say how much goes; give one of them, not both"
            )
        for flag, share in self._budgets.items():
            if share is not None and not 0 < share < 1:
                raise SettingsError(f"{flag} is a share between 0 and 1, got {share}")
        if self.repair not in REPAIRS:
            names = ", ".join(REPAIRS)
            raise SettingsError(f"--repair {self.repair!r} does not exist; choose one of {names}")
        if self.scope is None:
            targets = any(share is not None for share in (*self._budgets.values(),)[1:])
            object.__setattr__(self, "scope", "global" if targets else "layer")
        if self.scope not in ("layer", "global"):
            raise SettingsError(f"--scope {self.scope!r} does not exist; choose layer or global")
        if self.round_to is not None and self.round_to < 1:
            raise SettingsError(f"--round-to must be at least 1, or auto, got {self.round_to}")
        if self.least < 1:
            raise SettingsError(f"--min-units must be at least 1, got {self.least}")
        if self.latency_batch < 1:
            raise SettingsError(f"--latency-batch must be at least 1, got {self.latency_batch}")

    @property
    def _budgets(self) -> dict[str, float | None]:
        return {
            "--ratio": self.ratio,
            "--target-params": self.target_params,
            "--target-macs": self.target_macs,
            "--target-latency": self.target_latency,
        }
