"""ResNet-20 without some of its channels: at once, and after a few epochs, beside Torch-Pruning."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from _bench import MissingError, from_shared, table
from channel_tasks import CIFAR, SAMPLES, sizes
from iterate_runs import settings_text

import onnx_relief
from onnx_relief.channels.pruning import rank_channels
from onnx_relief.channels.settings import ChannelSettings
from onnx_relief.comparing.evaluation import evaluate_model
from onnx_relief.data import Dataset, open_data
from onnx_relief.graph.document import input_specs, load
from onnx_relief.settings import Settings

PEER: Final = Path(__file__).parent / "peers" / "torch_pruning_resnet.py"
PEER_RATIOS: Final = (0.2, 0.3, 0.5)
SEED: Final = 0
COMMON: Final[dict[str, Any]] = {
    **{"epochs": 3, "batch_size": 32, "schedule": "cosine", "optimizer": "adam"},
    **{"flip": True, "crop_padding": 4, "validation": 0.0, "seed": SEED},
}
RATE: Final = 3e-3
"""Chosen at a ratio of 0.5 on a tenth split off the training pictures, for both ways."""
WAYS: Final = ("labels", "distillation")
CUTS: Final = ("none", "bias", "least-squares")
HEAD: Final = ("ratio", "by", "parameters left, %", "MACs left, %", *(f"{c}, %" for c in CUTS))
AFTER: Final = ("3 epochs, labels, %", "3 epochs, distillation, %")


def section(
    ratios: Sequence[float],
    retrained: Sequence[float],
    runs: Path,
    peer: Path | None,
    jobs: int,
) -> str:
    """Return the table and what was done for it.

    Args:
        ratios: Shares of the channels that go.
        retrained: Those of them after which the model is retrained.
        runs: Where results are kept; what lies there is not made again.
        peer: A Python that has Torch-Pruning; None for a table without it.
        jobs: Models that are made at a time, each in a process with one thread.
    """
    model, _ = _files()
    runs.mkdir(parents=True, exist_ok=True)
    spawn = multiprocessing.get_context("spawn")
    with ThreadPoolExecutor(1) as aside, ProcessPoolExecutor(jobs, mp_context=spawn) as pool:
        theirs = aside.submit(_peer_rows, peer, runs)
        ours = {row["ratio"]: row for row in pool.map(partial(_cut, runs=runs), ratios)}
        cases = [(ratio, way) for ratio in retrained for way in WAYS]
        for found in pool.map(partial(_retrained, runs=runs), cases):
            ours[found["ratio"]] |= found
        rows = [*ours.values(), *theirs.result()]
    rows.sort(key=lambda row: (row["ratio"], row["by"]))
    dense = evaluate_model(load(model), _opened("test"), batch_size=64).value
    lines = [[_cell(row.get(name)) for name in _KEYS] for row in rows]
    return f"{_text(dense, rows)}\n\n{table((*HEAD, *AFTER), lines, left=2)}"


_KEYS: Final = ("ratio", "by", "parameters", "macs", *CUTS, *WAYS)


def _text(dense: float, rows: Sequence[dict[str, Any]]) -> str:
    common = {name: value for name, value in COMMON.items() if name != "validation"}
    versions = {row["version"] for row in rows if "version" in row}
    text = (
        f"ResNet-20 on original CIFAR-10 pictures, dense {dense:.2f} %: 5085 to learn from, 1017 "
        "to judge on, which decided nothing (one of them is 0.1 points; one seed). Channels are "
        "ranked by `obs`, `--scope layer --round-to 1`. The first accuracies are those right "
        "after the cut by `--repair`, the last ones those of the cut repaired by least squares "
        "after `retrain`, with labels, or following the dense model without any. "
        f"`lr={RATE:g}, {settings_text(common)}`, nothing split off: pictures are mirrored at "
        "random and shifted by up to 4 pixels. Learning rate, batch and shifts were chosen for "
        "onnx-relief, at a ratio of 0.5 on a tenth split off the training pictures, which the "
        "dense model had seen. An empty cell was not measured."
    )
    if not versions:
        return f"{text} Torch-Pruning was not measured."
    return (
        f"{text}\n\nTorch-Pruning {', '.join(sorted(versions))}, on the same "
        "weights: group L2, every layer by the same ratio, BatchNormalization estimated anew on "
        f"{SAMPLES} training pictures (which is its `bias` here), then the same epochs with labels "
        "in the same way. Its shortcuts are convolutions of 1 x 1 with the same result, not "
        "counted but trained; it has no distillation of its own. The same ratio does not leave the "
        "same size: Torch-Pruning rounds the widths that stay down, onnx-relief rounds them up."
    )


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) and value > 1 else str(value)


def _files() -> tuple[Path, Path]:
    return (
        from_shared("models", "cifar10-resnet20.onnx"),
        from_shared("data", "cifar10-original-6k.npz"),
    )


def _cut(ratio: float, runs: Path) -> dict[str, Any]:
    """Cut one model, repair it in each way, and say what is left and how good it is."""
    kept, cut = runs / f"cut-{ratio:g}.json", runs / f"cut-{ratio:g}.onnx"
    if kept.exists() and cut.exists():
        return dict(json.loads(kept.read_text()))
    model, _ = _files()
    document, test = load(model), _opened("test")
    settings = Settings(samples=SAMPLES, batch_size=50)
    ranked = rank_channels(document, _opened("train"), settings)
    row: dict[str, Any] = {"ratio": ratio, "by": "onnx-relief"}
    for repair in CUTS:
        wanted = ChannelSettings(ratio=ratio, scope="layer", round_to=1, repair=repair)
        found = ranked.prune(wanted)
        row[repair] = evaluate_model(found.document, test, batch_size=64).value
    for name, now, before in zip(
        ("parameters", "macs"), sizes(found.document, test), sizes(document, test), strict=True
    ):
        row[name] = 100 * now / before
    found.save(cut, force=True)
    kept.write_text(json.dumps(row))
    print(row, flush=True)
    return row


def _retrained(case: tuple[float, str], runs: Path) -> dict[str, Any]:
    """Retrain one model in one way, and say how good it is."""
    ratio, way = case
    written = runs / f"{way}-{ratio:g}.onnx"
    model, pictures = _files()
    if not written.exists():
        with np.load(pictures, allow_pickle=False) as stored:
            images = stored["train_images"]
        labels = way == "labels"
        onnx_relief.retrain(
            str(runs / f"cut-{ratio:g}.onnx"),
            f"{pictures}:train" if labels else {"image": images},
            teacher=None if labels else str(model),
            preprocess=CIFAR,
            lr=RATE,
            **COMMON,
        ).save(written)
    score = evaluate_model(load(written), _opened("test"), batch_size=64).value
    print(way, ratio, score, flush=True)
    return {"ratio": ratio, way: score}


def _opened(part: str) -> Dataset:
    model, pictures = _files()
    return open_data(f"{pictures}:{part}", input_specs(load(model).proto), preprocess=CIFAR)


def _peer_rows(python: Path | None, runs: Path) -> list[dict[str, Any]]:
    """Return what Torch-Pruning makes of the same weights; nothing without a Python for it."""
    if python is None:
        return []
    model, pictures = _files()
    told = {
        **{"model": str(model), "pictures": str(pictures), "ratios": PEER_RATIOS},
        **{"mean": CIFAR.mean, "std": CIFAR.std, "samples": SAMPLES},
        **{name: COMMON[name] for name in ("epochs", "batch_size", "flip", "crop_padding", "seed")},
        "lr": RATE,
    }
    asked, kept = runs / "torch-pruning.json", runs / "torch-pruning-rows.json"
    if kept.exists():
        return list(json.loads(kept.read_text()))
    asked.write_text(json.dumps(told))
    answer = subprocess.run(
        [str(python), str(PEER), str(asked)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        raise MissingError(f"Torch-Pruning failed: {answer.stderr.strip().splitlines()[-1]}")
    rows = [json.loads(line) for line in answer.stdout.splitlines() if line.startswith("{")]
    rows = [{**row, "by": "Torch-Pruning"} for row in rows]
    kept.write_text(json.dumps(rows))
    return rows
