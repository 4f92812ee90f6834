"""Scores of LSTM, GRU and RNN against the equations, with the runtime's own hidden states."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st
from reference import recurrent_signals, shares
from scored import assert_scores, one_layer, run, scores_of

few = settings(max_examples=120, deadline=None)
BACKWARDS = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
OUTPUTS = {"LSTM": ("Y", "Y_h", "Y_c"), "GRU": ("Y", "Y_h"), "RNN": ("Y", "Y_h")}


@st.composite
def cells(draw: Any) -> dict[str, Any]:
    """Return one recurrent layer and its data, by name of the operator's inputs and attributes."""
    op = draw(st.sampled_from(sorted(GATES)))
    direction = draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    steps, batch, width, hidden = (draw(st.integers(1, most)) for most in (5, 3, 3, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def numbers(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(np.float32)

    lengths = rng.integers(0, steps + 1, batch)
    lengths[0] = max(lengths[0], 1)
    directions, gates = 1 + (direction == "bidirectional"), GATES[op] * hidden
    case: dict[str, Any] = {
        "X": numbers(steps, batch, width),
        "W": numbers(directions, gates, width),
        "R": numbers(directions, gates, hidden),
        "B": numbers(directions, 2 * gates) if draw(st.booleans()) else None,
        "sequence_lens": lengths.astype(np.int32) if draw(st.booleans()) else None,
        "initial_h": numbers(directions, batch, hidden) if draw(st.booleans()) else None,
    }
    if op == "LSTM":
        case["initial_c"] = numbers(directions, batch, hidden) if draw(st.booleans()) else None
    wanted = [name if draw(st.booleans()) else "" for name in OUTPUTS[op]]
    return {
        "op": op,
        "tensors": case,
        "outputs": wanted if any(wanted) else list(OUTPUTS[op]),
        "said": {"direction": direction, "hidden_size": hidden},
    }


@few
@given(cells())
def test_recurrent(case: dict[str, Any]) -> None:
    op, tensors, said = case["op"], case["tensors"], case["said"]
    there = {name: array for name, array in tensors.items() if array is not None}
    constants = {name: there[name] for name in ("W", "R", "B") if name in there}
    feed = {name: array for name, array in there.items() if name not in constants}
    names = [name if name in there else "" for name in tensors]
    model, full = (
        one_layer(op, names, constants, feed, outputs=outputs, **said)
        for outputs in (case["outputs"], OUTPUTS[op])
    )
    signals = recurrent_signals(
        feed["X"],
        run(full, feed)["Y"],
        (constants["W"], constants["R"]),
        reverse=BACKWARDS[said["direction"]],
        initial=tensors["initial_h"],
        lengths=tensors["sequence_lens"],
    )
    bias = rows_of(tensors["B"], len(signals[0]))
    scores = scores_of(model, feed)["layer"]
    assert_scores(scores, *shares(*signals, bias), rtol=1e-5, atol=1e-6)
    event(f"{op} {said['direction']}")


def rows_of(bias: Any, units: int) -> Any:
    """Return |Wb| and |Rb| of every unit side by side, (units, 2), or nothing."""
    if bias is None:
        return np.zeros((units, 0))
    return np.concatenate([np.abs(part.astype(np.float64)).reshape(2, -1).T for part in bias])
