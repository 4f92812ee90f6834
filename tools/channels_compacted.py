"""Models that `iterate` masked and retrained, then compacted: parameters, file and latency."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from _bench import MissingError, from_models, from_shared, table
from channel_tasks import CIFAR, UNIT, sizes
from iterate_runs import Told, settings_text

import onnx_relief
from onnx_relief.compaction.compact import compact
from onnx_relief.comparing.latency import measure_latency
from onnx_relief.data import Preprocess, open_data
from onnx_relief.graph.document import input_specs, load

SHORT: Final[dict[str, Any]] = {
    **{"epochs": 1, "batch_size": 120, "lr": 3e-3, "schedule": "cosine", "validation": 0.0},
    "calibration_samples": 1000,
}
COMPARED: Final = 200
"""Test samples on which the compacted model is compared with the masked one."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One model, masked and retrained in few turns.

    Attributes:
        model: The dense model.
        data: Pictures with labels, without the part.
        turns: How it is pruned and retrained, as `iterate` takes it.
        pixels: How pictures become what it takes.
    """

    model: Path
    data: Path
    turns: Mapping[str, Any]
    pixels: Preprocess


def section(runs: Path) -> str:
    """Return the table and what was done for it; parts whose data is missing are left out."""
    lines: list[list[str]] = []
    said: list[str] = []
    for name in ("lenet-300-100", "lenet-5", "resnet20"):
        try:
            run = _run(name)
        except MissingError as error:
            said.append(f"{name} is left out: {error}.")
            continue
        lines += _lines(name, run, runs / name)
        said.append(f"{name}: `{settings_text(run.turns)}`.")
    if not lines:
        raise MissingError(" ".join(said))
    slower = [f"{line[0]} ({line[1]})" for line in lines if float(line[-2]) > float(line[-3])]
    if slower:
        said.append(f"**Slower than masked** after compaction: {', '.join(slower)}.")
    return (
        "Masked and retrained with labels by `iterate`, then `compact`, with the default rounding "
        "of widths (`auto`) and without (`1`). Runs are short, to have masks of the kind that "
        "`iterate` makes: docs/retraining.md has the long ones. Parameters are the weights of "
        "layers in the file, zeros included; latency is that of one sample on one thread, masked "
        "and compacted by turns; the difference is the largest to the masked model on "
        f"{COMPARED} test pictures and made-up inputs, relative to its output's magnitude. "
        + " ".join(said)
        + f"\n\n{table(HEAD, lines, left=2)}"
    )


HEAD: Final = (
    *("model", "round to", "weights not zero, %", "correct, %", "units alive"),
    *("parameters: masked", "compacted", "MACs left, %", "bytes: masked", "compacted"),
    *("ms: masked", "compacted", "difference"),
)


def _run(name: str) -> Run:
    mnist = {"iterations": 4, "samples": 20000, "granularity": "weight", **SHORT}
    if name == "lenet-300-100":
        turns = {**mnist, "alpha": 0.8}
    elif name == "lenet-5":
        turns = {**mnist, "samples": 10000, "alpha_conv": 0.9, "alpha_fc": (0.7, 0.8)}
    else:
        turns = {**SHORT, "iterations": 2, "alpha": 0.8, "batch_size": 64, "lr": 1e-3}
        turns |= {"flip": True, "crop_padding": 4}
        return Run(
            model=from_shared("models", "cifar10-resnet20.onnx"),
            data=from_shared("data", "cifar10-original-6k.npz"),
            turns=turns,
            pixels=CIFAR,
        )
    return Run(
        model=from_models(f"{name}.onnx"),
        data=from_shared("data", "mnist.npz"),
        turns=turns,
        pixels=UNIT,
    )


def _lines(name: str, run: Run, folder: Path) -> list[list[str]]:
    """Return a line for each way to round."""
    folder.mkdir(parents=True, exist_ok=True)
    told = Told()
    found = onnx_relief.iterate(
        str(run.model),
        f"{run.data}:train",
        folder,
        eval_data=f"{run.data}:test",
        preprocess=run.pixels,
        on_epoch=told.epoch,
        on_iteration=told.iteration,
        **run.turns,
    )
    last = found.rows[-1]
    place = folder / f"iteration-{last.iteration:02}" / "model.onnx"
    masked = load(place)
    test = open_data(f"{run.data}:test", input_specs(masked.proto), preprocess=run.pixels)
    feed, *more = [batch.feed for batch in test.take(COMPARED).batches(COMPARED // 2)]
    one = next(iter(test.batches(1))).feed
    before = sizes(masked, test)
    lines: list[list[str]] = []
    for rounding in (None, 1):
        smaller = compact(masked, feed, more_feeds=more, round_to=rounding)
        written = folder / f"compacted-{rounding or 'auto'}.onnx"
        smaller.save(written, force=True)
        after = sizes(smaller.document, test)
        times = measure_latency((masked, smaller.document), one, threads=1, seconds=6.0).timings
        lines.append(
            [
                *(name, str(rounding or "auto"), f"{last.remaining:.2f}"),
                *(f"{last.metric_retrained:.2f}", "-".join(map(str, last.architecture))),
                *(f"{before[0]:.0f}", f"{after[0]:.0f}", f"{100 * after[1] / before[1]:.1f}"),
                *(str(file.stat().st_size) for file in (place, written)),
                *(f"{timing.median:.3f}" for timing in times),
                f"{smaller.difference:.1e}",
            ]
        )
        print(*lines[-1], sep="  ", flush=True)
    return lines
