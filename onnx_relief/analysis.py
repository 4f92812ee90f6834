"""How much a model loses when one part of it alone is pruned: values, to and from JSON.

The reader of a file trusts nothing in it: it may have been changed by anybody.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from onnx_relief.errors import SettingsError

FORMAT: Final = "onnx-relief analysis 1"
DENSE: Final = "dense"
LAYER: Final = "layer"
CHANNELS: Final = "channels"
KINDS: Final = (DENSE, LAYER, CHANNELS)

Points = tuple[tuple[float, float], ...]
"""(share that goes, what is lost by it), the shares rising."""


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """What one trial showed.

    Attributes:
        kind: ``layer``, ``channels`` that live or die together, or ``dense``: the whole model.
        name: The layer, or the constant that the channels run through; empty for the dense model.
        sparsity: The share that was to go.
        kept: The share of weights, or of groups of channels, that really stayed.
        score: The metric; None where it has no number.
        distance: Mean square error of the outputs relative to their variance, on a few samples;
            None where no output holds floats.
    """

    kind: str
    name: str
    sparsity: float
    kept: float
    score: float | None
    distance: float | None

    @property
    def key(self) -> tuple[str, str, float]:
        """What tells it from other trials of one analysis."""
        return self.kind, self.name, self.sparsity


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """Everything that was tried.

    Attributes:
        model: What the model is called.
        digest: Of its contents.
        metric: What the scores are.
        unit: ``%`` or nothing.
        data: What the models were judged on, in words.
        criterion: What scored connections.
        granularity: What went as one.
        sparsities: Shares that were to go.
        trials: The dense model first, then layers and channels in the order of the model.
        notes: What has to be said besides, in sentences.
    """

    model: str
    digest: str
    metric: str
    unit: str
    data: str
    criterion: str
    granularity: str
    sparsities: tuple[float, ...]
    trials: tuple[TrialRow, ...]
    notes: tuple[str, ...] = ()

    @property
    def dense(self) -> float | None:
        """The score of the model as it is."""
        return next((row.score for row in self.trials if row.kind == DENSE), None)

    @property
    def better_is_less(self) -> bool:
        """Whether a lower score is a better one."""
        return self.metric in ("error", "divergence", "kl")

    def shares(self, kind: str) -> tuple[float, ...]:
        """Return the shares that were to go of layers, or of channels, rising."""
        return tuple(sorted({row.sparsity for row in self.trials if row.kind == kind}))

    def names(self, kind: str) -> tuple[str, ...]:
        """Return the layers or the kinds of channels, in order."""
        return tuple(dict.fromkeys(row.name for row in self.trials if row.kind == kind))

    def rows(self, kind: str, name: str) -> tuple[TrialRow, ...]:
        """Return the trials of one of them, the shares that go rising."""
        found = [row for row in self.trials if (row.kind, row.name) == (kind, name)]
        return tuple(sorted(found, key=lambda row: row.sparsity))

    def lost(self, row: TrialRow) -> float | None:
        """Return by how much a score is worse than the dense model's."""
        if row.score is None or self.dense is None:
            return None
        return row.score - self.dense if self.better_is_less else self.dense - row.score

    def losses(self) -> dict[str, Points]:
        """Return by layer what it loses at which share that goes: distance, else score."""
        found = {}
        for name in self.names(LAYER):
            points = []
            for row in self.rows(LAYER, name):
                lost = self.lost(row) if row.distance is None else row.distance
                if lost is not None:
                    points.append((1 - row.kept, max(lost, 0.0)))
            found[name] = tuple(points)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"format": FORMAT, **asdict(self), "dense": self.dense}

    def to_json(self) -> str:
        """Return it as JSON text of printable ASCII."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Analysis:
        """Return the analysis that a text holds.

        Raises:
            SettingsError: It holds none.
        """
        try:
            found = json.loads(text)
            if found["format"] != FORMAT:
                raise ValueError(found["format"])
            words = {
                name: _text(found[name])
                for name in ("model", "digest", "metric", "unit", "data", "criterion")
            }
            return cls(
                **words,
                granularity=_text(found["granularity"]),
                sparsities=tuple(map(_number, found["sparsities"])),
                trials=tuple(map(row_of, found["trials"])),
                notes=tuple(map(_text, found["notes"])),
            )
        except _NO_ANALYSIS as error:
            raise SettingsError("it is no analysis; make one with `onnx-relief analyze`") from error


# What json and our own questions raise on text that is anything else.
_NO_ANALYSIS = (
    *(ValueError, KeyError, TypeError, AttributeError),
    *(OverflowError, RecursionError),
)


def read_analysis(path: Path, flag: str) -> Analysis:
    """Return the analysis in a file that was named with `flag`.

    Raises:
        SettingsError: It cannot be read or is none.
    """
    try:
        return Analysis.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise SettingsError(f"{flag} {path} cannot be read: {reason}; check the path") from error
    except SettingsError as error:
        raise SettingsError(f"{flag} {path}: {error}") from error


def row_of(found: Mapping[str, Any]) -> TrialRow:
    """Return a trial from plain data.

    Raises:
        ValueError, KeyError, TypeError, OverflowError: It is none.
    """
    if set(found) != {field.name for field in fields(TrialRow)} or found["kind"] not in KINDS:
        raise ValueError("no trial")
    numbers = {key: _number(found[key]) for key in ("sparsity", "kept")}
    if not all(0 <= number <= 1 for number in numbers.values()):
        raise ValueError("no share")
    known = {
        key: None if found[key] is None else _number(found[key]) for key in ("score", "distance")
    }
    return TrialRow(kind=found["kind"], name=_text(found["name"]), **numbers, **known)  # type: ignore[arg-type]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(value)
    return float(value)
