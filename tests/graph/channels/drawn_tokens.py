"""Blocks for tokens: a tensor (batch, 4, width) and its width give another one."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from sketch import ACTIVATIONS, SIDE


def linear(s, x, width, out=None):
    out = out or s.width()
    kind = s.pick("MatMul", "Einsum", "bias", "quantised")
    if kind == "Einsum":
        equation = 'equation = "btd,ed->bte"'
        return s.add("Einsum", x, s.weight(out, width), settings=equation), out
    weight = s.weight(width, out)
    if kind == "quantised":
        whole = np.round(s.constants.pop(weight) * 20).astype(np.int8)
        scales = s.constant(np.linspace(0.01, 0.1, out, dtype=np.float32))
        settings = "axis = 1"
        weight = s.add("DequantizeLinear", s.constant(whole), scales, settings=settings)
    y = s.add("MatMul", x, weight)
    return (s.add("Add", s.weight(out), y) if kind == "bias" else y), out


def mlp(s, x, width):
    y, middle = linear(s, x, width)
    y = s.add(s.pick("Gelu", *ACTIVATIONS), y)
    y, _ = linear(s, y, middle, out=width)
    return s.add("Add", x, y), width


def gated(s, x, width):
    half = s.width()
    if s.flip():
        both, _ = linear(s, x, width, out=2 * half)
        a, b = s.add("Split", both, settings="axis = 2, num_outputs = 2", outputs=2)
    else:
        a, b = (linear(s, x, width, out=half)[0] for _ in range(2))
    return s.add("Mul", a, s.add("Sigmoid", b)), half


def attention(s, x, width):
    heads, each = s.draw(st.integers(1, 3)), s.draw(st.integers(1, 3))
    own = s.draw(st.integers(1, 3))
    q, k, v = (linear(s, x, width, out=heads * size)[0] for size in (each, each, own))
    if s.flip():
        settings = f"q_num_heads = {heads}, kv_num_heads = {heads}"
        return s.add("Attention", q, k, v, settings=settings), heads * own
    parts = []
    for one, size in ((q, each), (k, each), (v, own)):
        four = s.add("Reshape", one, s.ints(0, 0, heads, size))
        parts.append(s.add("Transpose", four, settings="perm = [0, 2, 1, 3]"))
    k = s.add("Transpose", parts[1], settings="perm = [0, 1, 3, 2]")
    p = s.add("Softmax", s.add("MatMul", parts[0], k), settings="axis = -1")
    o = s.add("Transpose", s.add("MatMul", p, parts[2]), settings="perm = [0, 2, 1, 3]")
    return s.add("Reshape", o, s.ints(0, 0, heads * own)), heads * own


def mixed(s, x, width):
    """Tokens are mixed, each channel on its own."""
    y = s.add("Transpose", x, settings="perm = [0, 2, 1]")
    middle = s.width()
    y = s.add("Relu", s.add("MatMul", y, s.weight(SIDE, middle)))
    y = s.add("MatMul", y, s.weight(middle, SIDE))
    return s.add("Transpose", y, settings="perm = [0, 2, 1]"), width


def looped(s, x, width):
    """A Loop whose state is the tensor; every step adds to it."""
    outer, s.lines = s.lines, []
    state, again, after = s.name("s"), s.name("again"), s.name("after")
    inner = s.width()  # in a body ONNX Runtime does not find the weights of a DequantizeLinear
    z = s.add("Tanh", s.add("MatMul", state, s.weight(width, inner)))
    z = s.add("MatMul", z, s.weight(inner, width))
    s.lines += [f"{again} = Identity (more)", f"{after} = Add ({state}, {z})"]
    sizes = f"float[B,{SIDE},{width}]"
    body = f"b (int64 step, bool more, {sizes} {state}) => (bool {again}, {sizes} {after})"
    body += f" {{ {' '.join(s.lines)} }}"
    s.lines = outer
    y = s.add("Loop", s.constant(np.array(2)), "", x, settings=f"body = {body}")
    return s.add("Abs", y), width


def token_norm(s, x, width):
    return s.add("LayerNormalization", x, s.weight(width)), width


def token_split(s, x, width):
    first = s.draw(st.integers(1, width - 1))
    one, two = s.add("Split", x, s.ints(first, width - first), settings="axis = -1", outputs=2)
    two, other = linear(s, two, width - first)
    return s.add("Concat", one, two, settings="axis = 2"), first + other


def recurrent(s, x, width):
    op, gates = s.pick(("LSTM", 4), ("GRU", 3), ("RNN", 1))
    ways, hidden = s.draw(st.integers(1, 2)), s.width()
    direction = "bidirectional" if ways == 2 else "forward"
    y = s.add("Transpose", x, settings="perm = [1, 0, 2]")
    y = s.add(
        op,
        *(y, s.weight(ways, gates * hidden, width), s.weight(ways, gates * hidden, hidden)),
        *([s.weight(ways, 2 * gates * hidden)] if s.flip() else []),
        settings=f'hidden_size = {hidden}, direction = "{direction}"',
    )  # (tokens, directions, batch, hidden)
    if s.flip():
        y = s.add("ReduceSum", y, s.ints(1), settings="keepdims = 0")
        return s.add("Transpose", y, settings="perm = [1, 0, 2]"), hidden
    y = s.add("Transpose", y, settings="perm = [2, 0, 1, 3]")
    return s.add("Reshape", y, s.ints(0, SIDE, ways * hidden)), ways * hidden


TOKENS = (linear, mlp, gated, attention, mixed, looped, token_norm, token_split, recurrent)
