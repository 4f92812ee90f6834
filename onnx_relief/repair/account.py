"""What a repair that goes from layer to layer made, and how that is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from onnx_relief.graph.document import Document


@dataclass(frozen=True, eq=False, kw_only=True)
class Account:
    """What was made, of which layers, and what not.

    Attributes:
        document: The model with other weights and biases.
        layers: Layers that were repaired.
        left: Layers that cannot be, and why, in words.
        told: What was done, in words, with `{}` where the layers are counted.
        undone: What is not done to layers that are left.
    """

    document: Document
    layers: tuple[str, ...]
    left: Mapping[str, str]
    told: str
    undone: str

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done and what not, in sentences; each reason once."""
        reasons = Counter(self.left.values()).most_common()
        return (
            self.told.format(counted(len(self.layers), "layer")),
            *(
                f"{counted(count, 'layer')} {_are(count)} not {self.undone}: {reason}"
                for reason, count in reasons
            ),
        )


def counted(count: int, thing: str) -> str:
    """Return how many there are of something, in words."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
