"""The scores of "Neural network relief" a second time, in float64, straight from the equations.

Slow and plain on purpose: no Gram matrices, no streaming, no shared code with the package. A
convolution is written by its definition, which input element every tap meets at every output
position. Everything is an array of NumPy; nothing here knows ONNX Runtime or the package.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod

import numpy as np

Sizes = tuple[int, ...]


def shares(*signals: np.ndarray) -> list[np.ndarray]:
    """Divide all signals of a unit by their sum: s_ij = signal_ij / S_j; each (units, ...)."""
    units = len(signals[0])
    total = sum(np.asarray(part, np.float64).reshape(units, -1).sum(axis=1) for part in signals)
    safe = np.where(total > 0, total, 1.0)
    return [part / safe.reshape(units, *[1] * (part.ndim - 1)) for part in signals]


# --- convolutions ---------------------------------------------------------------------------------


def output_frame(
    size: Sizes, kernel: Sizes, attributes: Mapping[str, object], *, transposed: bool
) -> tuple[Sizes, Sizes]:
    """Return (padding at the begin, output size) per axis, by the rules of the specification."""
    frames = [
        _frame_of_axis(axis, size[axis], kernel[axis], len(kernel), attributes, transposed)
        for axis in range(len(kernel))
    ]
    return tuple(begin for begin, _ in frames), tuple(out for _, out in frames)


def _frame_of_axis(axis, size, kernel, rank, attributes, transposed) -> tuple[int, int]:
    stride = attributes.get("strides", (1,) * rank)[axis]
    reach = (kernel - 1) * attributes.get("dilations", (1,) * rank)[axis] + 1
    mode = attributes.get("auto_pad", "NOTSET")
    pads = attributes.get("pads", (0,) * 2 * rank) if mode == "NOTSET" else (0,) * 2 * rank
    begin, end = pads[axis], pads[axis + rank]
    if not transposed:
        if mode.startswith("SAME"):
            wanted = -(-size // stride)
            both = max(0, (wanted - 1) * stride + reach - size)
            begin = both // 2 if mode == "SAME_UPPER" else both - both // 2
            end = both - begin
        return begin, (size + begin + end - reach) // stride + 1
    natural = (size - 1) * stride + reach + attributes.get("output_padding", (0,) * rank)[axis]
    if "output_shape" in attributes or mode.startswith("SAME"):
        given = attributes.get("output_shape")
        wanted = given[axis] if given else size * stride
        both = max(0, natural - wanted)
        begin = both // 2 if mode == "SAME_UPPER" else both - both // 2
        return begin, wanted if given else natural - both
    return begin, natural - begin - end


def seen_by_taps(
    x: np.ndarray, kernel: Sizes, attributes: Mapping[str, object], *, transposed: bool
) -> np.ndarray:
    """Return the input element that each tap meets, shape (samples, channels, taps, positions)."""
    size, rank = x.shape[2:], len(kernel)
    begins, outputs = output_frame(size, kernel, attributes, transposed=transposed)
    strides = attributes.get("strides", (1,) * rank)
    dilations = attributes.get("dilations", (1,) * rank)
    seen = np.zeros((*x.shape[:2], prod(kernel), prod(outputs)), np.float64)
    for t, tap in enumerate(np.ndindex(*kernel)):
        for o, place in enumerate(np.ndindex(*outputs)):
            axes = zip(place, begins, tap, dilations, strides, size, strict=True)
            source = [
                _gathered(p, b, k, d, s, n) if not transposed else _spread(p, b, k, d, s, n)
                for p, b, k, d, s, n in axes
            ]
            if None not in source:
                seen[:, :, t, o] = x[(slice(None), slice(None), *source)]
    return seen


def _gathered(place, begin, tap, dilation, stride, size) -> int | None:
    source = place * stride - begin + tap * dilation
    return source if 0 <= source < size else None


def _spread(place, begin, tap, dilation, stride, size) -> int | None:
    # Input i adds to output i * stride + tap * dilation - begin.
    source, rest = divmod(place + begin - tap * dilation, stride)
    return source if rest == 0 and 0 <= source < size else None


def kernels_by_unit(weight: np.ndarray, groups: int, *, transposed: bool) -> np.ndarray:
    """Return (units, channels of the group, taps) of a Conv or ConvTranspose weight."""
    if not transposed:
        return weight.reshape(*weight.shape[:2], -1).astype(np.float64)
    per_group = weight.shape[0] // groups
    units = [
        weight[g * per_group : (g + 1) * per_group, j].reshape(per_group, -1)
        for g in range(groups)
        for j in range(weight.shape[1])
    ]
    return np.stack(units).astype(np.float64)


def _channels_of(unit: int, units: int, width: int, groups: int) -> slice:
    group = unit // (units // groups)
    return slice(group * width, (group + 1) * width)


def convolution_output(seen: np.ndarray, kernels: np.ndarray, groups: int) -> np.ndarray:
    """Return what the layer gives without its bias, shape (samples, units, positions)."""
    units, width, _ = kernels.shape
    return np.stack(
        [
            np.einsum("it,nito->no", kernels[j], seen[:, _channels_of(j, units, width, groups)])
            for j in range(units)
        ],
        axis=1,
    )


def convolution_signals(
    seen: np.ndarray, kernels: np.ndarray, groups: int, *, mean_map: bool, weights: bool
) -> np.ndarray:
    """Return the numerators of every connection, shape (units, channels of the group, taps or 1).

    Args:
        seen: What the taps meet, from `seen_by_taps`.
        kernels: From `kernels_by_unit`.
        groups: Number of groups.
        mean_map: Norm of the mean map instead of the mean of the norms.
        weights: One signal per weight instead of one per kernel.
    """
    units, width, taps = kernels.shape
    seen = np.abs(seen)
    if mean_map:
        seen = seen.mean(axis=0, keepdims=True)
    signals = np.zeros((units, width, taps if weights else 1))
    for j in range(units):
        mine = seen[:, _channels_of(j, units, width, groups)]
        for i in range(width):
            strength = np.abs(kernels[j, i])
            if weights:
                for t in range(taps):
                    signals[j, i, t] = strength[t] * np.linalg.norm(mine[:, i, t], axis=1).mean()
            else:
                maps = np.einsum("t,nto->no", strength, mine[:, i])
                signals[j, i, 0] = np.linalg.norm(maps, axis=1).mean()
    return signals


# --- fully connected ------------------------------------------------------------------------------


def matmul_signals(x: np.ndarray, weight: np.ndarray, *, weight_left: bool) -> np.ndarray:
    """Return |w| times the mean |x| over all products that each w takes part in, (units, inputs).

    The products are all written out: (*batch, rows, inputs, columns), as numpy.matmul broadcasts.
    """
    x, weight = np.abs(x.astype(np.float64)), np.abs(weight.astype(np.float64))
    if weight.ndim == 1:
        weight = weight[None, :] if weight_left else weight[:, None]
    if x.ndim == 1:
        x = x[:, None] if weight_left else x[None, :]
    left, right = (weight, x) if weight_left else (x, weight)
    products = left[..., :, :, None] * right[..., None, :, :]
    batch = products.shape[:-3]
    own = (1,) * (len(batch) - weight.ndim + 2) + weight.shape[:-2]
    shared = tuple(axis for axis, size in enumerate(own) if size == 1)
    products = products.mean(axis=(*shared, -1 if weight_left else -3))
    by_unit = products if weight_left else np.swapaxes(products, -1, -2)
    return by_unit.reshape(-1, by_unit.shape[-1])


# --- recurrent ------------------------------------------------------------------------------------


def recurrent_signals(
    x: np.ndarray,
    states: np.ndarray,
    weights: tuple[np.ndarray, np.ndarray],
    *,
    reverse: Sequence[bool],
    initial: np.ndarray | None,
    lengths: Sequence[int] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the numerators of input and recurrent weights, (units, inputs) and (units, hidden).

    Args:
        x: (steps, batch, inputs).
        states: The runtime's own Y, (steps, directions, batch, hidden).
        weights: W (directions, gates, inputs) and R (directions, gates, hidden).
        reverse: Per direction, whether it reads the steps from the end.
        initial: initial_h, (directions, batch, hidden).
        lengths: sequence_lens, (batch,).
    """
    steps, batch, _ = x.shape
    lengths = [steps] * batch if lengths is None else lengths
    inputs = [np.abs(x[t, b]) for b in range(batch) for t in range(lengths[b])]
    mean_input = np.mean(np.array(inputs, np.float64), axis=0)
    from_input, from_hidden = [], []
    for d, backwards in enumerate(reverse):
        read = list(
            _read_states(states[:, d], backwards, None if initial is None else initial[d], lengths)
        )
        mean_hidden = np.mean(np.abs(np.array(read, np.float64)), axis=0)
        from_input.append(np.abs(weights[0][d]) * mean_input)
        from_hidden.append(np.abs(weights[1][d]) * mean_hidden)
    return np.concatenate(from_input), np.concatenate(from_hidden)


def _read_states(states, backwards, initial, lengths) -> Iterator[np.ndarray]:
    """Yield the previous hidden state of every step of every sequence."""
    for b, length in enumerate(lengths):
        order = list(range(length))[:: -1 if backwards else 1]
        for previous in [None, *order[:-1]][:length]:
            if previous is not None:
                yield states[previous, b]
            else:
                yield np.zeros(states.shape[-1]) if initial is None else initial[b]
