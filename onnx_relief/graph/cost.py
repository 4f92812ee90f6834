"""What a model costs: bytes on disk, parameters, multiply-accumulates.

Nothing here runs the model. How often a weight is applied is measured elsewhere and passed in.
Files are read in blocks and weights one tensor at a time, so that size does not matter.
"""

from __future__ import annotations

import hashlib
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnx_relief.errors import ModelError, UnsupportedError
from onnx_relief.graph import external
from onnx_relief.graph.document import Document, parse_file, serialise
from onnx_relief.graph.layers import FLOATS, Survey
from onnx_relief.graph.save import write_to
from onnx_relief.graph.sites import Site
from onnx_relief.graph.views import Array, Constants, TensorView
from onnx_relief.graph.walk import TensorHome, constants_by_home
from onnx_relief.results import FileSize, LayerCost, ModelCost

_BLOCK = 1 << 20

# Weights that are integers and stand for real numbers: the inputs of each operator that hold them.
_INTEGER_WEIGHTS = {
    "QLinearConv": (3,),
    "ConvInteger": (1,),
    "QLinearMatMul": (0, 3),
    "MatMulInteger": (0, 1),
}


def cost_of(
    survey: Survey,
    positions: Mapping[str, float],
    *,
    tick: Callable[[int], None] | None = None,
) -> ModelCost:
    """Return what the surveyed model costs as it is.

    Args:
        survey: The model; a document with pending edits has to be written and read first.
        positions: By layer, how often its weights are applied per sample, where that is known.
        tick: Called with the number of bytes after every block of a file.

    Raises:
        ModelError: A file or a tensor cannot be read.
    """
    if survey.document.edits:
        raise ValueError("the document has edits that are not in its files yet")
    parameters, nonzero = count_parameters(survey)
    return ModelCost(
        name=survey.document.name,
        files=tuple(_file_size(name, blocks, tick) for name, blocks in _files(survey.document)),
        parameters=parameters,
        nonzero=nonzero,
        layers=layer_costs(survey, positions),
    )


def layer_costs(survey: Survey, positions: Mapping[str, float]) -> tuple[LayerCost, ...]:
    """Return what each layer costs as it is; arguments as `cost_of`."""
    return tuple(_layer_cost(survey, site, positions.get(site.layer.name)) for site in survey.sites)


def total_bytes(document: Document) -> int:
    """Return the size of all files of the model, without compressing anything."""
    if document.path is None:
        return int(document.proto.ByteSize())
    files = external.data_files(document).values()
    return document.path.stat().st_size + sum(file.stat().st_size for file in files)


def zipped_bytes(document: Document) -> int:
    """Return the size of the model and its data files after deflate at level 6, as zip does it.

    A model with data files is written aside first, since its edits are not in them yet.

    Raises:
        ModelError: The model itself exceeds 2 GB, or the data files have changed on disk.
        UnsupportedError: An edit would change a second tensor, which shares the bytes.
        OutputError: There is no room to write the model aside.
    """
    if not document.has_external_data:
        return len(zlib.compress(serialise(document.proto, document.name), 6))
    with tempfile.TemporaryDirectory(prefix="onnx-relief-", ignore_cleanup_errors=True) as folder:
        saved = parse_file(write_to(document, Path(folder), "model.onnx"))
        return sum(_file_size(name, blocks, None).zipped for name, blocks in _files(saved))


def count_parameters(survey: Survey) -> tuple[int, int]:
    """Return how many parameters the model has, and how many of them are not zero.

    Every constant counts once, however many nodes read it: floating point ones, and integers that
    a DequantizeLinear or an integer operator takes for real numbers.
    """
    counts = dict(_counts_of_computed(survey))
    for home in constants_by_home(survey.document.proto):
        if home not in counts:
            count = _count(survey.constants, home)
            if count is not None:
                counts[home] = count
    return sum(total for total, _ in counts.values()), sum(some for _, some in counts.values())


def _count(constants: Constants, home: TensorHome) -> tuple[int, int] | None:
    try:
        shape, dtype = constants.shape_and_type(home)
    except (KeyError, TypeError, UnsupportedError):
        return None  # strings, or a type that NumPy does not know
    if dtype.name not in FLOATS:
        return None
    values = constants.stored(home)
    return int(np.prod(shape, dtype=np.int64)), _nonzero(values, np.zeros((), dtype))


def _counts_of_computed(survey: Survey) -> Iterator[tuple[TensorHome, tuple[int, int]]]:
    """Yield (elements, not zero) of constants whose use says more than what is stored."""
    constants = survey.constants
    for scope in survey.model.scopes:
        for node in scope.graph.node:
            if node.op_type in ("DequantizeLinear", "ConstantOfShape"):
                view = constants.resolve(scope, node.output[0])
                if not isinstance(view, str) and view.dtype.name in FLOATS:
                    yield view.home, (view.size, _nonzero_as_seen(constants, view))
            for index in _INTEGER_WEIGHTS.get(node.op_type, ()):
                weight = constants.resolve(scope, node.input[index])
                if not isinstance(weight, str) and weight.size > 1:
                    yield weight.home, (weight.size, _nonzero_as_seen(constants, weight))


def _nonzero_as_seen(constants: Constants, view: TensorView) -> int:
    stored = constants.stored(view.home)
    if stored.size != view.size:  # ConstantOfShape: one value for all
        return view.size if bool(np.any(stored != view.zero)) else 0
    if len(view.steps) <= 1:
        return _nonzero(stored, view.zero)
    zero = np.broadcast_to(view.zero, view.shape).reshape(-1)
    return int(np.count_nonzero(stored.reshape(-1)[view.places().reshape(-1)] != zero))


def _nonzero(values: Array, zero: Array) -> int:
    """Count what differs from `zero` (one value, or one per element), a block at a time."""
    if zero.size > 1:
        return int(np.count_nonzero(values != zero))
    flat = values.reshape(-1)
    blocks = (flat[start : start + _BLOCK] for start in range(0, flat.size, _BLOCK))
    return sum(int(np.count_nonzero(block != zero)) for block in blocks)


def _layer_cost(survey: Survey, site: Site, positions: float | None) -> LayerCost:
    kept = nonzero = 0
    alive: NDArray[np.bool_] = np.zeros(site.layer.units, dtype=bool)
    for part in site.parts:
        filled = survey.rows(part) != 0
        connected = filled.any(axis=2)
        kept += int(np.count_nonzero(connected))
        nonzero += int(np.count_nonzero(filled))
        alive |= connected.any(axis=1)
    return LayerCost(
        layer=site.layer.name,
        connections=site.layer.connections,
        kept=kept,
        weights=site.layer.connections * site.layer.taps,
        nonzero=nonzero,
        units=site.layer.units,
        alive=int(np.count_nonzero(alive)),
        positions=positions,
    )


def _files(document: Document) -> Iterator[tuple[str, Iterable[bytes]]]:
    if document.path is None:
        yield document.name, [serialise(document.proto, document.name)]
        return
    yield document.path.name, _blocks(document.path)
    for location, file in external.data_files(document).items():
        yield location, _blocks(file)


def _blocks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                yield block
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read: {external.short(error)}; check the disk"
        ) from error


def _file_size(name: str, blocks: Iterable[bytes], tick: Callable[[int], None] | None) -> FileSize:
    packer, digest = zlib.compressobj(6), hashlib.sha256()
    plain = zipped = 0
    for block in blocks:
        plain += len(block)
        zipped += len(packer.compress(block))
        digest.update(block)
        if tick is not None:
            tick(len(block))
    return FileSize(
        name=name, plain=plain, zipped=zipped + len(packer.flush()), sha256=digest.hexdigest()
    )
