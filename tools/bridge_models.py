"""Real models through the bridge: ONNX to PyTorch and back, checked on real samples.

For every model of `models/` and of the corpus: how far each output of the PyTorch module lies from
ONNX Runtime, dense and with half of the weights held at zero; how many numbers would be trained,
and whether all of them get a gradient; whether the file that goes back untrained is the original,
field by field. Writes docs/bridge-models.md with --markdown.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from _bench import MissingError, provenance, table, write_aside
from corpus_data import Entry, chosen, opened
from samples import QUICK, Array

from onnx_relief.bridge.back import write_back
from onnx_relief.bridge.check import check, tensors
from onnx_relief.bridge.convert import convert
from onnx_relief.bridge.module import OnnxModule
from onnx_relief.data import first_sample
from onnx_relief.errors import ReliefError
from onnx_relief.graph.document import Document, input_specs, load
from onnx_relief.tensors import TensorSpec

EXAMPLE: Final = """example:
  python tools/bridge_models.py --only 'ppocr-*' magika
  python tools/bridge_models.py --markdown docs/bridge-models.md
"""
HEAD: Final = (
    *("model", "made with", "weights trained", "with gradient", "largest difference"),
    *("half masked", "file goes back unchanged"),
)
INTRODUCTION: Final = (
    "Real models, turned into a PyTorch module and back. Differences are of an element, relative "
    "to the largest magnitude of its output, against ONNX Runtime on a real sample: of the dense "
    "model, and with every other weight held at zero. A gradient cannot reach the branch of an If "
    "that the sample does not take. Where a model cannot be carried the reason stands instead; it "
    "can be pruned all the same."
)


def main() -> int:
    """Print one line for every model; 6 if one that is carried differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="PATTERN", help="names with shell wildcards")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for entry in chosen(options.only):
        rows.append(_row(entry))
        print(*rows[-1], sep="  ", flush=True)
    if options.markdown:
        made = provenance(f"tools/bridge_models.py --markdown {options.markdown}")
        parts = ("# Models through the bridge", INTRODUCTION, made, table(HEAD, rows, left=2))
        write_aside(options.markdown, "\n\n".join(parts) + "\n")
    return 6 if any(row[-1] == "NO" for row in rows) else 0


def _row(entry: Entry) -> Sequence[str]:
    try:
        document = load(entry.find())
        feed = _sample(entry, document)
        return [entry.name, entry.origin, *_carried(document, feed)]
    except MissingError as error:
        return [entry.name, entry.origin, f"skipped: {error}", "", "", "", ""]
    except ReliefError as error:
        reason = str(error).split("cannot be trained: ")[-1].split(";")[0]
        return [entry.name, entry.origin, f"not carried: {reason}", "", "", "", ""]


def _carried(document: Document, feed: Mapping[str, Array]) -> Sequence[str]:
    module = convert(document)
    dense = max(check(module, document, feed).values(), default=0.0)
    back = write_back(module, document)
    same = back.proto.SerializeToString(deterministic=True) == document.proto.SerializeToString(
        deterministic=True
    )
    reached = _with_gradient(module, feed)
    sizes = {name: parameter.numel() for name, parameter in module.named_parameters()}
    module.hold({name: _every_other(p) for name, p in module.named_parameters() if p.dim() > 1})
    masked = max(check(module, write_back(module, document), feed).values(), default=0.0)
    total = sum(sizes.values())
    return (
        f"{total:,}",
        f"{100 * sum(sizes[name] for name in reached) / total:.1f} %",
        f"{dense:.0e}",
        f"{masked:.0e}",
        "yes" if same and not back.edits else "NO",
    )


def _every_other(parameter: torch.Tensor) -> torch.Tensor:
    flat = torch.arange(parameter.numel()) % 2 == 0
    return flat.reshape(parameter.shape)


def _with_gradient(module: OnnxModule, feed: Mapping[str, Array]) -> list[str]:
    """Return the parameters that a loss over all outputs reaches on one sample."""
    module.zero_grad()
    outputs = module.eval().run(tensors(feed)).values()
    loss = sum((output.double() ** 2).sum() for output in outputs if output.requires_grad)
    if isinstance(loss, torch.Tensor):
        loss.backward()
    return [name for name, p in module.named_parameters() if p.grad is not None]


def _sample(entry: Entry, document: Document) -> dict[str, Array]:
    if entry.build is None:
        return {spec.name: _made_up(spec) for spec in input_specs(document.proto)}
    case = entry.build(entry.find(), QUICK)
    return dict(first_sample(opened(case, document)[0]).feed)


def _made_up(spec: TensorSpec) -> Array:
    """Return ones for a model without samples."""
    shape = [size if isinstance(size, int) else 8 for size in spec.shape or ()]
    return np.ones(shape, spec.dtype or np.float32)


if __name__ == "__main__":
    sys.exit(main())
