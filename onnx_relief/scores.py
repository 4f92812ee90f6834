"""The scores of every connection by the names of the weights, as arrays and as an .npz file.

They are those of the criterion that decided, as shares of their unit (of the layer, where units go
whole). By `obs` survivors are found together, so that they are not just those with the best scores.
The arrays are (units, inputs per group) for kernels and for fully connected layers. For
convolutions scored weight by weight they have the weight's own shape. Biases, which only the
paper's method (`relief` with alpha) scores, are (units,), or (units, biases per unit) where there
are several.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from onnx_relief.decide import Scores
from onnx_relief.graph.sites import Site
from onnx_relief.pipeline import Pruned
from onnx_relief.plan import LayerKind
from onnx_relief.structures import KERNEL, Structure

Array = NDArray[Any]


def scores_by_weight(pruned: Pruned, structure: Structure) -> dict[str, Array]:
    """Return the scores of all layers; a weight that several layers score gets ``@layer``."""
    found: dict[str, Array] = {}
    for site in pruned.survey.sites:
        scores = pruned.scores.get(site.layer.name)
        if scores is None:
            continue
        arrays = dict(_arrays(site, scores, structure))
        suffix = f"@{site.layer.name}" if any(name in found for name in arrays) else ""
        found |= {f"{name}{suffix}": array for name, array in arrays.items()}
    return found


def write_scores(file: IO[bytes], scores: Mapping[str, Array]) -> None:
    """Write scores as ``.npz``: the same bytes for the same scores, whatever the names hold."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in scores.items():
            # A zip entry's name ends at a zero byte.
            entry = zipfile.ZipInfo(f"{name.replace(chr(0), '_')}.npy")
            with archive.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)


def _arrays(site: Site, scores: Scores, structure: Structure) -> Iterator[tuple[str, Array]]:
    layer = site.layer
    whole = layer.kind is LayerKind.CONVOLUTION and structure != KERNEL
    for weight, part, rows in zip(layer.weights, site.parts, scores.weights, strict=True):
        if rows.size:
            shaped = part.layout.from_rows(rows, part.view.shape) if whole else rows.sum(axis=2)
            yield weight.name, shaped
    if scores.bias.shape[1]:
        bias = scores.bias[:, 0] if scores.bias.shape[1] == 1 else scores.bias
        yield f"{layer.weights[0].name}/bias", bias
