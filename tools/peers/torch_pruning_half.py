"""Cut channels of PyTorch models of the zoo with Torch-Pruning. Run with its own Python.

python torch_pruning_half.py RATIO NAME ... writes one line of JSON per model: what is left of the
parameters and of the multiply-accumulates, with the last layer left alone and with it cut, too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch_pruning  # type: ignore[import-not-found, unused-ignore]
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent))
from models.zoo.export import MODELS, SEED, settled


def main() -> None:
    """Prune every model that is named, twice."""
    ratio, names = float(sys.argv[1]), sys.argv[2:]
    for name in names:
        row: dict[str, object] = {"name": name}
        for key, keeps in (("kept", True), ("cut", False)):
            try:
                row[key] = _left(name, ratio, keeps_outputs=keeps)
            except Exception as error:
                row[key] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        print(json.dumps(row), flush=True)


def _left(name: str, ratio: float, *, keeps_outputs: bool) -> tuple[float, float]:
    torch.manual_seed(SEED)
    make, inputs, _ = MODELS[name]
    model, example = settled(make()), inputs()[0][:1]
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    before = torch_pruning.utils.count_ops_and_params(model, example)
    pruner = torch_pruning.pruner.MetaPruner(
        model,
        example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=layers[-1:] if keeps_outputs else [],
    )
    pruner.step()
    after = torch_pruning.utils.count_ops_and_params(model, example)
    return after[1] / before[1], after[0] / before[0]


if __name__ == "__main__":
    main()
