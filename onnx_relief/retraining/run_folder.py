"""The folder of an `iterate` run: what is finished lies in it whole, so that a new start goes on.

::

    run.json                  what the run is: models, data and choices
    history.csv  curve.svg    what came of it, written anew after each iteration
    iteration-00/row.json     the dense model's line of the history
    iteration-01/model.onnx   retrained
    iteration-01/plan.json    everything that was dropped up to here
    iteration-01/row.json     its line of the history; written last, so it says "this one is done"
    iteration-01/training/    the checkpoint
    best.onnx                 the model that was kept
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnx_relief.errors import OutputError, SettingsError
from onnx_relief.files import staged_files
from onnx_relief.graph.document import Document, load
from onnx_relief.graph.save import save
from onnx_relief.history import IterationRow
from onnx_relief.plan import PrunePlan
from onnx_relief.report.curve import curve_svg, history_csv
from onnx_relief.retraining.folder import CHECKPOINTS, remove_asides

FORMAT = "onnx-relief run 1"


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps what it has done."""

    path: Path

    def begin(self, said: Mapping[str, Any]) -> None:
        """Start the run, or find that it is the one that was started here.

        A run that never came to the end of an epoch gives way to any other.

        Raises:
            SettingsError: Another run lives here, with what differs.
            OutputError: Something else is there, or it cannot be written.
        """
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"--run {self.path} is a file; name a folder")
        if not self.holds_work:
            self.discard()
        self._make(self.path)
        file = self.path / "run.json"
        wanted = json.loads(json.dumps({"format": FORMAT, **said}))
        if not file.exists():
            if any(self.path.iterdir()):
                raise OutputError(f"--run {self.path} holds other files; name a new folder")
            self._write(file, f"{json.dumps(wanted, indent=1)}\n")
            return
        found = self._read(file)
        if found.get("format") != FORMAT:
            raise SettingsError(f"{file} was not written by this onnx-relief; name a new folder")
        self._remove_asides()
        difference = _difference(found, wanted)
        if difference:
            raise SettingsError(
                f"--run {self.path} holds another run: its {difference}; say the same as then, "
                "name a new folder, or begin anew with --restart"
            )

    def restart(self) -> None:
        """Remove a run that lives here, and nothing that is no run.

        Raises:
            OutputError: Something else is there.
        """
        if not self.path.exists():
            return
        if any(self.path.iterdir()) and not (self.path / "run.json").exists():
            raise OutputError(f"--run {self.path} holds no run, so it is left alone")
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def holds_work(self) -> bool:
        """Whether an epoch was trained here."""
        numbered = self.path.glob("iteration-*")
        return any(
            (folder / name).exists()
            for folder in numbered
            for name in ("model.onnx", f"training/{CHECKPOINTS[0]}")
        )

    def discard(self) -> None:
        """Remove a run that holds no work; anything else stays."""
        if (self.path / "run.json").is_file() and not self.holds_work:
            self.restart()

    def rows(self) -> list[IterationRow]:
        """Return the lines of the dense model and of all iterations that are finished, in order.

        Raises:
            SettingsError: A file was changed by somebody else.
        """
        found: list[IterationRow] = []
        while (file := self.iteration(len(found)) / "row.json").exists():
            found.append(_row(self._read(file), file, len(found)))
        return found

    def iteration(self, number: int) -> Path:
        """Return the folder of an iteration; that of the dense model is number 0."""
        return self.path / f"iteration-{number:02d}"

    def training(self, number: int) -> Path:
        """Return the folder of an iteration's checkpoints, made if need be."""
        folder = self.iteration(number) / "training"
        self._make(folder)
        return folder

    def model(self, number: int) -> Document:
        """Return the retrained model of an iteration."""
        return load(self.iteration(number) / "model.onnx")

    def plan(self, number: int) -> PrunePlan:
        """Return everything that was dropped up to an iteration."""
        file = self.iteration(number) / "plan.json"
        try:
            return PrunePlan.from_json(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, SettingsError) as error:
            raise SettingsError(
                f"{file} is gone or damaged ({error}); begin anew with --restart"
            ) from error

    def finish(self, row: IterationRow, metric: str) -> IterationRow:
        """Note that an iteration is done, write history and curve anew, and return the row.

        Raises:
            OutputError: It cannot be written; the iteration does not count as done then.
        """
        self._make(self.iteration(row.iteration))
        line = json.dumps(asdict(row), indent=1)
        self._write(self.iteration(row.iteration) / "row.json", f"{line}\n")
        rows = self.rows()
        self._write(self.path / "history.csv", history_csv(rows))
        self._write(self.path / "curve.svg", curve_svg(rows, metric))
        return row

    def save(self, number: int, model: Document, plan: PrunePlan) -> Document:
        """Write model and plan of an iteration and return the model as it lies on disk.

        Raises:
            OutputError: They cannot be written.
        """
        folder = self.iteration(number)
        self._make(folder)
        self._write(folder / "plan.json", plan.to_json())
        with _told_as_run():
            save(model, folder / "model.onnx", force=True)
        return self.model(number)

    def keep(self, model: Document) -> None:
        """Write the model that is kept.

        Raises:
            OutputError: It cannot be written.
        """
        with _told_as_run():
            save(model, self.path / "best.onnx", force=True)

    def _remove_asides(self) -> None:
        """Remove what was half-written when the run was killed."""
        names = ("run.json", "history.csv", "curve.svg", "best.onnx", "row.json", "plan.json")
        for folder in (self.path, *self.path.glob("iteration-*"), *self.path.glob("*/training")):
            if folder.is_dir():
                remove_asides(folder, (*names, "model.onnx", *CHECKPOINTS))

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise OutputError(f"--run {folder} cannot be made: {reason}; name another") from error

    def _write(self, file: Path, text: str) -> None:
        with staged_files(force=True) as files:
            files.add(file, "--run", lambda stream: stream.write(text.encode()))
            files.commit()

    def _read(self, file: Path) -> dict[str, Any]:
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise SettingsError(f"{file} cannot be read; begin anew with --restart") from error
        if not isinstance(found, dict):
            raise SettingsError(f"{file} was not written by onnx-relief; begin anew with --restart")
        return found


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Return in words the first thing that another run was told, nothing if it is the same run."""
    for part in ("digests", "choices"):
        there = found.get(part)
        if not isinstance(there, dict):
            continue
        for key, ours in wanted[part].items():
            # What an older version did not note cannot be compared.
            theirs = there.get(key, ours)
            if theirs == ours:
                continue
            if part == "choices":
                return f"{key} is {_short(theirs)} instead of {_short(ours)}"
            names = found.get("names")
            old = names.get(key, "none") if isinstance(names, dict) else "none"
            new = wanted["names"].get(key, "none")
            if old == new:
                return f"{key}, {new}, had other contents"
            return f"{key} is {_short(old)} instead of {_short(new)}"
    return ""


@contextmanager
def _told_as_run() -> Iterator[None]:
    """Name the flag that chooses this folder where saving a model names its own."""
    try:
        yield
    except OutputError as error:
        raise OutputError(str(error).replace("with -o", "with --run")) from error


def _row(found: Mapping[str, Any], file: Path, number: int) -> IterationRow:
    """Return the row in a file; it may have been changed by anybody.

    Raises:
        SettingsError: It is none, or that of another iteration.
    """
    try:
        first, second = map(_number, found["alpha"])
        row = IterationRow(
            alpha=(first, second),
            architecture=tuple(map(_count, found["architecture"])),
            flops=None if found["flops"] is None else _number(found["flops"]),
            metric_pruned=_number(found["metric_pruned"]),
            metric_retrained=_number(found["metric_retrained"]),
            remaining=_number(found["remaining"]),
            seconds=_number(found["seconds"]),
            iteration=_count(found["iteration"]),
            nonzero=_count(found["nonzero"]),
            epochs=_count(found["epochs"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise SettingsError(f"{file} is no line of a history; begin anew with --restart") from error
    if row.iteration != number or not 0 <= row.remaining <= 100:
        raise SettingsError(f"{file} is no line of this history; begin anew with --restart")
    return row


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(value)
    if not math.isfinite(value):
        raise ValueError(value)
    return float(value)


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError(value)
    return value


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
