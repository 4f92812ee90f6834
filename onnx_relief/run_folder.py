"""The folder of an `iterate` run: what is finished lies in it whole, so that a new start goes on.

::

    run.json                  what the run is: models, data and choices; and the dense model's score
    history.csv  curve.svg    what came of it, written anew after each iteration
    iteration-01/model.onnx   retrained
    iteration-01/plan.json    everything that was dropped up to here
    iteration-01/row.json     its line of the history; written last, so it says "this one is done"
    iteration-01/training/    the checkpoint
    best.onnx                 the model that was kept
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from onnx_relief.errors import OutputError, SettingsError
from onnx_relief.files import staged_files
from onnx_relief.graph.document import Document, load
from onnx_relief.graph.save import save
from onnx_relief.history import IterationRow
from onnx_relief.plan import PrunePlan
from onnx_relief.report.curve import curve_svg, history_csv

FORMAT = "onnx-relief run 1"


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps what it has done."""

    path: Path

    def begin(self, said: Mapping[str, Any]) -> None:
        """Start the run, or find that it is the one that was started here.

        Raises:
            SettingsError: Another run lives here, with what differs.
            OutputError: Something else is there, or it cannot be written.
        """
        self._make(self.path)
        file = self.path / "run.json"
        wanted = json.loads(json.dumps({"format": FORMAT, **said}))
        if not file.exists():
            if any(self.path.iterdir()):
                raise OutputError(f"--run {self.path} holds other files; name a new folder")
            self._write(file, f"{json.dumps(wanted, indent=1)}\n")
            return
        found = self._read(file)
        differing = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
        if differing:
            key = differing[0]
            raise SettingsError(
                f"--run {self.path} holds another run: its {key} is {_short(found.get(key))} "
                f"instead of {_short(wanted.get(key))}; say the same as then, name a new folder, "
                "or begin anew with --restart"
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
        shutil.rmtree(self.path)

    def rows(self) -> list[IterationRow]:
        """Return the lines of the dense model and of all iterations that are finished, in order.

        Raises:
            SettingsError: A file was changed by somebody else.
        """
        found: list[IterationRow] = []
        while (file := self.iteration(len(found)) / "row.json").exists():
            found.append(_row(self._read(file), file))
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
        return PrunePlan.from_json(file.read_text(encoding="utf-8"))

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
        save(model, folder / "model.onnx", force=True)
        return self.model(number)

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
        except (OSError, ValueError) as error:
            raise SettingsError(f"{file} cannot be read; begin anew with --restart") from error
        if not isinstance(found, dict):
            raise SettingsError(f"{file} was not written by onnx-relief; begin anew with --restart")
        return found


def _row(found: Mapping[str, Any], file: Path) -> IterationRow:
    names = {field.name for field in fields(IterationRow)}
    try:
        values = {name: found[name] for name in names}
        first, second = values["alpha"]
        values |= {"alpha": (first, second), "architecture": tuple(values["architecture"])}
        return IterationRow(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise SettingsError(f"{file} is no line of a history; begin anew with --restart") from error


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
