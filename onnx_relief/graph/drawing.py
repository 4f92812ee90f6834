"""Seeds for nodes that draw random numbers, so that versions of one model draw the same ones.

ONNX Runtime seeds a node that has no seed by its place in the file, which moves when a node before
it comes or goes.
"""

from __future__ import annotations

from zlib import crc32

import onnx
from onnx import helper, inliner

from onnx_relief.graph.document import copy_of
from onnx_relief.graph.nodes import RANDOM, STANDARD, every_node

_SEEDS = 1 << 24
"""Whole numbers below it are exact in float32, which most seeds are."""


def draws(proto: onnx.ModelProto) -> bool:
    """Whether a model draws random numbers, in bodies and local functions too."""
    return any(map(_draws, every_node(proto.graph))) or _functions_draw(proto)


def with_seeds(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a throw-away copy of a model that draws random numbers, with a seed for every node.

    It follows from the name of what the node gives; seeds that the model has stay. Local functions
    that draw are written out, so that every call draws numbers of its own. Dropout drops nothing,
    even where the file says that it is trained: ONNX Runtime leaves it out of sessions that it may
    optimise, and would draw in others and for those who look at what it gives.
    """
    seeded = inliner.inline_local_functions(proto) if _functions_draw(proto) else copy_of(proto)
    for node in filter(_draws, every_node(seeded.graph)):
        if node.op_type == "Dropout":
            del node.input[2:]
        elif all(attribute.name != "seed" for attribute in node.attribute):
            seed = float(crc32(node.output[0].encode()) % _SEEDS)
            node.attribute.append(helper.make_attribute("seed", seed))
    return seeded


def _functions_draw(proto: onnx.ModelProto) -> bool:
    return any(_draws(node) for function in proto.functions for node in every_node(function))


def _draws(node: onnx.NodeProto) -> bool:
    """Whether a node draws; Dropout may if its third input says that it is trained."""
    trains = node.op_type == "Dropout" and len(node.input) > 2 and bool(node.input[2])
    return (node.op_type in RANDOM or trains) and node.domain in STANDARD
