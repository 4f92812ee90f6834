"""Finished trials, one line each, in a file that a stopped analysis goes on from.

The first line says what was analysed and how. A line is appended with one write, so that a killed
run leaves whole lines, or at worst a last one without its end, which does not count.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from onnx_relief.analysis import TrialRow, row_of
from onnx_relief.errors import OutputError, SettingsError

FORMAT: Final = "onnx-relief trials 1"
NAME: Final = "trials.jsonl"
MADE: Final = (NAME, "analysis.json", "analysis.svg")
"""The files of an analysis' folder."""

Key = tuple[str, str, float]


@dataclass(frozen=True)
class TrialLog:
    """The trials of one analysis in a folder."""

    folder: Path

    @property
    def file(self) -> Path:
        """Where the trials are."""
        return self.folder / NAME

    def begin(self, said: Mapping[str, Mapping[str, Any]]) -> dict[Key, TrialRow]:
        """Start, or find what the same analysis has tried before.

        Args:
            said: Names, digests and choices that make the analysis what it is.

        Raises:
            SettingsError: Another analysis lives here, with what differs; or the file is damaged.
            OutputError: Something else is there, or it cannot be written.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise OutputError(f"--run {self.folder} is a file; name a folder")
        wanted = json.loads(json.dumps({"format": FORMAT, **said}))
        lines = self._whole_lines() if self.file.exists() else []
        if not lines:
            self._start(wanted)
            return {}
        self._check(lines[0], wanted)
        return {row.key: row for row in map(self._row, lines[1:])}

    def add(self, row: TrialRow) -> None:
        """Append a trial.

        Raises:
            OutputError: It cannot be written.
        """
        self._append(asdict(row))

    def restart(self) -> None:
        """Remove what an analysis has left here, and nothing else.

        Raises:
            OutputError: Other things lie here, or they cannot be removed.
        """
        if not self.folder.is_dir():
            return
        if any(self.folder.iterdir()) and not self.file.exists():
            raise OutputError(f"--run {self.folder} holds no analysis, so it is left alone")
        self._refuse_others(MADE)
        try:
            for name in MADE:
                (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def discard(self) -> None:
        """Remove the file if no trial is in it, and the folder if nothing else is."""
        try:
            if self.file.exists() and len(self.file.read_bytes().splitlines()) <= 1:
                self.file.unlink()
                self.folder.rmdir()
        except OSError:
            return  # it holds something of others

    def _start(self, said: Mapping[str, Any]) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._refuse_others((NAME,))
            self.file.unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error
        self._append(said)

    def _refuse_others(self, known: Collection[str]) -> None:
        other = next((p.name for p in self.folder.iterdir() if p.name not in known), None)
        if other is not None:
            raise OutputError(
                f"--run {self.folder} holds other files, for example {other}; name a new folder"
            )

    def _append(self, said: Mapping[str, Any]) -> None:
        line = json.dumps(said, allow_nan=False).encode() + b"\n"
        try:
            handle = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                if os.write(handle, line) != len(line):
                    raise OSError("the disk is full")
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise self._unwritable(error) from error

    def _whole_lines(self) -> list[bytes]:
        """Return the lines that were written to their end, and cut off what was not."""
        try:
            data = self.file.read_bytes()
            end = data.rfind(b"\n") + 1
            if end < len(data):
                os.truncate(self.file, end)
        except OSError as error:
            raise self._unwritable(error) from error
        return data[:end].splitlines()

    def _check(self, line: bytes, wanted: Mapping[str, Any]) -> None:
        found = self._parsed(line)
        if found.get("format") != FORMAT:
            raise SettingsError(f"{self.file} was not written by this onnx-relief; name another")
        for part in ("digests", "choices"):
            then = found.get(part)
            if not isinstance(then, dict):
                raise self._damaged()
            for key, ours in wanted[part].items():
                theirs = then.get(key)
                if theirs == ours:
                    continue
                if part == "digests":  # the names of two files say more, if they are others
                    theirs, ours = (_named(one, key) for one in (found, wanted))
                what = f"{key} is {_short(theirs)} instead of {_short(ours)}"
                if theirs == ours:
                    what = f"{key} has other contents"
                raise SettingsError(
                    f"--run {self.folder} holds another analysis: its {what}; say the same as "
                    "then, name a new folder, or begin anew with --restart"
                )

    def _row(self, line: bytes) -> TrialRow:
        try:
            return row_of(self._parsed(line))
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise self._damaged() from error

    def _parsed(self, line: bytes) -> dict[str, Any]:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise self._damaged() from error
        if not isinstance(found, dict):
            raise self._damaged()
        return found

    def _damaged(self) -> SettingsError:
        return SettingsError(f"{self.file} is damaged; begin anew with --restart")

    def _unwritable(self, error: OSError) -> OutputError:
        reason = (error.strerror or str(error)).lower()
        return OutputError(
            f"{self.file} cannot be written ({reason}); choose another folder with --run"
        )


def _named(said: Mapping[str, Any], key: str) -> object:
    """Return what was said of a file besides its digest."""
    names = said.get("names")
    return names.get(key) if isinstance(names, dict) else None


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
