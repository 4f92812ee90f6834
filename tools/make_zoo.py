"""Export the zoo: well-known topologies with random weights, by both exporters of PyTorch.

They are what tools/bench_coverage.py cuts. Needs the extra `retrain` and, for the newer exporter,
the package onnxscript.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from _bench import ROOT

EXAMPLE: Final = """example:
  python tools/make_zoo.py --to corpus
  python tools/make_zoo.py --only vit decoder
"""
NAMES: Final = (
    *("mobilenet-v2", "mobilenet-v3", "efficientnet", "shufflenet-v2", "resnet50", "convnext"),
    *("unet", "c2f", "lstm-tagger", "bert", "encoder", "vit", "mixer", "decoder"),
)
EXPORTERS: Final = ("dynamo", "script")


def main() -> int:
    """Export what is missing, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--to", type=Path, default=ROOT / "corpus", metavar="FOLDER", help="default: corpus"
    )
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    parser.add_argument("--force", action="store_true", help="export what is there already, too")
    options = parser.parse_args()
    options.to.mkdir(parents=True, exist_ok=True)
    folder = options.to.resolve()  # the exports run in another folder
    failed = 0
    for name in options.only:
        for how in EXPORTERS:
            path = folder / f"zoo-{name}.{how}.onnx"
            said = "is there" if path.exists() and not options.force else _export(name, path, how)
            print(f"{path.name:32} {said}", flush=True)
            failed += said.startswith("failed")
    return 1 if failed else 0


def _export(name: str, path: Path, how: str) -> str:
    """Export one model in a process of its own; return what came of it."""
    aside = path.with_name(path.name + ".part")
    answer = subprocess.run(
        [sys.executable, "-m", "models.zoo.export", name, str(aside), how],
        cwd=ROOT / "tools",
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        aside.unlink(missing_ok=True)
        return f"failed: {(answer.stderr.strip().splitlines() or ['no reason given'])[-1]}"
    os.replace(aside, path)
    return f"{path.stat().st_size / 1e6:.1f} MB"


if __name__ == "__main__":
    sys.exit(main())
