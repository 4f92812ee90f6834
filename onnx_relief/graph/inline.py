"""Local functions, written out where they are called."""

from __future__ import annotations

from dataclasses import replace

from onnx import inliner

from onnx_relief.graph.document import Document


def inlined(document: Document) -> Document:
    """Return the document without local functions: their nodes stand where they were called."""
    if not document.proto.functions:
        return document
    return replace(document, proto=inliner.inline_local_functions(document.proto))
