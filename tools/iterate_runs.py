"""What the runs of bench_iterate share: being told how far they are, and the curve as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnx_relief.history import IterationRow
from onnx_relief.training import EpochRow


@dataclass(frozen=True)
class Told:
    """Prints every epoch and iteration as it ends."""

    def epoch(self, row: EpochRow) -> None:
        """Print one epoch."""
        print(f"  epoch {row.epoch}: loss {row.train_loss:.4f}, {row.seconds:.0f} s", flush=True)

    def iteration(self, row: IterationRow) -> None:
        """Print one iteration."""
        print(
            f"iteration {row.iteration}: {row.remaining:.2f} % left, "
            f"{row.metric_pruned:.2f} -> {row.metric_retrained:.2f}, {row.seconds:.0f} s",
            flush=True,
        )


def curve(
    rows: Sequence[IterationRow], *, dense_epochs: int = 0, architecture: bool = True
) -> tuple[list[str], list[list[str]]]:
    """Return head and lines of a table with one line for each iteration.

    Args:
        rows: The dense model, then every iteration.
        dense_epochs: Epochs that the dense model was trained for; 0 where it was there before.
        architecture: Whether to say how many units of each layer are alive.
    """
    head = ["iteration", "alpha conv / other", "epochs in all", "weights left, %"]
    head += [
        "parameters left",
        "pruned, %",
        "retrained, %",
        *(["units alive"] if architecture else []),
    ]
    lines, spent = [], dense_epochs
    for row in rows:
        spent += row.epochs
        lines.append(
            [
                str(row.iteration) if row.iteration else "dense",
                " / ".join(f"{alpha:g}" for alpha in row.alpha) if row.iteration else "",
                str(spent),
                f"{row.remaining:.2f}",
                str(row.nonzero),
                f"{row.metric_pruned:.2f}" if row.iteration else "",
                f"{row.metric_retrained:.2f}",
                *(["-".join(map(str, row.architecture))] if architecture else []),
            ]
        )
    return head, lines


def settings_text(settings: Mapping[str, Any]) -> str:
    """Return settings as a caller writes them, equal neighbours of a list once."""
    return ", ".join(f"{name}={_short(value)}" for name, value in settings.items())


def _short(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return repr(value)
