"""How much is to be pruned, in the user's unit: exactly one of the budgets there are."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from onnx_relief.errors import SettingsError

_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """At most one is set; none is the share alpha of every unit's signal.

    Attributes:
        sparsity: Share of the prunable weights that goes.
        target_params: Share of all parameters that may stay.
        target_macs: Share of the multiply-accumulates that may stay, those with zeros not counted.
        target_bytes: Largest size of the model with its data files, zipped.
        max_drop: Largest loss of the metric, in points.
    """

    sparsity: float | None = None
    target_params: float | None = None
    target_macs: float | None = None
    target_bytes: int | None = None
    max_drop: float | None = None

    def __post_init__(self) -> None:
        said = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        if len(said) > 1:
            flags = " and ".join(map(_flag, said))
            raise SettingsError(f"there can be one budget only; choose between {flags}")
        for name in ("sparsity", "target_params", "target_macs"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise SettingsError(f"{_flag(name)} is a share between 0 and 1, got {value}")
        if self.target_bytes is not None and self.target_bytes < 1:
            raise SettingsError(f"--target-bytes must be at least 1, got {self.target_bytes}")
        if self.max_drop is not None and not 0 <= self.max_drop < 100:
            raise SettingsError(f"--max-drop is in points, 0 to 100, got {self.max_drop}")

    @property
    def name(self) -> str | None:
        """Which budget is set; None for alpha."""
        for field in fields(self):
            if getattr(self, field.name) is not None:
                return field.name
        return None

    def __str__(self) -> str:
        name = self.name
        return "alpha" if name is None else f"{_flag(name)} {getattr(self, name)}"


def parse_bytes(flag: str, text: str) -> int:
    """Return the number of bytes that was given for a flag.

    >>> [parse_bytes("--memory", size) for size in ("5MB", "1.5 KiB", "700")]
    [5000000, 1536, 700]

    Raises:
        SettingsError: It is none.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]{0,3})\s*", text)
    if found is None or found[2].lower() not in _UNITS:
        raise SettingsError(f"{flag} {text!r} is no size; say for example 5MB or 700KiB")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
