"""Quantise ResNet-20 to int8 as ONNX Runtime's guide has it, for tools/bench_oneshot.py.

Normalisation is folded; weights are quantised per channel, activations by the range that they have
on 200 calibration pictures; DequantizeLinear and QuantizeLinear stand around every layer.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from _bench import ROOT, MissingError
from oneshot.tasks import Task, task
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

from onnx_relief.graph.document import load

EXAMPLE: Final = """example:
  python tools/make_int8.py
"""
_PICTURES: Final = 200


class _Pictures(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Hands the calibration pictures of a task to the quantiser, batch by batch."""

    def __init__(self, of: Task) -> None:
        data = of.data(load(of.model), calibration=True).take(_PICTURES)
        self._feeds: Iterator[dict[str, Any]] = (dict(batch.feed) for batch in data.batches(50))

    def get_next(self) -> dict[str, Any] | None:
        """Return the next feed, None after the last."""
        return next(self._feeds, None)


def main() -> int:
    """Write the model, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    target = ROOT / "corpus" / "cifar10-resnet20-int8.onnx"
    parser.add_argument("--to", type=Path, default=target, metavar="FILE", help="default: corpus")
    target = parser.parse_args().to
    logging.getLogger().setLevel(logging.ERROR)
    try:
        dense = task("resnet20")
    except MissingError as error:
        print(error, file=sys.stderr)
        return 1
    target.parent.mkdir(parents=True, exist_ok=True)
    folded = target.with_name(target.name + ".folded")
    aside = target.with_name(target.name + ".part")
    try:
        quant_pre_process(str(dense.model), str(folded), skip_symbolic_shape=True)
        quantization.quantize_static(str(folded), str(aside), _Pictures(dense), per_channel=True)
        aside.replace(target)
    finally:
        folded.unlink(missing_ok=True)
        aside.unlink(missing_ok=True)
    print(f"written: {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
