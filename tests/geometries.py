"""Random convolutions for the tests that measure them, as Hypothesis strategies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st
from reference import output_frame

from onnx_relief.geometry import ConvGeometry


@dataclass(frozen=True)
class Shape:
    """Spatial input size, kernel, and the attributes of the node as ONNX has them."""

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    attributes: dict[str, Any]
    transposed: bool

    @property
    def geometry(self) -> ConvGeometry:
        """The same as the package has it."""
        rank, said = len(self.kernel), self.attributes
        return ConvGeometry(
            kernel=self.kernel,
            strides=tuple(said.get("strides", (1,) * rank)),
            dilations=tuple(said.get("dilations", (1,) * rank)),
            pads=tuple(said.get("pads", (0,) * rank * 2)),
            auto_pad=said.get("auto_pad", "NOTSET"),
            transposed=self.transposed,
            output_padding=tuple(said.get("output_padding", ())),
            output_shape=tuple(said.get("output_shape", ())),
        )


@st.composite
def shapes(draw: Any, kinds: Any = st.booleans()) -> Shape:  # noqa: B008
    """Draw a convolution in one to three dimensions that gives something.

    Args:
        draw: Given by Hypothesis.
        kinds: Whether it is a ConvTranspose.
    """
    rank, transposed = draw(st.integers(1, 3)), draw(kinds)
    most_taps, most_size = ((4, 9), (3, 5), (2, 4))[rank - 1]

    def each(low: int, high: int) -> list[int]:
        return [draw(st.integers(low, high)) for _ in range(rank)]

    kernel, said = tuple(each(1, most_taps)), {}
    if draw(st.booleans()):
        said["strides"] = each(1, 3)
    mode = draw(st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    # ONNX Runtime does not implement dilated convolutions with SAME.
    if draw(st.booleans()) and (transposed or not mode.startswith("SAME")):
        said["dilations"] = each(1, 2)
    if mode != "NOTSET":
        said["auto_pad"] = mode
    elif draw(st.booleans()):
        said["pads"] = [draw(st.integers(0, taps)) for taps in kernel * 2]
    if transposed:
        said |= draw(_of_the_output(said, rank))
    size = tuple(each(1, most_size))
    _, outputs = output_frame(size, kernel, said, transposed=transposed)
    assume(all(0 < out <= 12 for out in outputs))
    return Shape(size, kernel, said, transposed)


@st.composite
def _of_the_output(draw: Any, said: dict[str, Any], rank: int) -> dict[str, list[int]]:
    """Draw what only a ConvTranspose can be told."""
    more: dict[str, list[int]] = {}
    steps = zip(said.get("strides", [1] * rank), said.get("dilations", [1] * rank), strict=True)
    if draw(st.booleans()):
        more["output_padding"] = [draw(st.integers(0, max(step) - 1)) for step in steps]
    if draw(st.integers(0, 3)) == 0:
        more["output_shape"] = [draw(st.integers(1, 8)) for _ in range(rank)]
    return more
