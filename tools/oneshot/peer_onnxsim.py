"""One pruning by onnxsim 0.8.1, run with the Python of an environment of its own.

Knows NumPy, onnx and onnxsim only. The calibration data is a folder of .npz files with one complete
feed each, so that both sides are given the same numbers.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

onnxsim: Any = importlib.import_module("onnxsim")  # not there where types are checked
Feeds = list[dict[str, Any]]
Step = Callable[[onnx.ModelProto, onnx.ModelProto, Feeds, dict[str, Any]], onnx.ModelProto]


def main() -> int:
    """Prune, repair, write the model, and say in JSON how long each step took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("feeds", type=Path, help="folder of .npz files, one complete feed each")
    parser.add_argument("steps", help='JSON: [["magnitude", {"sparsity": 0.5}], ...]')
    parser.add_argument("out", type=Path)
    parser.add_argument("--batches", type=int, help="take so many of the feeds")
    options = parser.parse_args()
    feeds = _read(options.feeds, options.batches)
    dense = onnx.load(options.model)
    model, seconds = dense, {}
    for name, settings in json.loads(options.steps):
        begin = time.perf_counter()
        model = STEPS[name](dense, model, feeds, settings)
        seconds[name] = time.perf_counter() - begin
        if name in _PREPARING:
            dense = model
    onnx.save(model, options.out)
    print(json.dumps({"onnxsim": onnxsim.__version__, "seconds": seconds}))
    return 0


def _read(folder: Path, count: int | None) -> Feeds:
    feeds = []
    for path in sorted(folder.glob("*.npz"))[:count]:
        with np.load(path, allow_pickle=False) as stored:
            feeds.append({name: stored[name] for name in stored.files})
    return feeds


def _simplify(
    _dense: onnx.ModelProto, model: onnx.ModelProto, _feeds: Feeds, settings: dict[str, Any]
) -> onnx.ModelProto:
    simple: onnx.ModelProto
    simple, checked = onnxsim.simplify(model, **settings)
    if not checked:
        raise SystemExit("onnxsim.simplify does not vouch for its own result")
    return simple


def _call(function: str, *, against_dense: bool = False, with_data: bool = True) -> Step:
    """Return a step that is one function of onnxsim."""

    def step(
        dense: onnx.ModelProto, model: onnx.ModelProto, feeds: Feeds, settings: dict[str, Any]
    ) -> onnx.ModelProto:
        models = (dense, model) if against_dense else (model,)
        data = {"calibration_data": feeds} if with_data else {}
        made: onnx.ModelProto = getattr(onnxsim, function)(*models, **data, **settings)
        return made

    return step


def _batch_norm(
    dense: onnx.ModelProto, model: onnx.ModelProto, feeds: Feeds, settings: dict[str, Any]
) -> onnx.ModelProto:
    return _call("recover_batch_norm")(dense, model, feeds, settings | {"target_model": dense})


def _block_finetune(
    dense: onnx.ModelProto, model: onnx.ModelProto, feeds: Feeds, settings: dict[str, Any]
) -> onnx.ModelProto:
    tuned: onnx.ModelProto
    tuned, results = onnxsim.apply_block_finetune_all_blocks(
        dense, model, calibration_data=feeds, **settings
    )
    skipped = [str(result.skipped_reason) for result in results if not result.trained]
    if skipped or not results:
        reason = skipped[0][:200] if skipped else "no block found"
        print(f"note: {len(skipped)} of {len(results)} blocks not trained: {reason}")
    return tuned


def _with_names_of_dense(
    dense: onnx.ModelProto, model: onnx.ModelProto, _feeds: Feeds, _settings: dict[str, Any]
) -> onnx.ModelProto:
    """Return the model with its weights under the names that they have in the dense model.

    onnxsim's own pruning gives weights new names, by which its finetune no longer finds them.
    """
    renamed = onnx.ModelProto()
    renamed.CopyFrom(model)
    weights = {tensor.name: tensor for tensor in renamed.graph.initializer}
    theirs = {node.output[0]: node for node in dense.graph.node if node.output}
    for node in renamed.graph.node:
        original = theirs.get(node.output[0]) if node.output else None
        if original is None or original.op_type != node.op_type:
            continue
        for position, (new, old) in enumerate(zip(node.input, original.input, strict=False)):
            if new != old and new in weights:
                node.input[position] = old
                for tensor in [t for t in renamed.graph.initializer if t.name == old]:
                    renamed.graph.initializer.remove(tensor)
                weights[new].name = old
    return renamed


_PREPARING = frozenset({"simplify"})
STEPS: dict[str, Step] = {
    "simplify": _simplify,
    "magnitude": _call("apply_magnitude_pruning", with_data=False),
    "wanda": _call("apply_wanda_pruning"),
    "sparsegpt": _call("apply_sparsegpt_pruning"),
    "channels-l2": _call("apply_structured_pruning", with_data=False),
    "channels-wanda": _call("apply_structured_wanda_pruning"),
    "ridge": _call("apply_pruning_finetune", against_dense=True),
    "bias": _call("correct_bias", against_dense=True),
    "batchnorm": _batch_norm,
    "rename": _with_names_of_dense,
    "blocks": _block_finetune,
}


if __name__ == "__main__":
    sys.exit(main())
