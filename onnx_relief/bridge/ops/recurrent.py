"""LSTM, GRU and RNN, with every option of the ONNX specification.

Letters as in the specification: X (time, batch, inputs), W (directions, gates x hidden, inputs),
R (directions, gates x hidden, hidden), B (directions, 2 x gates x hidden), P (directions, 3 x
hidden). Where PyTorch's own recurrent operators compute the same they do the work; what they do
not know (peepholes, clipping, other activations, sequences of several lengths, GRU with the reset
before the product) is unrolled over time. In both cases the gradient reaches W, R and B as the
file has them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import onnx
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, fx

from onnx_relief.bridge.ops.gate_functions import Choice, Function, choose, function
from onnx_relief.bridge.ops.registry import Builder, Handler, Row, attributes, inputs, outputs

States = tuple[Tensor, ...]


class Direction(NamedTuple):
    """What one direction computes with.

    Attributes:
        w: Weights of the input (gates x hidden, inputs).
        r: Weights of the recurrence (gates x hidden, hidden).
        input_bias: Added to the product with `w`.
        state_bias: Added to the product with `r`.
        peepholes: Of the gates i, o, f of an LSTM.
        functions: Of the gates, in the order of the specification.
        option: `input_forget` of LSTM, `linear_before_reset` of GRU.
        backwards: Reads the sequence from its end.
    """

    w: Tensor
    r: Tensor
    input_bias: Tensor | None
    state_bias: Tensor | None
    peepholes: Sequence[Tensor | float]
    functions: Sequence[Function]
    option: bool
    backwards: bool


def _lstm(gates: Tensor, states: States, by: Direction) -> States:
    h, c = states
    f, g, out = by.functions
    i, o, forget, new = (gates + F.linear(h, by.r, by.state_bias)).chunk(4, -1)
    p_i, p_o, p_f = by.peepholes
    i = f(i + p_i * c)
    keep = 1 - i if by.option else f(forget + p_f * c)
    c = keep * c + i * g(new)
    return f(o + p_o * c) * out(c), c


def _gru(gates: Tensor, states: States, by: Direction) -> States:
    (h,) = states
    f, g = by.functions
    n = h.shape[-1]
    r_zr, r_h = by.r[: 2 * n], by.r[2 * n :]
    b_zr, b_h = (None, None) if by.state_bias is None else by.state_bias.split([2 * n, n])
    z, reset = f(gates[:, : 2 * n] + F.linear(h, r_zr, b_zr)).chunk(2, -1)
    if by.option:
        new = g(gates[:, 2 * n :] + reset * F.linear(h, r_h, b_h))
    else:
        new = g(gates[:, 2 * n :] + F.linear(reset * h, r_h, b_h))
    return ((1 - z) * new + z * h,)


def _rnn(gates: Tensor, states: States, by: Direction) -> States:
    return (by.functions[0](gates + F.linear(states[0], by.r, by.state_bias)),)


class Kind(NamedTuple):
    """One of the three operators.

    Attributes:
        step: Makes of the input's part of the gates (batch, gates x hidden) and the states the
            next states.
        functions: Names of the gates' functions by default.
        order: The place in ONNX of PyTorch's gates.
        states: How many states there are.
        fused: PyTorch's operator by what the functions and the option must be.
    """

    step: Callable[[Tensor, States, Direction], States]
    functions: tuple[str, ...]
    order: tuple[int, ...]
    states: int
    fused: dict[tuple[tuple[str, ...], bool], Callable[..., tuple[Tensor, ...]]]


_KINDS = {
    "LSTM": Kind(
        step=_lstm,
        functions=("Sigmoid", "Tanh", "Tanh"),
        order=(0, 2, 3, 1),  # i f c o of i o f c
        states=2,
        fused={(("sigmoid", "tanh", "tanh"), False): torch.lstm},
    ),
    "GRU": Kind(
        step=_gru,
        functions=("Sigmoid", "Tanh"),
        order=(1, 0, 2),  # r z h of z r h
        states=1,
        fused={(("sigmoid", "tanh"), True): torch.gru},
    ),
    "RNN": Kind(
        step=_rnn,
        functions=("Tanh",),
        order=(0,),
        states=1,
        fused={(("tanh",), False): torch.rnn_tanh, (("relu",), False): torch.rnn_relu},
    ),
}


def recurrent(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None,
    lengths: Tensor | None,
    initial: Sequence[Tensor | None],
    p: Tensor | None,
    *,
    kind: str,
    direction: str,
    functions: Sequence[Choice],
    clip: float | None,
    option: bool,
    batch_first: bool,
) -> States:
    """Return Y, Y_h and for LSTM Y_c.

    Args:
        x: Sequences (time, batch, inputs), first two swapped if `batch_first`.
        w: Weights of the input.
        r: Weights of the recurrence.
        b: Biases of both.
        lengths: Length of each sequence (batch,).
        initial: Initial hidden state, and for LSTM cell state, (directions, batch, hidden), first
            two swapped if `batch_first`.
        p: Peepholes of LSTM in the order iof.
        kind: LSTM, GRU or RNN.
        direction: forward, reverse or bidirectional.
        functions: Those of the gates, direction by direction.
        clip: Bound of what the functions are applied to.
        option: `input_forget` of LSTM, `linear_before_reset` of GRU.
        batch_first: What `layout` says.
    """
    if batch_first:
        x = x.transpose(0, 1)
        initial = [None if state is None else state.transpose(0, 1) for state in initial]
    if lengths is not None and bool((lengths == x.shape[0]).all()):
        lengths = None
    zeros = x.new_zeros(w.shape[0], x.shape[1], r.shape[2])
    states = tuple(zeros if state is None else state for state in initial)
    each = len(functions) // len(w)
    fused = _fused(kind, functions, each, option)
    if fused and clip is None and p is None and lengths is None:
        y, last = _run_fused(fused, x, _weights_of_torch(kind, w, r, b), states, direction)
    else:
        bounded = _functions(functions, each, clip)
        parts = []
        for d in range(len(w)):
            input_bias, state_bias = (None, None) if b is None else b[d].chunk(2)
            peepholes = (0.0, 0.0, 0.0) if p is None else p[d].chunk(3)
            biased = (w[d], r[d], input_bias, state_bias, peepholes)
            by = Direction(*biased, bounded[d], option, backwards=direction == "reverse" or d == 1)
            parts.append(_unroll(_KINDS[kind], x, [s[d] for s in states], by, lengths))
        y = torch.stack([part[0] for part in parts], 1)
        last = tuple(torch.stack(both) for both in zip(*(part[1] for part in parts), strict=True))
    if batch_first:
        return y.permute(2, 0, 1, 3), *(state.transpose(0, 1) for state in last)
    return y, *last


def _fused(
    kind: str, functions: Sequence[Choice], each: int, option: bool
) -> Callable[..., tuple[Tensor, ...]] | None:
    """Return PyTorch's operator with these functions in every direction, if there is one."""
    names = tuple(name for name, _, _ in functions)
    if names[:each] != names[-each:]:
        return None
    return _KINDS[kind].fused.get((names[:each], option))


def _functions(functions: Sequence[Choice], each: int, clip: float | None) -> list[list[Function]]:
    """Return the functions of each direction.

    Like ONNX Runtime, do not clip the cell of an LSTM on its way to the output (function 2).
    """
    made = [function(c, clip if i % each < 2 else None) for i, c in enumerate(functions)]
    return [made[i : i + each] for i in range(0, len(made), each)]


def _weights_of_torch(kind: str, w: Tensor, r: Tensor, b: Tensor | None) -> list[Tensor]:
    order = _KINDS[kind].order

    def sorted_gates(t: Tensor) -> Tensor:
        gates = t.chunk(len(order))
        return torch.cat([gates[i] for i in order])

    found = []
    for d in range(len(w)):
        biases = () if b is None else b[d].chunk(2)
        found += [sorted_gates(t) for t in (w[d], r[d], *biases)]
    return found


def _run_fused(
    operator: Callable[..., tuple[Tensor, ...]],
    x: Tensor,
    weights: list[Tensor],
    states: States,
    direction: str,
) -> tuple[Tensor, States]:
    both = direction == "bidirectional"
    biased = len(weights) == (8 if both else 4)
    start: States | Tensor = states if len(states) > 1 else states[0]
    x = x.flip(0) if direction == "reverse" else x
    # Training is on because cuDNN has no gradient without; with no dropout it changes no value.
    y, *last = operator(x, start, weights, biased, 1, 0.0, True, both, False)
    y = y.unflatten(-1, (len(states[0]), -1)).transpose(1, 2)
    return (y.flip(0) if direction == "reverse" else y), tuple(last)


def _unroll(
    kind: Kind, x: Tensor, first: Sequence[Tensor], by: Direction, lengths: Tensor | None
) -> tuple[Tensor, States]:
    """Return Y (time, batch, hidden) and the last states of one direction."""
    x = _reversed(x, lengths) if by.backwards else x
    gates = F.linear(x, by.w, by.input_bias)
    alive = None
    if lengths is not None:
        alive = torch.arange(len(x), device=x.device)[:, None, None] < lengths[:, None]
    states, hidden = tuple(first), []
    for t in range(len(x)):
        new = kind.step(gates[t], states, by)
        if alive is not None:
            new = tuple(torch.where(alive[t], n, s) for n, s in zip(new, states, strict=True))
        states = new
        hidden.append(states[0])
    y = torch.stack(hidden)
    if alive is not None:
        y = torch.where(alive, y, 0)
        states = tuple(torch.where(alive[0], s, 0) for s in states)  # as ONNX Runtime: nothing read
    return (_reversed(y, lengths) if by.backwards else y), states


def _reversed(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Return sequences (time, batch, ...) from their ends; padding stays where it is."""
    if lengths is None:
        return x.flip(0)
    t = torch.arange(len(x), device=x.device)[:, None]
    source = torch.where(t < lengths, lengths - 1 - t, t)
    return x[source, torch.arange(x.shape[1], device=x.device)]


def _handler(kind: str) -> Handler:
    option = {"LSTM": "input_forget", "GRU": "linear_before_reset", "RNN": ""}[kind]

    def handle(builder: Builder, node: onnx.NodeProto) -> fx.Node:
        x, w, r, b, lengths, h, c, p = (inputs(builder, node) + [None] * 5)[:8]
        given = attributes(node)
        direction = given.get("direction", "forward")
        sides = 2 if direction == "bidirectional" else 1
        settings = {
            "kind": kind,
            "direction": direction,
            "functions": choose(
                given.get("activations") or _KINDS[kind].functions * sides,
                given.get("activation_alpha", ()),
                given.get("activation_beta", ()),
                f"{kind} {node.name!r}",
            ),
            "clip": given.get("clip") or None,
            "option": bool(given.get(option, 0)),
            "batch_first": bool(given.get("layout", 0)),
        }
        initial = (h, c)[: _KINDS[kind].states]
        results = builder.call_function(recurrent, (x, w, r, b, lengths, initial, p), settings)
        return outputs(builder, node, results)

    return handle


HANDLERS: tuple[Row, ...] = tuple(Row(kind, 1, _handler(kind)) for kind in _KINDS)
