"""Write which operators channels are followed through into the README, from the rules themselves.

Without arguments it prints the table; --update-readme puts it between the README's markers.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict

from _bench import ROOT, replace_between, table

from onnx_relief.graph.channels import RULES
from onnx_relief.graph.channels.trace import Rule

MARK = "channel-operators"


def main() -> int:
    """Print the table or write it, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--update-readme", action="store_true")
    if not parser.parse_args().update_readme:
        print(operators())
    elif not replace_between(ROOT / "README.md", MARK, operators()):
        print(f"op_table: README.md has no {MARK} markers.", file=sys.stderr)
        return 1
    return 0


def operators() -> str:
    """Return the table in Markdown: what is done to channels, by which operators."""
    by_rule: dict[Rule, list[str]] = defaultdict(list)
    for operator, rule in RULES.items():
        by_rule[rule].append(operator)
    rows = [(", ".join(sorted(found)), _told(rule)) for rule, found in by_rule.items()]
    rows.append(("Shape", "Numbers of channels are followed into the sizes that they become."))
    return table(["operators", "what happens to channels"], sorted(rows), left=2)


def _told(rule: Rule) -> str:
    """Return the first sentence of a rule's documentation, without the operators' names."""
    first = (rule.__doc__ or "").strip().splitlines()[0]
    _, colon, rest = first.partition(": ")
    told = rest if colon else first
    return told[:1].upper() + told[1:]


if __name__ == "__main__":
    sys.exit(main())
