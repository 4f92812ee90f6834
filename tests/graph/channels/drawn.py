"""Networks drawn at random from the structures that channels are followed through."""

from __future__ import annotations

from drawn_images import IMAGE, conv
from drawn_tokens import TOKENS, linear
from hypothesis import strategies as st
from sketch import SIDE, Sketch
from text_models import build


@st.composite
def networks(draw):
    """Return a model of up to five blocks between an input and a head."""
    s = Sketch(draw)
    start, width = "x", 3
    is_image = s.flip()
    sizes = f"N,3,{SIDE},{SIDE}" if is_image else f"N,{SIDE},3"
    blocks = IMAGE if is_image else TOKENS
    if not is_image and s.flip():  # words
        start, width = s.add("Gather", s.weight(9, 5), "x"), 5
    x, width = (conv if is_image else linear)(s, start, width)
    for block in draw(st.lists(st.sampled_from(blocks), min_size=1, max_size=5)):
        if width > 1:
            x, width = block(s, x, width)
    shown = ""
    if s.flip() and s.flip():  # something inside is an output, too
        y, out = (conv if is_image else linear)(s, x, width)
        shown, x, width = f", float[{'A,B,C,D' if is_image else 'A,B,C'}] {y}", y, out
    if is_image:
        x = s.add("Flatten", s.add(s.pick("GlobalAveragePool", "GlobalMaxPool"), x))
    else:
        x = s.add("ReduceMean", x, s.ints(1), settings="keepdims = 0")
    y = s.add("Gemm", x, s.weight(2, width), settings="transB = 1")
    kind = "int64" if start != "x" else "float"
    sizes = f"N,{SIDE}" if start != "x" else sizes
    graph = f"({kind}[{sizes}] x) => (float[N,2] {y}{shown}) {{ {' '.join(s.lines)} }}"
    return build(graph, opset=23, **s.constants)
