"""What the measuring tools share: where data lies, child processes, and tables in Markdown."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent


class MissingError(Exception):
    """Something that is not part of the repository is not here; the text says what."""


class ChildError(Exception):
    """A child process failed; the text is the last thing that it said."""


def from_shared(*parts: str) -> Path:
    """Return a file of the folder with benchmark data that may lie beside the repository.

    Raises:
        MissingError: It is not there.
    """
    path = ROOT.parent.joinpath("shared", *parts)
    if not path.exists():
        raise MissingError(f"{'/'.join(parts)} does not lie beside the repository")
    return path


def from_repository(folder: str, name: str, remedy: str) -> Path:
    """Return a file of the repository that some other tool makes.

    Raises:
        MissingError: It is not there; `remedy` says how to get it.
    """
    path = ROOT / folder / name
    if not path.exists():
        raise MissingError(f"{folder}/{name} is missing: run {remedy}")
    return path


def from_corpus(name: str) -> Path:
    """Return a model that `tools/fetch_corpus.py` lays out.

    Raises:
        MissingError: It is not there.
    """
    return from_repository("corpus", name, "tools/fetch_corpus.py")


def from_models(name: str) -> Path:
    """Return a model or data file that the repository ships.

    Raises:
        MissingError: It is not there.
    """
    return from_repository("models", name, "tools/make_models.py")


def in_child(script: str, arguments: Sequence[str], *, timeout: float) -> Any:  # noqa: ANN401
    """Run `script --result FILE` in a process of its own and return the JSON that it writes.

    Raises:
        ChildError: It failed, was killed or took longer than `timeout` seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        command = [sys.executable, script, *arguments, "--result", str(result)]
        try:
            answer = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=timeout
            )
        except subprocess.TimeoutExpired as error:
            raise ChildError(f"it took longer than {timeout:.0f} s") from error
        if answer.returncode != 0:
            said = answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"]
            raise ChildError(said[-1])
        return json.loads(result.read_text())


def table(head: Sequence[str], rows: Sequence[Sequence[object]], *, left: int = 1) -> str:
    """Return a Markdown table whose first `left` columns are aligned left, the others right."""
    marks = ["---" if column < left else "---:" for column in range(len(head))]
    lines = [head, marks, *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def provenance(command: str) -> str:
    """Return a paragraph that says how, with what and when numbers were made."""
    from onnx_relief.accounting import versions  # the child processes measure their own imports

    used = ", ".join(f"{name} {version}" for name, version in versions().items())
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return (
        f"Made by `{command}` on {today} with {used}; commit {commit()}; "
        f"{os.cpu_count()} processor cores."
    )


def write_aside(path: Path, text: str) -> None:
    """Write a text file completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def replace_between(path: Path, mark: str, text: str) -> bool:
    """Put `text` between `<!-- mark -->` and `<!-- /mark -->`; False where they are missing."""
    opening, closing = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    content = path.read_text(encoding="utf-8") if path.exists() else ""
    before, found, rest = content.partition(opening)
    _, ended, after = rest.partition(closing)
    if not (found and ended):
        return False
    write_aside(path, f"{before}{opening}\n{text}\n{closing}{after}")
    return True


def write_sections(
    path: Path, opening: str, parts: Iterable[str], texts: Mapping[str, str]
) -> None:
    """Write a page anew: the sections in `texts`, and those of the other parts as they were."""
    page = path.read_text(encoding="utf-8") if path.exists() else ""
    said = {part: texts.get(part) or _between(page, part) for part in parts}
    sections = [
        f"## {part}\n\n<!-- {part} -->\n{text}\n<!-- /{part} -->"
        for part, text in said.items()
        if text
    ]
    write_aside(path, "\n\n".join([opening, *sections]) + "\n")


def _between(page: str, mark: str) -> str:
    """Return what stands between `<!-- mark -->` and `<!-- /mark -->`, nothing without them."""
    return page.partition(f"<!-- {mark} -->")[2].partition(f"<!-- /{mark} -->")[0].strip("\n")


_CHANGES: Final = ("status", "--porcelain", "-uno", "--", ".", ":(exclude)docs")


def commit() -> str:
    """Return the commit that the repository is at, and whether it has changes besides.

    Pages in docs do not count: the tools write them, some one section after the other.
    """
    try:
        shown = _git("rev-parse", "--short", "HEAD")
        return shown + (" with local changes" if _git(*_CHANGES) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    answer = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return answer.stdout.strip()
