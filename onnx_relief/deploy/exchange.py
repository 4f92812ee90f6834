"""What parent and child tell each other: a request and an answer in JSON, arrays as raw bytes.

Names of tensors come from strangers and stay inside the JSON; files have names of ours. Raw bytes
and not .npy, so that Node reads and writes them too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
REQUEST: Final = "request.json"
ANSWER: Final = "answer.json"


def write_request(
    folder: Path,
    *,
    model: Path,
    feed: Mapping[str, Array],
    outputs: Sequence[str],
    settings: Mapping[str, object],
) -> None:
    """Write what a child shall do into its folder.

    Args:
        folder: The child's own.
        model: Path of the model.
        feed: Arrays by input name.
        outputs: Names of the outputs wanted.
        settings: `adapter`, `threads`, `seconds` of timed runs, the `fewest` and `most` of them,
            and whether `processor_time` is taken.
    """
    inputs = [
        {"name": name, **write_array(folder, f"input_{place}.bin", array)}
        for place, (name, array) in enumerate(feed.items())
    ]
    told = {"model": str(model), "inputs": inputs, "outputs": list(outputs), **settings}
    (folder / REQUEST).write_text(json.dumps(told), encoding="utf-8")


def write_array(folder: Path, file: str, array: Array) -> dict[str, object]:
    """Write an array, and return what is needed to read it."""
    (folder / file).write_bytes(np.ascontiguousarray(array).tobytes())
    return {"file": file, "dtype": array.dtype.name, "shape": list(array.shape)}


def read_array(folder: Path, told: Mapping[str, Any]) -> Array:
    """Return an array that `write_array` (or Node) wrote."""
    data = (folder / told["file"]).read_bytes()
    return np.frombuffer(data, dtype=told["dtype"]).reshape(told["shape"]).copy()


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object of a file; None where there is none, or half of one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
