"""Which channels of a model live or die together, and how they are cut out of it."""

from onnx_relief.graph.channels import (
    bodies,
    einsum,
    fused,
    heads,
    layers,
    mix,
    move,
    pick,
    recurrent,
)
from onnx_relief.graph.channels.cut import cut, leave_one
from onnx_relief.graph.channels.follow import trace_channels
from onnx_relief.graph.channels.ids import Groups
from onnx_relief.graph.channels.records import Observed
from onnx_relief.graph.channels.trace import Rule, Trace

RULES: dict[str, Rule] = {
    **mix.RULES,
    **move.RULES,
    **pick.RULES,
    **layers.RULES,
    **recurrent.RULES,
    **bodies.RULES,
    **einsum.RULES,
    **heads.RULES,
    **fused.RULES,
}
"""What operators do to channels, by operator; those of other domains with the domain before."""

__all__ = ["RULES", "Groups", "Observed", "Trace", "cut", "leave_one", "trace_channels"]
