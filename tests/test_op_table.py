"""The README says what the rules are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_table_of_operators_is_current():
    answer = subprocess.run(
        [sys.executable, "tools/op_table.py"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    told = answer.stdout.strip()
    assert told.count("\n") > 20
    assert told in (ROOT / "README.md").read_text(encoding="utf-8"), (
        "run python tools/op_table.py --update-readme"
    )
