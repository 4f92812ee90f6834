"""Set the weights of a model back to those of another one with the same tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnx_relief.errors import SettingsError
from onnx_relief.graph.document import Document
from onnx_relief.graph.quantised import Seen, dequantised
from onnx_relief.graph.rewrite import write_constants
from onnx_relief.graph.views import FLOATS, Constants
from onnx_relief.graph.walk import constants_by_home, understand


def rewound(document: Document, initial: Document) -> Document:
    """Return a copy of `document` with the float constants of `initial`; all else stays its own.

    Integers behind a DequantizeLinear are such constants.

    Raises:
        SettingsError: `initial` is another architecture.
    """
    ours, theirs = Constants(document), Constants(initial)
    integers = dequantised(ours, understand(document.proto))
    their_integers = dequantised(theirs, understand(initial.proto))
    values = {}
    for home in constants_by_home(document.proto):
        shape, kind = ours.shape_and_type(home)
        if kind.name not in FLOATS and home not in integers:
            continue
        if home not in theirs:
            raise _another(document, initial, f"has no tensor {str(home)!r}")
        found, their_kind = theirs.shape_and_type(home)
        if found != shape or their_kind != kind:
            raise _another(
                document,
                initial,
                f"holds {str(home)!r} as {their_kind.name} {found} instead of {kind.name} {shape}",
            )
        if home in integers and not _same_zeros(integers[home], their_integers.get(home)):
            raise _another(document, initial, f"gives {str(home)!r} other zero points")
        values[home] = theirs.stored(home)
    return write_constants(document, values)


def _same_zeros(ours: Sequence[Seen], theirs: Sequence[Seen] | None) -> bool:
    """Whether the same integers read as zero; these are no floats, and stay."""
    return theirs is not None and np.array_equal(ours[0][-1].zero, theirs[0][-1].zero)


def _another(document: Document, initial: Document, reason: str) -> SettingsError:
    return SettingsError(
        f"--rewind-to {initial.name} is no earlier state of {document.name}: it {reason}; give the "
        "same network with its initial weights"
    )
