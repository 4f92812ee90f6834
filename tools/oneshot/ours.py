"""This package on the same tasks: its command line in a process of its own, with any flags."""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from _bench import ROOT

from oneshot import child
from oneshot.rows import TOOL, NotKeptError, Row, judged, read, save
from oneshot.tasks import Task

TIMEOUT: Final = 10800.0
BUDGETS: Final = frozenset(
    {
        *("--alpha", "--sparsity", "--ratio", "--max-drop", "--target-latency"),
        *("--target-params", "--target-macs", "--target-bytes"),
    }
)


def ours(
    task: Task,
    flags: Sequence[str],
    scratch: Path,
    *,
    anew: bool = False,
    kept_only: bool = False,
) -> Row:
    """Return the row of `onnx-relief prune` with some flags.

    A row in `scratch` is taken where it was made from the very same sources of the package.
    """
    key = json.dumps([task.name, list(flags), _sources()])
    stem = f"{task.name}.ours.{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    kept = read(scratch / f"{stem}.json")
    if kept is not None and not anew:
        return kept
    if kept_only:
        return _newest(task.name, *_in_words(flags), scratch)
    out = scratch / f"{stem}.onnx"
    data, data_flags = task.write_data(scratch)
    command = [sys.executable, "-m", "onnx_relief", "prune", str(task.model)]
    command += ["--data", str(data), "--samples", "all", *data_flags, *flags]
    command += ["--out", str(out), "--force", "--quiet"]
    # Compiled modules are kept, as those of an installed package, like the peer's, are.
    environment = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": ""}
    finished = child.run(command, timeout=TIMEOUT, environment=environment)
    method, asked = _in_words(flags)
    row = judged(Row(task=task.name, tool=TOOL, method=method, asked=asked), task, finished, out)
    out.unlink(missing_ok=True)
    save(row, scratch / f"{stem}.json")
    return row


def _newest(task: str, method: str, asked: str, scratch: Path) -> Row:
    """Return the last row of a task and some flags, whatever the sources were then."""
    kept = sorted(scratch.glob(f"{task}.ours.*.json"), key=lambda path: path.stat().st_mtime)
    for path in reversed(kept):
        row = read(path)
        if row is not None and (row.method, row.asked) == (method, asked):
            return row
    raise NotKeptError


def _in_words(flags: Sequence[str]) -> tuple[str, str]:
    """Return the flags without the budget, and the budget."""
    pairs = list(_pairs(flags))
    rest = " ".join(" ".join(pair) for pair in pairs if pair[0] not in BUDGETS)
    budget = " ".join(" ".join(pair) for pair in pairs if pair[0] in BUDGETS)
    return f"`{rest}`" if rest else "as it comes", f"`{budget}`" if budget else "default"


def _pairs(flags: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield every flag with the values that follow it."""
    starts = [index for index, flag in enumerate(flags) if flag.startswith("--")]
    for start, end in zip(starts, [*starts[1:], len(flags)], strict=True):
        yield tuple(flags[start:end])


@cache
def _sources() -> str:
    """Return a fingerprint of the package's sources."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "onnx_relief").rglob("*.py")):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


CRITERIA: Final = ("obs", "relief", "magnitude", "wanda", "taylor", "random")
REPAIRS: Final = (("none",), ("bias",), ("least-squares",), ("reconstruct",))
_BRIEF: Final = (*REPAIRS[:-1], ("reconstruct", "--repair-epochs", "4"))
_BRIEFLY: Final = ("resnet20", "efficientnet-lite0", "minilm-l6", "ppocr-rec", "zoo-c2f")
"""Tasks whose many criteria are not trained for the ten minutes each that is the default."""
_SPARSITIES: Final = {
    "digits-mlp": ("0.8", "0.9", "0.95"),
    "digits-cnn": ("0.7", "0.8", "0.9"),
    "resnet20": ("0.5", "0.6", "0.7", "0.8"),
    "efficientnet-lite0": ("0.3", "0.5"),
    "minilm-l6": ("0.5", "0.7"),
    "ppocr-rec": ("0.5",),
    "zoo-c2f": ("0.5",),
}
_FEED_FORWARD: Final = ("--only", "*intermediate*", "--only", "*output/dense*")
_CHANNELS: Final = {
    "digits-mlp": (("--ratio", "0.5"), ("--ratio", "0.7"), ("--ratio", "0.8"), ("--ratio", "0.9")),
    "digits-cnn": (("--ratio", "0.3"), ("--ratio", "0.5"), ("--ratio", "0.7")),
    "resnet20": (
        ("--target-params", "0.8"),
        ("--target-params", "0.7"),
        ("--target-params", "0.5"),
    ),
    "efficientnet-lite0": (("--target-macs", "0.83"), ("--target-macs", "0.66")),
    "minilm-l6": tuple(("--ratio", ratio, *_FEED_FORWARD) for ratio in ("0.2", "0.3", "0.5")),
}
_EXACT: Final = ("--granularity", "channel", "--round-to", "1")
"""Exact widths, as the peer's: what is faster is measured elsewhere."""
_HALF: Final = ("--sparsity", "0.5")
_QUICK: Final = ("--repair", "least-squares", "--samples", "128")
_LONG: Final = ("--repair", "reconstruct")
_TRAINED: Final = ("--granularity", "weight", "--criterion", "obs", *_LONG)
_ENLARGED: Final = ("--flip", "--crop-scale", "0.3")
_CHANGED: Final = (*_ENLARGED, "--color-jitter", "0.3", "--cutmix", "0.5")
EXTRA: Final = {
    "resnet20": (
        *(
            ("--granularity", "weight", "--criterion", criterion, *_LONG, "--sparsity", share)
            for share in ("0.7", "0.8")
            for criterion in CRITERIA
        ),
        *((*_EXACT, *_LONG, "--target-params", share) for share in ("0.8", "0.7", "0.5")),
    ),
    "minilm-l6": tuple(
        (*_EXACT, "--repair", repair, "--target-macs", "0.8")
        for repair in ("none", "least-squares")
    ),
    "resnet20-int8": (
        *(
            ("--granularity", "weight", "--criterion", criterion, "--repair", *repair, *budget)
            for budget in (_HALF, ("--sparsity", "0.7"))
            for criterion in ("obs", "relief", "magnitude", "taylor")
            for repair in (_BRIEF if criterion == "obs" else (("none",), ("least-squares",)))
        ),
        *(("--granularity", "2:4", "--repair", repair) for repair in ("none", "least-squares")),
        *(
            (*_EXACT, "--repair", *repair, "--target-params", share)
            for share in ("0.8", "0.7")
            for repair in _BRIEF
        ),
    ),
    "efficientnet-lite0": (
        ("--granularity", "weight", "--criterion", "obs", "--sparsity", "0.3", *_QUICK),
        (*_EXACT, "--target-macs", "0.66", *_QUICK),
        (*_EXACT, "--target-macs", "0.83", *_QUICK),
        (*_TRAINED, "--repair-epochs", "45", *_ENLARGED, *_HALF),
        (*_TRAINED, "--repair-epochs", "90", *_CHANGED, *_HALF),
        (*_TRAINED, "--repair-epochs", "200", *_CHANGED, *_HALF),
        (*_TRAINED, "--repair-epochs", "300", *_CHANGED, *_HALF),
    ),
    "ppocr-rec": ((*_TRAINED, *_HALF),),
}
"""Rows that are shown where somebody measured them, with fewer samples or flags of their own."""


def grid(group: str) -> Iterator[tuple[str, ...]]:
    """Yield the flags that are compared on the tasks of a group: every one beside every other."""
    zeros = [("--sparsity", share) for share in _SPARSITIES.get(group, ())]
    repairs = _BRIEF if group in _BRIEFLY else REPAIRS
    yield from _crossed(("--granularity", "weight"), zeros, repairs)
    yield from _crossed(_EXACT, _CHANNELS.get(group, ()), repairs)
    for budget in zeros:
        yield ("--granularity", "weight", "--criterion", "obs", "--scope", "layer", *budget)
    if group == "resnet20":
        for repair in REPAIRS:
            yield ("--granularity", "2:4", "--repair", *repair)


def _crossed(
    flags: tuple[str, ...],
    budgets: Sequence[tuple[str, ...]],
    repairs: Sequence[tuple[str, ...]],
) -> Iterator[tuple[str, ...]]:
    for budget, criterion, repair in itertools.product(budgets, CRITERIA, repairs):
        by_default = criterion == "obs" and "channel" in flags
        named = () if by_default else ("--criterion", criterion)
        yield (*flags, *named, "--repair", *repair, *budget)
