"""What measuring activity costs, as ratios to plain ONNX Runtime inference of the same pictures.

Every measurement is a child process of its own, from before the model is read to the last score;
imports are not counted as time, but as memory. Plain inference and ours take turns. Writes
docs/activity.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from _bench import ROOT, MissingError, in_child, provenance, table, write_aside
from activity_inputs import NETWORKS, Network
from activity_profile import hottest

EXAMPLE: Final = """examples:
  python tools/bench_activity.py --only resnet20 --rounds 2 --pictures 200
  python tools/bench_activity.py --profile
"""
CHILD: Final = str(Path(__file__).with_name("activity_child.py"))
MEMORY_TARGET: Final = 2.0
# What does not grow may still differ by some pages from run to run.
GROWTH: Final = 1.05
TIMEOUT: Final = 1800.0
Measured = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """One network with its files, and how much to run."""

    network: Network
    model: Path
    data: Path
    pictures: int
    rounds: int


def main() -> int:
    """Measure, print, write the page and return the exit code."""
    options = _parse_arguments()
    sections = []
    for network in [NETWORKS[options.only]] if options.only else NETWORKS.values():
        try:
            sections.append(_section(network, options))
        except MissingError as error:
            sections.append(f"## {network.title}\n\nNot measured: {error}.")
        print(f"{sections[-1]}\n", flush=True)
    if not (options.only or options.pictures):
        head = ["# What measuring costs", _INTRODUCTION, provenance(_command(options))]
        write_aside(ROOT / "docs" / "activity.md", "\n\n".join([*head, *sections]) + "\n")
        print("written: docs/activity.md")
    return 0


_INTRODUCTION: Final = (
    "Reading the model, starting the session, measuring the activity of every layer and scoring "
    "every connection, against plain ONNX Runtime inference of the same pictures: each in a "
    "process of its own, taking turns. A ratio is ours over the plain run beside it; peak memory "
    "is the largest resident set of the process (`VmHWM`), interpreter and imports included."
)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=sorted(NETWORKS), help="one network; writes no docs")
    parser.add_argument("--rounds", type=int, default=7, help="runs of each kind (default 7)")
    parser.add_argument("--pictures", type=int, help="fewer pictures; writes no docs")
    parser.add_argument("--no-memory", action="store_true", help="leave out 2 and 4 times the data")
    parser.add_argument("--profile", action="store_true", help="add the time of every operator")
    return parser.parse_args()


def _command(options: argparse.Namespace) -> str:
    extra = " --profile" if options.profile else ""
    return f"python tools/bench_activity.py --rounds {options.rounds}{extra}"


def _section(network: Network, options: argparse.Namespace) -> str:
    """Return everything about one network as Markdown."""
    pictures = options.pictures or network.pictures
    with tempfile.TemporaryDirectory() as folder:
        model, data, kind = network.prepare(Path(folder), 4 * pictures)
        setup = Setup(
            network=network, model=model, data=data, pictures=pictures, rounds=options.rounds
        )
        rounds = _rounds(setup)
        parts = [
            f"## {network.title}",
            f"{pictures} {kind} in batches of {network.batch}, {options.rounds} rounds.",
            _time_table(network, rounds),
        ]
        if not options.no_memory:
            parts.append(_memory_table(setup, rounds))
        if options.profile:
            parts += [_profile(setup, mode, Path(folder)) for mode in ("plain", *network.targets)]
    return "\n\n".join(parts)


def _rounds(setup: Setup) -> list[Mapping[str, Measured]]:
    """Return seconds and peak bytes of every mode, round by round."""
    modes = ["plain", *setup.network.targets]
    rounds: list[Mapping[str, Measured]] = []
    for number in range(setup.rounds):
        # Every other round backwards, so that no mode always follows the same one.
        order = modes if number % 2 == 0 else modes[::-1]
        rounds.append({mode: _run(setup, mode, setup.pictures) for mode in order})
        told = ", ".join(f"{mode} {rounds[-1][mode]['seconds']:.2f} s" for mode in modes)
        print(f"round {number + 1}: {told}", file=sys.stderr, flush=True)
    return rounds


def _run(setup: Setup, mode: str, pictures: int, *extra: str) -> Measured:
    arguments = ["--mode", mode, "--model", str(setup.model), "--data", str(setup.data)]
    arguments += ["--pictures", str(pictures), "--batch", str(setup.network.batch), *extra]
    measured: Measured = in_child(CHILD, arguments, timeout=TIMEOUT)
    return measured


def _time_table(network: Network, rounds: Sequence[Mapping[str, Measured]]) -> str:
    plain = [measured["plain"]["seconds"] for measured in rounds]
    rows: list[list[str]] = [["plain", f"{median(plain):.2f}", "", "", "", ""]]
    for mode, target in network.targets.items():
        ours = [measured[mode]["seconds"] for measured in rounds]
        ratios = [mine / theirs for mine, theirs in zip(ours, plain, strict=True)]
        row = [mode, f"{median(ours):.2f}", f"{min(ratios):.2f}", f"{median(ratios):.2f}"]
        rows.append([*row, *_judged(median(ratios), target)])
    head = ["", "seconds, median", "ratio, min", "ratio, median", "target", "median against it"]
    return table(head, rows)


def _judged(ratio: float, target: float | None) -> list[str]:
    if target is None:
        return ["none", ""]
    return [f"{target:g}", "met" if ratio <= target else f"missed by {ratio - target:.2f}"]


def _memory_table(setup: Setup, rounds: Sequence[Mapping[str, Measured]]) -> str:
    """Return peak memory at once, twice and four times the pictures."""
    plain = median(measured["plain"]["peak"] for measured in rounds)
    rows = []
    for mode in ("plain", *setup.network.targets):
        peaks = [median(measured[mode]["peak"] for measured in rounds)]
        peaks += [_run(setup, mode, times * setup.pictures)["peak"] for times in (2, 4)]
        grows = "grows" if peaks[-1] > GROWTH * peaks[0] else "does not grow"
        cells = [f"{peak / 1e6:.0f}" for peak in peaks]
        verdict = _judged(peaks[0] / plain, MEMORY_TARGET) if mode != "plain" else ["", ""]
        rows.append([mode, *cells, grows, f"{peaks[0] / plain:.2f}", *verdict])
    head = [f"{times * setup.pictures} pictures, MB" for times in (1, 2, 4)]
    head += ["with 4 times the pictures", "ratio to plain", "target", "against it"]
    return table(["peak memory", *head], rows)


def _profile(setup: Setup, mode: str, folder: Path) -> str:
    """Return where the time of one run goes."""
    prefix = folder / f"profile-{mode}"
    measured = _run(setup, mode, setup.pictures, "--profile", str(prefix))
    (written,) = folder.glob(f"{prefix.name}*.json")
    rows: list[list[Any]] = hottest(written, measured["parts"])
    return f"### Profile: {mode}\n\n" + table(["part", "calls", "ms", "share, %"], rows)


if __name__ == "__main__":
    sys.exit(main())
