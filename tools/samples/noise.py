"""Inputs for the zoo, whose answers mean nothing: normal numbers, small word numbers, no gaps."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import onnx

from onnx_relief.graph.document import input_specs
from onnx_relief.tensors import TensorSpec
from samples import Array, Case, Sizes

SEED: Final = 2109
WORDS: Final = 500
"""No table of words in the zoo is shorter."""


def made_up(model: Path, sizes: Sizes) -> Case:
    """Return seeded samples of the sizes that a model asks for."""
    rng = np.random.default_rng(SEED)
    specs = input_specs(onnx.load(model))
    calibration, test = (
        {spec.name: _drawn(spec, count, rng) for spec in specs}
        for count in (sizes.dear_calibration, sizes.dear_test)
    )
    return Case(
        calibration=calibration,
        test=test,
        data=f"{sizes.dear_calibration} + {sizes.dear_test} samples of noise",
        metric="cosine",
        score="cosine to dense, times 100",
    )


def _drawn(spec: TensorSpec, count: int, rng: np.random.Generator) -> Array:
    shape = (count, *(size if isinstance(size, int) else 16 for size in (spec.shape or ())[1:]))
    if spec.name == "mask":
        return np.ones(shape, spec.dtype)
    if spec.dtype is not None and np.issubdtype(spec.dtype, np.integer):
        return rng.integers(0, WORDS, shape).astype(spec.dtype)
    return rng.normal(size=shape).astype(np.float32)
