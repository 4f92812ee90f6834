"""Losses that are operators."""

from __future__ import annotations

from typing import Final

from torch import Tensor
from torch.nn import functional

from onnx_relief.bridge.ops.registry import Row, call


def negative_log_likelihood(
    log_probabilities: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    *,
    reduction: str = "mean",
    ignore_index: int = -100,
) -> Tensor:
    """Return what log-probabilities (samples, classes, ...) give to labels (samples, ...)."""
    return functional.nll_loss(
        log_probabilities,
        labels.long(),
        None if weights is None else weights.detach(),  # torch refuses to learn them
        ignore_index=ignore_index,
        reduction=reduction,
    )


def softmax_cross_entropy(
    scores: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    *,
    reduction: str = "mean",
    ignore_index: int = -100,
) -> tuple[Tensor, Tensor]:
    """Return the loss of scores (samples, classes, ...), and their log-probabilities."""
    log_probabilities = functional.log_softmax(scores, 1)
    loss = negative_log_likelihood(
        log_probabilities, labels, weights, reduction=reduction, ignore_index=ignore_index
    )
    return loss, log_probabilities


HANDLERS: Final = (
    Row("NegativeLogLikelihoodLoss", 12, call(negative_log_likelihood)),
    Row("SoftmaxCrossEntropyLoss", 12, call(softmax_cross_entropy)),
)
