"""The functions that gates of LSTM, GRU and RNN may use, by their names in ONNX.

Source: the lists "Activation functions" of these operators in the ONNX specification. It leaves
open what Affine, ScaledTanh and ThresholdedRelu are without alpha and beta: as in ONNX Runtime, 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from onnx_relief.errors import UnsupportedError

Function = Callable[[Tensor], Tensor]
# A name in lower case, alpha and beta: what an FX graph can hold of a function.
Choice = tuple[str, float, float]


def _affine(x: Tensor, alpha: float, beta: float) -> Tensor:
    return alpha * x + beta


def _leaky_relu(x: Tensor, alpha: float, _: float) -> Tensor:
    return F.leaky_relu(x, alpha)


def _thresholded_relu(x: Tensor, alpha: float, _: float) -> Tensor:
    return torch.where(x > alpha, x, 0)


def _scaled_tanh(x: Tensor, alpha: float, beta: float) -> Tensor:
    return alpha * torch.tanh(beta * x)


def _hard_sigmoid(x: Tensor, alpha: float, beta: float) -> Tensor:
    return torch.clamp(alpha * x + beta, 0, 1)


def _elu(x: Tensor, alpha: float, _: float) -> Tensor:
    return F.elu(x, alpha)


_PLAIN: dict[str, Function] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softsign": F.softsign,
    "softplus": F.softplus,
}
# The function and its defaults: (alpha,) or (alpha, beta).
_SCALED: dict[str, tuple[Callable[[Tensor, float, float], Tensor], tuple[float, ...]]] = {
    "affine": (_affine, (0.0, 0.0)),
    "leakyrelu": (_leaky_relu, (0.01,)),
    "thresholdedrelu": (_thresholded_relu, (0.0,)),
    "scaledtanh": (_scaled_tanh, (0.0, 0.0)),
    "hardsigmoid": (_hard_sigmoid, (0.2, 0.5)),
    "elu": (_elu, (1.0,)),
}


def choose(
    names: Sequence[str], alphas: Iterable[float], betas: Iterable[float], place: str
) -> tuple[Choice, ...]:
    """Return the functions that a node names, in order.

    Only a function that has an alpha (a beta) takes the next value of its list.

    Args:
        names: `activations` of the node, upper or lower case.
        alphas: `activation_alpha` of the node.
        betas: `activation_beta` of the node.
        place: What to call the node in an error.

    Raises:
        UnsupportedError: ONNX has no such function.
    """
    left_alphas, left_betas = iter(alphas), iter(betas)
    return tuple(_choice(name.lower(), left_alphas, left_betas, place) for name in names)


def _choice(name: str, alphas: Iterator[float], betas: Iterator[float], place: str) -> Choice:
    if name in _PLAIN:
        return name, 0.0, 0.0
    if name not in _SCALED:
        raise UnsupportedError(
            f"{place} uses the activation {name!r}, which ONNX does not have; "
            f"it has {', '.join(sorted({*_PLAIN, *_SCALED}))}."
        )
    defaults = _SCALED[name][1]
    alpha = next(alphas, defaults[0])
    beta = next(betas, defaults[1]) if len(defaults) > 1 else 0.0
    return name, alpha, beta


def function(choice: Choice, clip: float | None) -> Function:
    """Return the function of a choice, whose input is first clipped to [-clip, clip]."""
    name, alpha, beta = choice
    if name in _PLAIN:
        inner = _PLAIN[name]
    else:
        scaled = _SCALED[name][0]
        inner = lambda x: scaled(x, alpha, beta)  # noqa: E731
    return inner if clip is None else lambda x: inner(torch.clamp(x, -clip, clip))
