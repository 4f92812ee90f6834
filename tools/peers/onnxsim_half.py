"""Cut channels, then heads, with onnxsim, which has no command for it. Run with its own Python.

python onnxsim_half.py MODEL OUT RATIO
"""

from __future__ import annotations

import sys

import onnx
import onnxsim  # type: ignore[import-not-found, unused-ignore]


def main() -> None:
    """Simplify first, so that normalisation is folded and chains are plain: it needs both."""
    model, out, ratio = onnx.load(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    model, _ = onnxsim.simplify(model)
    model = onnxsim.apply_structured_pruning(model, sparsity=ratio)
    model = onnxsim.apply_attention_head_pruning(model, sparsity=ratio)
    onnx.save(model, out)


if __name__ == "__main__":
    main()
