"""LeNet-300-100 and LeNet-5 from random weights on: the authors' setting, and a better recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import onnx
from _bench import from_models, from_shared, table
from iterate_runs import Told, curve, settings_text
from models.initial import reinitialised

import onnx_relief
from onnx_relief.data import Preprocess
from onnx_relief.history import IterationRow

SEED: Final = 0
PIXELS: Final = Preprocess(scale=1 / 255)
NORMALISED: Final = Preprocess(scale=1 / 255, mean=(0.1307,), std=(0.3081,))
"""As PyTorch's example for MNIST has it: the background is no longer zero, so no pixel is idle."""
THEIRS: Final = {
    "batch_size": 120,
    "optimizer": "adam",
    "lr": 1e-3,
    "weight_decay": 5e-4,
    "schedule": "multistep",
    "milestones": (0.5,),
    "gamma": 0.1,
    "validation": 0.0,
}
"""How the authors of arXiv 2109.10795 train, the number of epochs left out."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One way from random weights to a sparse network.

    Attributes:
        network: A model of models/ that has the architecture.
        dense: How the dense network is trained, as `retrain` takes it.
        turns: How it is pruned and retrained, as `iterate` takes it.
        rewinds: Whether the surviving weights go back to the beginning each time.
        peers: What the authors' code came to, by iteration: percent left and percent correct.
        pixels: What the network sees.
        aim: Percent of the weights at most, percent correct at least, epochs at most.
    """

    network: str
    dense: Mapping[str, Any]
    turns: Mapping[str, Any]
    rewinds: bool = False
    peers: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    pixels: Preprocess = PIXELS
    aim: tuple[float, float, int] | None = None


_THEIR_300_100: Final = Recipe(
    network="lenet-300-100",
    dense={**THEIRS, "epochs": 12},
    turns={**THEIRS, "epochs": 12, "iterations": 12, "alpha": 0.95},
    rewinds=True,
    peers={0: (100, 98.30), 1: (34.1, 98.31), 4: (15.5, 98.37), 8: (7.8, 98.34), 12: (4.39, 98.14)},
)
_THEIR_5: Final = Recipe(
    network="lenet-5",
    dense={**THEIRS, "epochs": 6, "precision": "bf16"},
    turns={
        **THEIRS,
        **{"epochs": 6, "precision": "bf16", "iterations": 6},
        **{"alpha_conv": 0.90, "alpha_fc": 0.95},
    },
    rewinds=True,
    peers={0: (100, 99.25), 1: (44.2, 99.18), 2: (30.9, 99.21), 4: (19.0, 99.18), 6: (12.9, 99.18)},
)


def _without_shifts(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "crop_padding"}


_BETTER_300_100: Final = Recipe(
    network="lenet-300-100",
    dense={**THEIRS, "epochs": 12, "crop_padding": 1},
    turns={
        **{"batch_size": 120, "lr": 3e-3, "weight_decay": 1e-4, "schedule": "cosine"},
        **{"crop_padding": 1, "validation": 0.0, "epochs": 8, "iterations": 18},
        **{"alpha": 0.92, "until_sparsity": 98.0},
    },
    aim=(2.0, 98.1, 156),
)
RECIPES: Final = {
    "lenet-300-100": _THEIR_300_100,
    "lenet-300-100-normalised": replace(_THEIR_300_100, pixels=NORMALISED),
    "lenet-5": _THEIR_5,
    "lenet-5-normalised": replace(_THEIR_5, pixels=NORMALISED),
    "beat-lenet-300-100": _BETTER_300_100,
    "beat-lenet-300-100-unshifted": replace(
        _BETTER_300_100,
        dense=_without_shifts(_BETTER_300_100.dense),
        turns=_without_shifts(_BETTER_300_100.turns),
    ),
    "beat-lenet-5": Recipe(
        network="lenet-5",
        dense={**THEIRS, "epochs": 6, "crop_padding": 1, "precision": "bf16"},
        turns={
            **{"batch_size": 120, "lr": 3e-3, "weight_decay": 1e-4, "schedule": "cosine"},
            **{"crop_padding": 1, "validation": 0.0, "epochs": 3, "iterations": 18},
            **{"granularity": "weight", "precision": "bf16"},
            **{"alpha_conv": 0.9, "alpha_fc": (0.7, 0.8), "until_sparsity": 99.0},
        },
        aim=(1.0, 99.0, 60),
    ),
}


def measured(name: str, runs: Path) -> str:
    """Train, prune and retrain by a recipe, and return what its section says."""
    recipe = RECIPES[name]
    images = from_shared("data", "mnist.npz")
    folder = runs / name
    folder.mkdir(parents=True, exist_ok=True)
    initial = reinitialised(onnx.load(from_models(f"{recipe.network}.onnx")), SEED)
    dense, told = folder / "dense.onnx", Told()
    if not dense.exists():
        onnx_relief.retrain(
            initial,
            f"{images}:train",
            eval_data=f"{images}:test",
            preprocess=recipe.pixels,
            folder=folder / "dense",
            on_epoch=told.epoch,
            seed=SEED,
            **recipe.dense,
        ).save(dense)
    found = onnx_relief.iterate(
        str(dense),
        f"{images}:train",
        folder / "turns",
        eval_data=f"{images}:test",
        rewind_to=initial if recipe.rewinds else None,
        preprocess=recipe.pixels,
        on_epoch=told.epoch,
        on_iteration=told.iteration,
        seed=SEED,
        **recipe.turns,
    )
    return section(name, recipe, found.rows)


def section(name: str, recipe: Recipe, rows: Sequence[IterationRow]) -> str:
    """Return the curve of one run, beside the authors' where there is one, and what it says."""
    start = int(recipe.dense["epochs"])
    head, lines = curve(rows, dense_epochs=start)
    if recipe.peers:
        head = [*head, "authors: left, %", "authors: correct, %"]
        for row, line in zip(rows, lines, strict=True):
            left, right = recipe.peers.get(row.iteration, (None, None))
            line += ["" if left is None else f"{left:g}", "" if right is None else f"{right:.2f}"]
    kept = "back to the random weights" if recipe.rewinds else "the surviving weights are kept"
    parts = [
        f"{TITLES[name]} MNIST, 60000 training pictures, nothing split off; judged on the 10000 "
        f"test pictures. Before each retraining: {kept}.",
        f"Dense: `{settings_text(recipe.dense)}`. Each iteration: `{settings_text(recipe.turns)}`.",
        table(head, lines),
    ]
    if recipe.aim:
        parts.append(verdict(rows, recipe.aim, start))
    return "\n\n".join(parts)


_CHOSEN: Final = (
    "Learning rate, decay and augmentation were chosen on 5000 pictures split off the training "
    "part, never on the test pictures."
)
_THEIRS: Final = "The authors' setting, from an ONNX file with random weights on, "
TITLES: Final = {
    "lenet-300-100": f"{_THEIRS}pixels from 0 to 1.",
    "lenet-300-100-normalised": f"{_THEIRS}pixels with mean 0 and deviation 1.",
    "lenet-5": f"{_THEIRS}pixels from 0 to 1.",
    "lenet-5-normalised": f"{_THEIRS}pixels with mean 0 and deviation 1.",
    "beat-lenet-300-100": f"A better recipe. {_CHOSEN}",
    "beat-lenet-300-100-unshifted": "The same recipe without augmentation.",
    "beat-lenet-5": f"A better recipe. {_CHOSEN}",
}


def verdict(rows: Sequence[IterationRow], aim: tuple[float, float, int], start: int) -> str:
    """Return in words whether a run reached what it was for."""
    most, least, epochs = aim
    spent, reached = start, None
    for row in rows:
        spent += row.epochs
        if row.remaining <= most and row.metric_retrained >= least and spent <= epochs:
            reached = row, spent
    wanted = f"at most {most:g} % of the weights at {least:g} % or more within {epochs} epochs"
    if reached is None:
        return f"Asked for was {wanted}: **not reached**."
    row, spent = reached
    return (
        f"Asked for was {wanted}: **reached** in iteration {row.iteration}, with "
        f"{row.remaining:.2f} % and {row.metric_retrained:.2f} % after {spent} epochs in all."
    )
