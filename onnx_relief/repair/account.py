"""What a repair that goes from layer to layer made, and how that is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

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
        spared: The model without what was done to `ends`; None where nothing was.
        ends: Of `layers` those whose outputs no other layer reads.
    """

    document: Document
    layers: tuple[str, ...]
    left: Mapping[str, str]
    told: str
    undone: str
    spared: Document | None = None
    ends: tuple[str, ...] = ()

    def without_ends(self, reason: str) -> Account:
        """Return what was made without what was done to `ends`, which are left for that reason."""
        if self.spared is None:
            return self
        return replace(
            self,
            document=self.spared,
            layers=tuple(name for name in self.layers if name not in self.ends),
            left={**self.left, **dict.fromkeys(self.ends, reason)},
            spared=None,
            ends=(),
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done and what not, in sentences; each reason once."""
        reasons = Counter(self.left.values()).most_common()
        return (
            self.told.format(counted(len(self.layers), "layer")),
            *(
                f"{counted(count, 'layer')} {_are_not(count, self.undone)} {reason}"
                for reason, count in reasons
            ),
        )


def counted(count: int, thing: str) -> str:
    """Return how many there are of something, in words."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def _are_not(count: int, undone: str) -> str:
    """Lead over to a reason, which is said of one layer."""
    return f"is not {undone}:" if count == 1 else f"are not {undone}, each because"
