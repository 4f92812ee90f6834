"""What is left of the dense model's tensors once channels were cut, so that both models compare."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onnx_relief.graph.sites import Site

Places = NDArray[np.int64]
Stays = Mapping[str, Mapping[int, Places]]
"""By tensor of the dense model and by axis, counted from the end, which places stay; tensors and
axes that are missing are whole."""

UNKNOWN_UNITS: Final = "it is not known which of its units were cut"
"""Why a layer stays as it is that has other units than `units_left` says."""


def part_left(stays: Stays, tensor: str, value: NDArray[Any]) -> NDArray[Any]:
    """Return of what the dense model gives for a tensor the part that the smaller one has, too."""
    for axis, places in stays.get(tensor, {}).items():
        value = np.take(value, places, axis=axis)
    return value


def units_left(stays: Stays, twin: Site) -> Places:
    """Return which units of a dense layer stay, of those that it has in order."""
    axes = _unit_axes(twin)
    units = np.arange(prod(axes.values())).reshape(tuple(axes.values()))
    left = stays.get(twin.node.output[0], {})
    for number, axis in enumerate(axes):
        if axis in left:
            units = np.take(units, left[axis], axis=number)
    return units.reshape(-1)


def lost_positions(stays: Stays, twin: Site) -> bool:
    """Return whether a dense layer has been cut along other axes than that of its units."""
    return not stays.get(twin.node.output[0], {}).keys() <= _unit_axes(twin).keys()


def _unit_axes(site: Site) -> dict[int, int]:
    """Return the axes of a layer's output that hold its units, from the end, and their sizes."""
    if site.layer.geometry is not None:
        return {-1 - site.layer.geometry.rank: site.layer.units}
    sizes, last = site.unit_axes, site.makes.place
    return dict(zip(range(last - len(sizes) + 1, last + 1), sizes, strict=True))
