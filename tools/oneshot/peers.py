"""onnxsim 0.8.1 on the same tasks, driven in an environment of its own.

Its settings are its defaults, but for those of the block finetune: one block over the whole model
and ten or thirty times the learning rate are what serves it best on the digits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from oneshot import child
from oneshot.rows import NotKeptError, Row, judged, read, save
from oneshot.tasks import Task

SCRIPT: Final = Path(__file__).with_name("peer_onnxsim.py")
TOOL: Final = "onnxsim 0.8.1"
TIMEOUT: Final = 1200.0
Steps = tuple[tuple[str, dict[str, Any]], ...]

_WHOLE: Final = {"max_layers_per_block": 1000}
_TUNE: Final = {**_WHOLE, "learning_rate": 1e-3}
_TUNE_FASTER: Final = {**_WHOLE, "learning_rate": 3e-3}
_IN_BATCHES: Final = {**_TUNE_FASTER, "batch_size": 64}
_HELD: Final = {"preserve_sparsity": True}


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to use the peer.

    Attributes:
        name: In words.
        asked: What is asked for, in words.
        steps: What `peer_onnxsim.py` does, in order.
    """

    name: str
    asked: str
    steps: Steps


def measured(
    task: Task,
    method: Method,
    python: str,
    scratch: Path,
    *,
    anew: bool = False,
    kept_only: bool = False,
) -> Row:
    """Return the row of one method, from `scratch` where an earlier run left it there."""
    key = json.dumps([TOOL, task.name, method.steps, task.peer_batches])
    stem = f"{task.name}.{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    kept = read(scratch / f"{stem}.json")
    if kept is not None and not anew:
        return kept
    if kept_only:
        raise NotKeptError
    out = scratch / f"{stem}.onnx"
    command = [python, str(SCRIPT), str(task.model), str(task.write_feeds(scratch))]
    command += [json.dumps(method.steps), str(out)]
    if task.peer_batches:
        command += ["--batches", str(task.peer_batches)]
    finished = child.run(command, timeout=TIMEOUT)
    row = Row(task=task.name, tool=TOOL, method=method.name, asked=method.asked)
    row = judged(row, task, finished, out)
    notes = [line for line in finished.said.splitlines() if line.startswith("note: ")]
    if notes and not row.note:
        row = replace(row, note=notes[-1].removeprefix("note: "))
    out.unlink(missing_ok=True)
    save(row, scratch / f"{stem}.json")
    return row


def methods(group: str) -> Iterator[Method]:
    """Yield what the peer is asked to do on the tasks of a group."""
    for plan in _PLANS[group]:
        for sparsity in plan.sparsities:
            yield from plan.make(sparsity, plan.before)
    if group == "resnet20":
        for before in _FOLDED:
            yield from _two_of_four(before)


def _unstructured(sparsity: float, before: Steps) -> Iterator[Method]:
    asked = f"{100 * sparsity:.0f} % zero"
    share: dict[str, Any] = {"sparsity": sparsity}
    together = share | {"global_sparsity": True}
    for name, steps in (
        ("magnitude, row", (("magnitude", share),)),
        ("magnitude, global", (("magnitude", together),)),
        ("Wanda, row", (("wanda", share),)),
        ("Wanda, global", (("wanda", together),)),
        ("SparseGPT", (("sparsegpt", share),)),
    ):
        yield _method(name, asked, before, steps)


def _finetuned(sparsity: float, before: Steps) -> Iterator[Method]:
    """Yield unstructured pruning followed by training of all layers at once."""
    asked = f"{100 * sparsity:.0f} % zero"
    sparse: Steps = (("sparsegpt", {"sparsity": sparsity}),)
    large: Steps = (
        ("magnitude", {"sparsity": sparsity, "global_sparsity": True}),
        ("rename", {}),
    )
    for tune, rate in ((_TUNE, "1e-3"), (_TUNE_FASTER, "3e-3")):
        blocks: Steps = (("blocks", tune | _HELD),)
        yield _method(f"SparseGPT, block finetune at {rate}", asked, before, sparse + blocks)
        name = f"magnitude global, names mended by hand, block finetune at {rate}"
        yield _method(name, asked, before, large + blocks)


def _finetuned_in_batches(sparsity: float, before: Steps) -> Iterator[Method]:
    """Yield the same for convolutions: with all samples in every step it takes ten minutes."""
    asked = f"{100 * sparsity:.0f} % zero"
    steps: Steps = (("sparsegpt", {"sparsity": sparsity}), ("blocks", _IN_BATCHES | _HELD))
    yield _method("SparseGPT, block finetune at 3e-3", asked, before, steps)


def _structured(sparsity: float, before: Steps) -> Iterator[Method]:
    yield from _cut(sparsity, before, ("bias", "batchnorm"))


def _structured_connected(sparsity: float, before: Steps) -> Iterator[Method]:
    yield from _cut(sparsity, before, ("ridge", "blocks"))


def _structured_all(sparsity: float, before: Steps) -> Iterator[Method]:
    yield from _cut(sparsity, before, ("ridge", "bias", "batchnorm"))


def _cut(sparsity: float, before: Steps, repairs: Sequence[str]) -> Iterator[Method]:
    asked = f"{100 * sparsity:.0f} % of channels cut"
    for criterion, shown in (("channels-l2", "L2"), ("channels-wanda", "Wanda")):
        cut: Steps = ((criterion, {"sparsity": sparsity}),)
        yield _method(f"channels, {shown}", asked, before, cut)
        for repair in repairs:
            settings = _TUNE if repair == "blocks" else {}
            name = f"channels, {shown}, {_REPAIRS[repair]}"
            yield _method(name, asked, before, (*cut, (repair, settings)))


_REPAIRS: Final = {
    "ridge": "ridge",
    "blocks": "block finetune at 1e-3",
    "bias": "bias correction",
    "batchnorm": "BatchNorm recovery",
}


def _two_of_four(before: Steps) -> Iterator[Method]:
    pattern = {"n": 2, "m": 4}
    for criterion, name in (("magnitude", "magnitude"), ("wanda", "Wanda")):
        yield _method(name, "2:4", before, ((criterion, pattern),))
    yield _method("SparseGPT", "2:4", before, (("sparsegpt", pattern),))


def _method(name: str, asked: str, before: Steps, steps: Steps) -> Method:
    folded = " (after its simplify)" if before else ""
    return Method(name=name + folded, asked=asked, steps=(*before, *steps))


@dataclass(frozen=True, kw_only=True)
class _Plan:
    make: Any
    sparsities: tuple[float, ...]
    before: Steps = ()


_SIMPLIFIED: Final[Steps] = (("simplify", {}),)
_FOLDED: Final[tuple[Steps, ...]] = ((), _SIMPLIFIED)
_OF_FIXED_SIZE: Final[Steps] = (  # where the sizes are free it cuts no channel of MiniLM
    (
        "simplify",
        {"overwrite_input_shapes": {"input_ids": [16, 32], "attention_mask": [16, 32]}},
    ),
)
_PLANS: Final[dict[str, tuple[_Plan, ...]]] = {
    "digits-mlp": (
        _Plan(make=_unstructured, sparsities=(0.5, 0.7, 0.8, 0.9, 0.95)),
        _Plan(make=_finetuned, sparsities=(0.8, 0.9, 0.95)),
        _Plan(make=_structured_connected, sparsities=(0.5, 0.7, 0.8, 0.9)),
    ),
    "digits-cnn": (
        _Plan(make=_unstructured, sparsities=(0.7, 0.8, 0.9)),
        _Plan(make=_finetuned_in_batches, sparsities=(0.7, 0.8, 0.9)),
        _Plan(make=_structured_all, sparsities=(0.3, 0.5, 0.7)),
    ),
    "resnet20": (
        *(
            _Plan(make=_unstructured, sparsities=(0.5, 0.6, 0.7, 0.8), before=before)
            for before in _FOLDED
        ),
        _Plan(make=_structured, sparsities=(0.2, 0.3, 0.5), before=_SIMPLIFIED),
    ),
    "resnet20-int8": (_Plan(make=_unstructured, sparsities=(0.5, 0.7)),),
    "efficientnet-lite0": (
        _Plan(make=_unstructured, sparsities=(0.3, 0.5)),
        _Plan(make=_structured, sparsities=(0.2,)),
    ),
    "minilm-l6": (
        _Plan(make=_unstructured, sparsities=(0.5, 0.7)),
        _Plan(make=_unstructured, sparsities=(0.5, 0.7), before=_OF_FIXED_SIZE),
        _Plan(make=_structured_connected, sparsities=(0.2, 0.3, 0.5), before=_OF_FIXED_SIZE),
    ),
    "ppocr-rec": tuple(
        _Plan(make=_unstructured, sparsities=(0.5,), before=before) for before in _FOLDED
    ),
    "ppocr-det": tuple(
        _Plan(make=_unstructured, sparsities=(0.5,), before=before) for before in _FOLDED
    ),
    "zoo-c2f": (_Plan(make=_unstructured, sparsities=(0.5,)),),
}
