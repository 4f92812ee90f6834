"""Where training stands after each epoch, on disk: whole, or not there at all.

``last.ckpt`` holds what is needed to go on, ``best.ckpt`` the weights of the best epoch so far. The
best is written first: whoever is killed in between does that epoch again and writes the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from onnx_relief.data import Dataset
from onnx_relief.errors import OutputError, SettingsError
from onnx_relief.files import write_file
from onnx_relief.training import EpochRow, TrainSettings

LAST, BEST = "last.ckpt", "best.ckpt"

# Where training runs does not change what it computes, up to rounding.
_NOT_COMPARED = ("device", "devices")

State = dict[str, Any]


class Checkpoints:
    """The checkpoints of one training."""

    def __init__(self, folder: Path, flag: str, fingerprint: Mapping[str, str]) -> None:
        self.folder = folder
        self._flag = flag
        self._fingerprint = dict(fingerprint)

    def prepare(self) -> None:
        """Make the folder, or remove what a killed run left half written in it.

        Raises:
            OutputError: It cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for name in (LAST, BEST):
                for left in self.folder.glob(f".{name}.*"):
                    left.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                f"the folder {self.folder} cannot be made ({(error.strerror or str(error)).lower()}"
                f"); choose another place with {self._flag}"
            ) from error

    def load(self) -> State | None:
        """Return where training stood, or None if it never began.

        Raises:
            SettingsError: The checkpoint is of another training, or damaged.
        """
        path = self.folder / LAST
        if not path.exists():
            return None
        state = self._read(path)
        found = state["fingerprint"]
        if not isinstance(found, dict):
            raise self._damaged(path)
        for name, value in self._fingerprint.items():
            if found.get(name) != value:
                raise SettingsError(
                    f"{path} is of a training with another {name} "
                    f"({_told(found.get(name), value)}); start again with the same arguments, "
                    f"remove {self.folder} to begin anew, or choose another with {self._flag}"
                )
        return state

    def save(
        self, state: Mapping[str, Any], start: EpochRow | None, history: list[EpochRow]
    ) -> None:
        """Write where training stands.

        Raises:
            OutputError: It cannot be written; the checkpoint before stays.
        """
        whole = {
            **state,
            "start": None if start is None else asdict(start),
            "history": [asdict(row) for row in history],
            "fingerprint": self._fingerprint,
        }
        self._write(self.folder / LAST, whole)

    def save_best(self, module: nn.Module) -> None:
        """Write the weights of the best epoch so far.

        Raises:
            OutputError: As `save`.
        """
        self._write(self.folder / BEST, {"module": module.state_dict()})

    def load_best(self) -> State:
        """Return the weights of the best epoch.

        Raises:
            SettingsError: They are gone or damaged.
        """
        weights: State = self._read(self.folder / BEST)["module"]
        return weights

    def _read(self, path: Path) -> State:
        try:
            state: State = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds on a damaged file
            raise self._damaged(path) from error
        wanted = {"module"} if path.name == BEST else {"module", "start", "history", "fingerprint"}
        if not isinstance(state, dict) or not wanted <= state.keys():
            raise self._damaged(path)
        return state

    def _damaged(self, path: Path) -> SettingsError:
        return SettingsError(
            f"{path} is damaged or no checkpoint; remove {self.folder} to begin anew"
        )

    def _write(self, path: Path, state: Mapping[str, Any]) -> None:
        write_file(path, self._flag, lambda file: _save(state, file), force=True)


def rows_of(state: State | None) -> tuple[EpochRow | None, list[EpochRow]]:
    """Return the start and the history in a checkpoint, none if there is none."""
    if state is None:
        return None, []
    start = state["start"]
    return None if start is None else EpochRow(**start), [EpochRow(**r) for r in state["history"]]


def fingerprint(
    module: nn.Module,
    masks: Mapping[str, Tensor],
    settings: TrainSettings,
    data: Dataset,
    validation: Dataset | None,
    *,
    has_teacher: bool,
) -> dict[str, str]:
    """Return what has to be the same for training to go on where it stood, by what it is."""
    weights = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):  # frozen ones come last otherwise
        weights.update(f"{name} {tuple(value.shape)} {value.dtype};".encode())
        weights.update(_bytes(value))
    held = hashlib.sha256()
    for name in sorted(masks):
        held.update(name.encode())
        held.update(_bytes(masks[name]))
    options = {
        f"--{field.name.replace('_', '-')}": str(getattr(settings, field.name))
        for field in fields(settings)
        if field.name not in _NOT_COMPARED
    }
    return {
        "model": weights.hexdigest(),
        "set of masks": held.hexdigest(),
        "training data": data.description,
        "validation data": "none" if validation is None else validation.description,
        "teacher": "one" if has_teacher else "none",
        **options,
    }


def _bytes(value: Tensor) -> bytes:
    flat = value.detach().cpu().contiguous().reshape(-1)
    return bytes(flat.view(torch.uint8).numpy().data) if len(flat) else b""


def _told(found: str | None, wanted: str) -> str:
    if found is None or len(wanted) == 64:
        return "told by its contents"
    return f"{found} there, {wanted} now"


def _save(state: Mapping[str, Any], file: IO[bytes]) -> None:
    """Write a state; what the file system says comes through, whatever torch makes of it."""
    watched: Any = _Watched(file)
    try:
        torch.save(dict(state), watched)
    except RuntimeError:
        if watched.error is not None:
            raise watched.error from None
        raise


class _Watched:
    """A file that remembers why it could not be written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:  # noqa: ANN401 - any buffer
        """Write."""
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        """Flush."""
        with suppress(ValueError):
            self._file.flush()
