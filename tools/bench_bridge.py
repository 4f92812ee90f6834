"""ONNX's own operator tests, forward, through the bridge from ONNX to PyTorch.

Counts how many pass with our operators, with plain onnx2fx, and with onnx2torch where that can be
imported (it needs torchvision). Writes docs/bridge.md with --markdown.
"""

from __future__ import annotations

import argparse
import io
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Final

import numpy as np
import onnx
import onnx2fx
import torch
from _bench import MissingError, provenance, table, write_aside
from bridge_cases import OTHERWISE, ROUNDING, SUITES, TO_DO, Case, cases, kind, same
from onnx import numpy_helper

from onnx_relief.bridge.ops import register_handlers

EXAMPLE: Final = """examples:
  python tools/bench_bridge.py --list
  python tools/bench_bridge.py --suite node --match resize --list
  python tools/bench_bridge.py --plain --markdown docs/bridge.md
"""
SECONDS: Final = 60
BRIDGE: Final = "bridge"
INTRODUCTION: Final = (
    "How many of ONNX's own operator tests give the wanted outputs, within the tests' own "
    "tolerances, when the model is turned into a PyTorch module: by onnx2fx with our operators "
    "(`bridge`) and by others. Tests of expanded functions are left out."
)
Convert = Callable[[onnx.ModelProto], torch.nn.Module]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one test went; an empty reason is a pass."""

    suite: str
    name: str
    kind: str
    reason: str


def main() -> int:
    """Run, print and return the exit code: 0, or 6 where a test that should pass does not."""
    options = _parser().parse_args()
    torch.set_num_threads(1)
    suites = [options.suite] if options.suite else list(SUITES)
    tests = [case for suite in suites for case in cases(suite) if options.match in case.name]
    results: dict[str, list[Outcome]] = {}
    if options.plain:  # before ours are registered, which lasts
        results["onnx2fx"] = [attempt(case, onnx2fx.convert) for case in tests]
    if options.onnx2torch:
        try:
            results["onnx2torch"] = [attempt(case, _onnx2torch()) for case in tests]
        except MissingError as error:
            print(f"onnx2torch is left out: {error}", file=sys.stderr)
    register_handlers()
    results[BRIDGE] = [attempt(case, onnx2fx.convert) for case in tests]
    if options.list:
        print("\n".join(listing(results[BRIDGE], options.all)))
    print(summary(suites, results))
    print(reasons(results[BRIDGE]))
    if options.markdown:
        write_aside(options.markdown, page(suites, results))
    return 6 if any(o.reason and o.kind == TO_DO for o in results[BRIDGE]) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suite", choices=SUITES, help="one suite only")
    parser.add_argument("--match", default="", help="only tests whose name holds this text")
    parser.add_argument("--list", action="store_true", help="print every failing test")
    parser.add_argument("--all", action="store_true", help="with --list: those we leave alone, too")
    parser.add_argument("--plain", action="store_true", help="also onnx2fx without our operators")
    parser.add_argument("--onnx2torch", action="store_true", help="also onnx2torch")
    parser.add_argument("--markdown", type=Path, help="write the tables to this file")
    return parser


def attempt(case: Case, convert: Convert) -> Outcome:
    """Run one test."""
    try:
        # torch.fx prints every error of a module before it raises it.
        silent = redirect_stderr(io.StringIO())
        with silent, warnings.catch_warnings(), _time_limit(SECONDS):
            warnings.simplefilter("ignore")
            reason = _run(case, convert)
    except Exception as error:  # whatever a library raises is this test's result
        text = str(error).strip().splitlines() or [""]
        reason = f"{type(error).__name__}: {text[0][:150]}"
    found = ROUNDING if reason.startswith(ROUNDING) else kind(case)
    return Outcome(suite=case.suite, name=case.name, kind=found, reason=reason)


def _run(case: Case, convert: Convert) -> str:
    module = convert(case.model).eval()
    for given, wanted in case.sets:
        with torch.no_grad():
            results = module(*map(_to_torch, given))
        if len(wanted) == 1 and not isinstance(results, tuple):
            results = (results,)
        if len(results) != len(wanted):
            return f"{len(results)} outputs, wanted {len(wanted)}"
        for result, other in zip(results, wanted, strict=True):
            if found := same(_to_numpy(result), other, case):
                return found
    return ""


def _to_torch(value: object) -> object:
    if isinstance(value, list):
        return [_to_torch(item) for item in value]
    if isinstance(value, onnx.TensorProto):
        value = numpy_helper.to_array(value)
    if not isinstance(value, (np.ndarray, np.generic)):
        return value
    array = np.array(value)  # a copy that may be written
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _to_numpy(value: object) -> object:
    if isinstance(value, (list, tuple)):
        return [_to_numpy(item) for item in value]
    if not isinstance(value, torch.Tensor):
        return value
    if value.dtype == torch.bfloat16:
        import ml_dtypes

        return value.contiguous().view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return value.detach().numpy()


@contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"longer than {seconds} s (signal {number}, {frame is not None})")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _onnx2torch() -> Convert:
    try:
        import onnx2torch
    except ImportError as error:
        raise MissingError(f"it cannot be imported ({error})") from error
    converter: Convert = onnx2torch.convert
    return converter


def listing(outcomes: Sequence[Outcome], everything: bool) -> list[str]:
    """Return a line for each test that failed, by default only for those to do."""
    return [
        f"{o.suite} {o.name} [{o.kind}] {o.reason}"
        for o in outcomes
        if o.reason and (everything or o.kind == TO_DO)
    ]


def summary(suites: Sequence[str], results: Mapping[str, Sequence[Outcome]]) -> str:
    """Return a table: a row per suite, a column `passed / tests` per converter."""
    rows = []
    for suite in suites:
        mine = {way: [o for o in found if o.suite == suite] for way, found in results.items()}
        rows.append([suite, *(f"{_passed(found)} / {len(found)}" for found in mine.values())])
    rows.append(["all", *(f"{_passed(found)} / {len(found)}" for found in results.values())])
    return table(["suite", *results], rows)


def reasons(outcomes: Sequence[Outcome]) -> str:
    """Return a table of what the tests deal with: how many, and how many pass."""
    total = Counter(outcome.kind for outcome in outcomes)
    good = Counter(outcome.kind for outcome in outcomes if not outcome.reason)
    floats = (TO_DO, OTHERWISE, ROUNDING)
    passed, tried = (sum(counts[name] for name in floats) for counts in (good, total))
    rows = [["float64, float32 and float16, deterministic", f"{passed} / {tried}"]]
    failing = {name: total[name] - good[name] for name in floats}
    rows += [[f"failing: {name}", str(count)] for name, count in failing.items() if count]
    rows += [[name, f"{good[name]} / {total[name]}"] for name in sorted(set(total) - set(floats))]
    return table(["tests of", "passed"], rows)


def page(suites: Sequence[str], results: Mapping[str, Sequence[Outcome]]) -> str:
    """Return the page for the documentation."""
    failing = [o for o in results[BRIDGE] if o.reason]
    rows = [[f"`{o.name}`", o.suite, o.kind, o.reason.replace("|", "/")] for o in failing]
    versions = ((name, _version(name)) for name in ("torch", "onnx2fx", "onnx2torch"))
    others = ", ".join(f"{name} {version}" for name, version in versions if version)
    made = provenance("python tools/bench_bridge.py --plain --markdown docs/bridge.md")
    parts = [
        "# The bridge to PyTorch: operators",
        INTRODUCTION,
        f"{made} Also {others}.",
        summary(suites, results),
        reasons(results[BRIDGE]),
        "## Tests that fail",
        table(["test", "suite", "deals with", "reason"], rows, left=4),
    ]
    return "\n\n".join(parts) + "\n"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _passed(outcomes: Sequence[Outcome]) -> int:
    return sum(not outcome.reason for outcome in outcomes)


if __name__ == "__main__":
    sys.exit(main())
