"""Time and memory of SparseGPT, and of our quickest way with as little error, taken in turn."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from _bench import ROOT, MissingError, provenance, table, write_aside

from oneshot import peers
from oneshot.ours import ours
from oneshot.rows import Row
from oneshot.tasks import GROUPS, Task

ROUNDS: Final = 3
_OBS: Final = ("--criterion", "obs", "--repair", "none", "--granularity")
_SAME_EVERYWHERE: Final = (*_OBS, "weight", "--scope", "layer", "--samples")
_ZEROS: Final = {
    "digits-mlp": (("0.8", "0.9", "0.95"), (*_OBS, "weight")),
    "digits-cnn": (("0.7", "0.8", "0.9"), (*_OBS, "weight")),
    "resnet20": (("0.5", "0.6", "0.7", "0.8"), (*_OBS, "weight", "--samples", "64")),
    "efficientnet-lite0": (("0.3", "0.5"), (*_SAME_EVERYWHERE, "8")),
    "minilm-l6": (("0.5", "0.7"), (*_SAME_EVERYWHERE, "32")),
    "zoo-c2f": (("0.5",), (*_SAME_EVERYWHERE, "64")),
}
"""By group, shares of zeros, and the flags that are quickest there with no more error."""
_PATTERN: Final = (*_OBS, "2:4", "--samples", "64")
INTRODUCTION: Final = (
    "onnxsim 0.8.1's SparseGPT, and the quickest way of `onnx-relief prune` that we found to make "
    f"no more error, one after the other, {ROUNDS} times; medians. Both are whole processes, "
    "from the start of Python to the written file, on the same calibration data, of which ours "
    "may need less to make as little error: `--samples` says how much. The machine may do other "
    "work meanwhile, for both alike. Time and memory are of the process, of the first task of "
    "several; the error is that of the outputs on the test data, as in "
    "[criteria.md](criteria.md)."
)
HEAD: Final = (
    *("task", "zeros", "SparseGPT: error", "cpu s", "s", "MB"),
    *("flags", "error", "cpu s", "s", "MB"),
    *("of its cpu time", "of its time", "of its memory"),
)


def write_page(
    only: Sequence[str] | None, task_named: Callable[[str], Task], python: str, scratch: Path
) -> None:
    """Let both take turns on some groups or all; write docs/sparsegpt.md if none was picked.

    Args:
        only: Names of groups; None for all.
        task_named: Returns a task.
        python: One that has the peer.
        scratch: Folder for what both write.
    """
    lines = []
    for group in only or GROUPS:
        try:
            for race in races(group):
                lines.append(line(group, race, task_named(GROUPS[group][0]), python, scratch))
                print(" | ".join(lines[-1]), flush=True)
        except MissingError as error:
            print(f"{group} is skipped: {error}", file=sys.stderr)
    text = table(HEAD, lines, left=2)
    print(f"\n{text}")
    if not only:
        said = provenance("python tools/bench_oneshot.py race --peer-python ...")
        page = "\n\n".join(("# Beside SparseGPT", INTRODUCTION, said, text)) + "\n"
        write_aside(ROOT / "docs" / "sparsegpt.md", page)
        print("written: docs/sparsegpt.md")


@dataclass(frozen=True, kw_only=True)
class Race:
    """What is asked of both.

    Attributes:
        asked: In words, as `peers.methods` has them.
        flags: Ours.
    """

    asked: str
    flags: tuple[str, ...]


def races(group: str) -> Iterator[Race]:
    """Yield what both are asked for on the tasks of a group."""
    shares, flags = _ZEROS.get(group, ((), ()))
    for share in shares:
        asked = f"{100 * float(share):.0f} % zero"
        yield Race(asked=asked, flags=(*flags, "--sparsity", share))
    if group == "resnet20":
        yield Race(asked="2:4", flags=_PATTERN)


def sparsegpt(group: str, asked: str) -> peers.Method:
    """Return the peer's SparseGPT on the tasks of a group."""
    methods = peers.methods(group)
    (found,) = (one for one in methods if (one.name, one.asked) == ("SparseGPT", asked))
    return found


def line(group: str, race: Race, task: Task, python: str, scratch: Path) -> list[str]:
    """Return a line of the table: both in turn on a task of the group, `ROUNDS` times.

    Where ours makes more error, which it should not, that is said beside it.
    """
    method = sparsegpt(group, race.asked)
    pairs = [
        (
            peers.measured(task, method, python, scratch, anew=True),
            ours(task, race.flags, scratch, anew=True),
        )
        for _ in range(ROUNDS)
    ]
    theirs, own = (list(side) for side in zip(*pairs, strict=True))
    flags = " ".join(race.flags)
    costs = _costs(own)
    if not own[0].error <= theirs[0].error:
        costs[0] += " (more)"
    return [
        *(group, race.asked, *_costs(theirs), f"`{flags}`", *costs),
        f"{median(b.cpu / a.cpu for a, b in pairs):.2f}",
        f"{median(b.seconds / a.seconds for a, b in pairs):.2f}",
        f"{median(b.peak_mb / a.peak_mb for a, b in pairs):.2f}",
    ]


def _costs(rows: list[Row]) -> list[str]:
    return [
        f"{rows[0].error:.3f}",
        f"{median(row.cpu for row in rows):.1f}",
        f"{median(row.seconds for row in rows):.1f}",
        f"{median(row.peak_mb for row in rows):.0f}",
    ]
