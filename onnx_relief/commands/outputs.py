"""What a command is going to write, checked before any work is done."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from onnx_relief.data.sources import file_of
from onnx_relief.errors import ModelError
from onnx_relief.files import check_distinct, check_output
from onnx_relief.graph.document import parse_file
from onnx_relief.graph.external import data_files

Place = tuple[str, Path]


def check_outputs(
    outputs: Sequence[Place],
    *,
    models: Iterable[tuple[str, Path | None]] = (),
    data: Iterable[tuple[str, str | None]] = (),
    others: Iterable[tuple[str, Path | None]] = (),
    force: bool,
) -> None:
    """Refuse files that could not be written, or that would replace what is read.

    Args:
        outputs: Flag and path of each file to write. Whether the file of a model may be replaced by
            ``-o`` is for `graph.save` to say.
        models: Flag and path of each model that is read, whose data files count as well.
        data: Flag and source of all data that is read, as the user gave it.
        others: Flag and path of other files that are read.
        force: Whether what exists may be replaced.

    Raises:
        OutputError: Naming the flags, the path and what to do.
    """
    check_distinct(outputs)
    reads = [(flag, file_of(source)) for flag, source in data if source is not None]
    reads += [(flag, path) for flag, path in others if path is not None]
    for read in reads:
        check_distinct([read, *outputs])
    for flag, path in models:
        if path is not None:
            _check_model(flag, path, outputs)
    for flag, path in outputs:
        check_output(path, flag, force=force)


def _check_model(flag: str, path: Path, outputs: Sequence[Place]) -> None:
    besides = [(said, place) for said, place in outputs if said != "-o" or flag != "MODEL"]
    check_distinct([(flag, path), *besides])
    # A model is only read here where something could be lost.
    if any(os.path.lexists(place) for _, place in besides):
        for file in _data_of(path):
            check_distinct([(f"the data of {flag}", file), *besides])


def _data_of(path: Path) -> Iterable[Path]:
    try:
        return data_files(parse_file(path)).values()
    except ModelError:  # told where the model is loaded
        return ()
