"""Prune every model of the corpus, check what comes out, and write docs/corpus.md.

Every model runs in a process of its own, so that one failure does not stop the rest. For each alpha
the pruned model is written to a file, read back, judged by onnx.checker and run on test samples.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from _bench import (
    ROOT,
    ChildError,
    MissingError,
    in_child,
    provenance,
    replace_between,
    write_aside,
)
from corpus_data import Entry, chosen, dense_score, opened, runner
from corpus_tables import page, readme_table
from samples import FULL, QUICK, Case, Sizes

from onnx_relief.comparing.evaluation import compare_models
from onnx_relief.data import Dataset
from onnx_relief.errors import UnsupportedError
from onnx_relief.graph.document import Document, load
from onnx_relief.graph.layers import Survey, find_layers
from onnx_relief.graph.save import write_to
from onnx_relief.pipeline import Pruned, prune
from onnx_relief.results import Evaluation
from onnx_relief.settings import Settings

EXAMPLE: Final = """examples:
  python tools/bench_corpus.py --only 'ppocr-*' --quick
  python tools/bench_corpus.py --update-readme
"""
ALPHAS: Final = (0.99, 0.95, 0.9)
TIMEOUT: Final = 3600.0


def main() -> int:
    """Measure what was asked for, print it, and return the exit code."""
    options = _parse_arguments()
    if options.result:
        entry = chosen([options.one])[0]
        row = examine(entry, QUICK if options.quick else FULL, options.alphas)
        options.result.write_text(json.dumps(row))
        return 0
    rows = [_measured(entry, options) for entry in chosen(options.only)]
    table = readme_table(rows, options.alphas)
    print(f"\n{table}")
    failures = [row["name"] for row in rows if row["state"] == "failed"]
    if options.only is None and not options.quick:
        text = page(rows, options.alphas, provenance("python tools/bench_corpus.py"))
        write_aside(ROOT / "docs" / "corpus.md", text)
        print("\nwritten: docs/corpus.md")
    if options.update_readme and not replace_between(ROOT / "README.md", "corpus-table", table):
        print("bench_corpus: README.md has no corpus-table markers.", file=sys.stderr)
        return 1
    return 1 if failures else 0


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="PATTERN", help="these models; writes no docs")
    parser.add_argument("--quick", action="store_true", help="a handful of samples; writes no docs")
    parser.add_argument("--alphas", nargs="+", type=float, default=list(ALPHAS), metavar="A")
    parser.add_argument(
        "--update-readme", action="store_true", help="put the table between the README's markers"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _measured(entry: Entry, options: argparse.Namespace) -> dict[str, Any]:
    """Run one model in a child process and return its row; print what came of it."""
    arguments = ["--one", entry.name, "--alphas", *map(str, options.alphas)]
    arguments += ["--quick"] if options.quick else []
    row: dict[str, Any]
    try:
        row = in_child(__file__, arguments, timeout=TIMEOUT)
    except ChildError as error:
        row = {"name": entry.name, "origin": entry.origin, "state": "failed", "why": str(error)}
    said = row["why"] if row["state"] != "pruned" else " ".join(map(_brief, row["steps"]))
    print(f"{entry.name:30} {row['state']:8} {said}", flush=True)
    return row


def _brief(step: dict[str, Any]) -> str:
    return f"[{step['alpha']}: {step['left']:.1f} % -> {step['score']:.1f}]"


def examine(entry: Entry, sizes: Sizes, alphas: list[float]) -> dict[str, Any]:
    """Return everything that the tables say of one model."""
    row: dict[str, Any] = {"name": entry.name, "origin": entry.origin}
    try:
        document = load(entry.find())
        survey = find_layers(document)
        row |= {"found": len(survey.layers), "refused": _refused(survey)}
        if entry.build is None:
            return row | {"state": "left", "why": _why_nothing(document)}
        case = entry.build(entry.find(), sizes)
    except MissingError as error:
        return row | {"state": "skipped", "why": str(error)}
    calibration, test = opened(case, document)
    row |= {"state": "pruned", "data": case.data, "meaning": _meaning(case, test)}
    row["dense"] = dense_score(case, document, test)
    row["steps"] = []
    for alpha in alphas:
        settings = Settings(alpha=alpha, samples=None, batch_size=case.batch_size)
        pruned = prune(document, calibration, settings, keep_scores=False)
        row["steps"].append(_step(alpha, pruned, document, case, test))
        row["idle"] = _idle(pruned)
        row["pruned"] = len(survey.layers) - sum(row["idle"].values())
    return row


def _why_nothing(document: Document) -> str:
    """Return the package's own sentence for a model without layers."""
    try:
        prune(document, Dataset(name="", source=None, rows=None), Settings())  # type: ignore[arg-type]
    except UnsupportedError as error:
        return str(error).removeprefix(f"{document.name} ")
    raise AssertionError(f"{document.name} has layers to prune; give it samples in corpus_data.py")


def _refused(survey: Survey) -> list[tuple[str, str, int]]:
    """Return operator, reason and number of the nodes that are no layers for us."""
    counts = Counter((refusal.op, refusal.reason) for refusal in survey.refusals)
    return [(op, reason, count) for (op, reason), count in counts.items()]


def _idle(pruned: Pruned) -> dict[str, int]:
    """Return why layers lost nothing, and how many for each reason."""
    reasons = Counter(pruned.left_alone.values())
    for plan in pruned.plan:
        if plan.drops_nothing:
            lone = all(keep.shape[1] == 1 for keep in plan.keep)
            reasons["every unit has one connection" if lone else "alpha needs everything"] += 1
    return dict(reasons)


def _step(
    alpha: float, pruned: Pruned, document: Document, case: Case, test: Dataset
) -> dict[str, Any]:
    """Write the pruned model, read it back, run it, and return its numbers."""
    total = sum(layer.connections for layer in pruned.survey.layers)
    kept = sum(
        plan.kept_connections if (plan := pruned.plan.for_layer(layer.name)) else layer.connections
        for layer in pruned.survey.layers
    )
    with tempfile.TemporaryDirectory() as folder:
        written = write_to(pruned.document, Path(folder), "pruned.onnx")
        after = replace(load(written), name="the pruned model")  # loading includes the checker
        found = compare_models(
            document,
            after,
            test,
            metric=case.metric,
            output=case.output,
            batch_size=case.batch_size,
        )
        score = _score(found, case, document, after)
    difference = next(gap for gap in found.differences if gap.output == found.output)
    return {
        "alpha": alpha,
        "left": 100 * kept / total,
        "removed": sum(int(plan.removed.sum()) for plan in pruned.plan),
        "score": score,
        "error": difference.relative_error,
        "cosine": difference.cosine,
        "output": found.output,
    }


def _score(found: Evaluation, case: Case, document: Document, after: Document) -> float:
    """Return the score of the task in percent, or what the comparison found."""
    if case.judge is not None:
        return case.judge(runner(document), runner(after))
    assert found.pruned is not None
    return found.pruned if found.unit == "%" else 100 * found.pruned


def _meaning(case: Case, test: Dataset) -> str:
    """Return in words what the score is."""
    if test.has_labels and case.score == "accuracy":
        return "accuracy"
    return case.score


if __name__ == "__main__":
    sys.exit(main())
