"""Store weights that are mostly zeros in ONNX's sparse form, where the file gets smaller by it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from onnx_relief.errors import SettingsError
from onnx_relief.graph.document import Document
from onnx_relief.graph.external import is_external
from onnx_relief.graph.light import names_read
from onnx_relief.graph.nodes import subgraphs
from onnx_relief.graph.storage import read, read_sparse

# What ONNX Runtime turns back into a dense tensor when it loads a model.
_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_FIRST_IR = 5
"""Sparse tensors came into ONNX with IR version 5."""


def is_sparse(store: str) -> bool:
    """Return whether weights may be stored in sparse form.

    Raises:
        SettingsError: It is neither ``dense`` nor ``sparse``.
    """
    if store not in ("dense", "sparse"):
        raise SettingsError(f"--store {store!r} does not exist; choose dense or sparse")
    return store == "sparse"


def store_sparse(document: Document) -> tuple[Document, int]:
    """Return the document with sparse initializers where these are smaller, and how many there are.

    Only initializers of the main graph change their form: not those that an input can replace, that
    a body reads, or that lie in other files. ONNX Runtime makes the sparse ones dense again when it
    loads the model; other runtimes refuse them.
    """
    if document.proto.ir_version < _FIRST_IR:
        return document, 0
    smaller = document.copy()
    graph = smaller.proto.graph
    count = 0
    chosen = set(_candidates(graph))
    for tensor in [one for one in graph.initializer if one.name in chosen]:
        sparse = _sparse(smaller, tensor)
        if sparse is not None and sparse.ByteSize() < tensor.ByteSize():
            graph.initializer.remove(tensor)
            graph.sparse_initializer.append(sparse)
            count += 1
    return (smaller, count) if count else (document, 0)


def densified(document: Document) -> Document:
    """Return the document with its sparse initializers as dense ones; itself where there are none.

    Raises:
        ModelError: Values, places and shape of one do not belong together.
    """
    if not document.proto.graph.sparse_initializer:
        return document
    dense = document.copy()
    graph = dense.proto.graph
    for sparse in graph.sparse_initializer:
        tensor = numpy_helper.from_array(read_sparse(dense, sparse), sparse.values.name)
        tensor.doc_string = sparse.values.doc_string
        tensor.metadata_props.extend(sparse.values.metadata_props)
        graph.initializer.append(tensor)
    del graph.sparse_initializer[:]
    return dense


def _candidates(graph: onnx.GraphProto) -> Iterator[str]:
    inside = {n for node in graph.node for _, body in subgraphs(node) for n in names_read(body)}
    given = {value.name for value in (*graph.input, *graph.output)}
    for tensor in graph.initializer:
        plain = tensor.data_type in _TYPES and bool(tensor.dims) and not is_external(tensor)
        if plain and tensor.name not in inside | given:
            yield tensor.name


def _sparse(document: Document, tensor: TensorProto) -> onnx.SparseTensorProto | None:
    """Return a tensor in sparse form, with places in the flat tensor; None where all is zero."""
    values = read(document, tensor).reshape(-1)
    # -0.0 is a zero of another sign, and stays where it is.
    places = np.flatnonzero((values != 0) | np.signbit(values))
    if places.size == 0:
        return None
    sparse = onnx.SparseTensorProto(dims=tensor.dims)
    kept = numpy_helper.from_array(np.array(values[places]), tensor.name)
    kept.doc_string = tensor.doc_string
    kept.metadata_props.extend(tensor.metadata_props)
    sparse.values.CopyFrom(kept)
    sparse.indices.CopyFrom(numpy_helper.from_array(places.astype(np.int64), ""))
    return sparse
