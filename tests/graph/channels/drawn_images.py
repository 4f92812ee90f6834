"""Blocks for images: a tensor (batch, width, 4, 4) and its width give another one."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from sketch import ACTIVATIONS, SIDE, divisors


def conv(s, x, width, out=None, size=None):
    out, size = out or s.width(), size or s.pick(1, 3)
    groups = s.pick(*(n for n in divisors(width) if out % n == 0))
    inputs = [x, s.weight(out, width // groups, size, size)]
    if s.flip():
        inputs.append(s.weight(out))
    pad = size // 2
    made = s.add("Conv", *inputs, settings=f"group = {groups}, pads = [{pad}, {pad}, {pad}, {pad}]")
    return made, out


def up_convolution(s, x, width):
    groups = s.pick(*divisors(width))
    each = s.draw(st.integers(1, 2))
    weight = s.weight(width, each, 1, 1)
    return s.add("ConvTranspose", x, weight, settings=f"group = {groups}"), each * groups


def depthwise(s, x, width):
    times = s.draw(st.integers(1, 2))
    weight = s.weight(width * times, 1, 3, 3)
    settings = f"group = {width}, pads = [1, 1, 1, 1]"
    return s.add("Conv", x, weight, settings=settings), width * times


def normalised(s, x, width):
    kind = s.pick("BatchNormalization", "InstanceNormalization", "GroupNormalization")
    parts = [x, s.weight(width), s.weight(width)]
    settings = ""
    if kind == "BatchNormalization":
        parts += [s.weight(width), s.constant(np.full(width, 0.5, np.float32))]
    elif kind == "GroupNormalization":
        settings = f"num_groups = {s.pick(*divisors(width))}"
    return s.add(kind, *parts, settings=settings), width


def activated(s, x, width):
    if s.flip():
        return s.add(s.pick(*ACTIVATIONS), x), width
    if s.flip():
        return s.add("PRelu", x, s.weight(width, 1, 1)), width
    return s.add("Mul", x, s.add("Sigmoid", x)), width


def residual(s, x, width):
    inner, middle = conv(s, x, width)
    inner, _ = activated(s, inner, middle)
    inner, _ = conv(s, inner, middle, out=width)
    return s.add(s.pick("Add", "Sum", "Sub", "Max"), inner, x), width


def dense(s, x, width):
    more, extra = conv(s, x, width, out=s.draw(st.integers(1, 4)))
    return s.add("Concat", x, more, settings="axis = 1"), width + extra


def split(s, x, width):
    first = s.draw(st.integers(1, width - 1))
    one, two = s.add("Split", x, s.ints(first, width - first), settings="axis = 1", outputs=2)
    two, other = conv(s, two, width - first)
    parts = (two, one) if s.flip() else (one, two)
    return s.add("Concat", *parts, settings="axis = 1"), first + other


def shuffle(s, x, width):
    groups = s.pick(*divisors(width))
    before, after = s.ints(0, groups, -1, SIDE, SIDE), s.ints(-1, width, SIDE, SIDE)
    if s.flip():  # sizes computed from the shape
        shape = s.add("Shape", x)
        number = s.add("Gather", shape, s.ints(1))
        batch = s.add("Slice", shape, s.ints(0), s.ints(1))
        after = s.add("Concat", batch, number, s.ints(SIDE, SIDE), settings="axis = 0")
    y = s.add("Transpose", s.add("Reshape", x, before), settings="perm = [0, 2, 1, 3, 4]")
    return s.add("Reshape", y, after), width


def squeezed(s, x, width):
    y = s.add("GlobalAveragePool", x)
    y, middle = conv(s, y, width, size=1)
    y, _ = conv(s, s.add("Relu", y), middle, out=width, size=1)
    return s.add("Mul", x, s.add("HardSigmoid", y)), width


def sliced(s, x, width):
    start = s.draw(st.integers(0, width - 2))
    end = s.draw(st.integers(start + 1, width))
    return s.add("Slice", x, s.ints(start), s.ints(end), s.ints(1)), end - start


def padded(s, x, width):
    before, after = s.draw(st.integers(0, 2)), s.draw(st.integers(0, 2))
    return s.add("Pad", x, s.ints(0, before, 0, 0, 0, after, 0, 0)), width + before + after


def gathered(s, x, width):
    places = s.draw(st.lists(st.integers(-width, width - 1), min_size=1, max_size=6))
    return s.add("Gather", x, s.ints(*places), settings="axis = 1"), len(places)


def channels_last(s, x, width):
    y = s.add("Transpose", x, settings="perm = [0, 2, 3, 1]")
    y = s.add(s.pick("Add", "Mul"), y, s.weight(width))
    if s.flip():
        out = s.width()
        y, width = s.add("MatMul", y, s.weight(width, out)), out
    return s.add("Transpose", y, settings="perm = [0, 3, 1, 2]"), width


def pixels(s, x, width):
    y, out = conv(s, x, width, out=4 * s.draw(st.integers(1, 3)))
    mode = s.pick("DCR", "CRD")
    y = s.add("DepthToSpace", y, settings=f'blocksize = 2, mode = "{mode}"')
    settings = "kernel_shape = [2, 2], strides = [2, 2]"
    if s.flip():
        return s.add("AveragePool", y, settings=settings), out // 4
    return s.add("SpaceToDepth", y, settings="blocksize = 2"), out


def resized(s, x, width):
    """Twice as large and back; the sizes are computed from the shape, with the channels'."""
    front = s.add("Slice", s.add("Shape", x), s.ints(0), s.ints(2))
    sizes = s.add("Concat", front, s.ints(2 * SIDE, 2 * SIDE), settings="axis = 0")
    y = s.add("Resize", x, "", "", sizes, settings='mode = "nearest"')
    return s.add("MaxPool", y, settings="kernel_shape = [2, 2], strides = [2, 2]"), width


def shared(s, x, width):
    weight = s.weight(width, width, 1, 1)
    y = s.add("Relu", s.add("Conv", x, weight))
    return s.add("Conv", y, weight), width


def branched(s, x, width):
    """Both branches of an If; which is taken depends on the input."""
    total = s.add("ReduceSum", "x", settings="keepdims = 0")
    positive = s.add("Greater", total, s.constant(np.float32(0)))
    outer, bodies, out = s.lines, [], s.width()
    for _ in range(2):
        s.lines = []
        y, middle = conv(s, x, width)
        y, _ = activated(s, y, middle)
        y, _ = conv(s, y, middle, out=out)
        sizes = f"float[B,{out},{SIDE},{SIDE}]"
        bodies.append(f"b () => ({sizes} {y}) {{ {' '.join(s.lines)} }}")
    s.lines = outer
    settings = f"then_branch = {bodies[0]}, else_branch = {bodies[1]}"
    return s.add("If", positive, settings=settings), out


IMAGE = (
    *(conv, up_convolution, depthwise, normalised, activated, residual, dense, split, shuffle),
    *(squeezed, sliced, padded, gathered, channels_last, pixels, resized),
    *(shared, branched),
)
