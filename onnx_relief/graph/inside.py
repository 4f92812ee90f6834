"""Bring what is left of external data into the model, where that is not too much for one file."""

from __future__ import annotations

from dataclasses import replace

import onnx

from onnx_relief.graph import external
from onnx_relief.graph.document import MAX_PROTO_BYTES, Document
from onnx_relief.graph.storage import read

_ROOM = MAX_PROTO_BYTES // 2
"""Checkers and runtimes hold a model several times: what is larger than this stays outside."""


def brought_inside(document: Document) -> Document:
    """Return the document with the data of other files in it, unless that is too much.

    One small file is simpler to hand on than two that belong together.
    """
    if not document.has_external_data:
        return document
    outside = list(filter(external.is_external, external.tensors(document.proto)))
    needed = sum(external.byte_count(document, tensor) for tensor in outside)
    kinds = {onnx.TensorProto.DataType.Name(tensor.data_type) for tensor in outside}
    if kinds & external.PACKED_BITS.keys() or needed + document.proto.ByteSize() > _ROOM:
        return document
    whole = document.copy()
    for tensor in list(filter(external.is_external, external.tensors(whole.proto))):
        data = read(whole, tensor).tobytes()
        del tensor.external_data[:]
        tensor.ClearField("data_location")
        tensor.raw_data = data
    return replace(whole, edits=())
