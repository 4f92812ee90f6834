"""BatchNormalization, which also learns its running statistics and can be frozen.

Source: BatchNormalization 1 to 15 of the ONNX specification; in training the running statistics
follow `torch.nn.BatchNorm2d` (unbiased variance), with ONNX's momentum m in
running = m * running + (1 - m) * batch.
"""

from __future__ import annotations

from typing import Any

import onnx
import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, fx, nn

from onnx_relief.bridge.ops.registry import Builder, Row, attributes, inputs, outputs


class BatchNormalization(nn.Module):
    """One node.

    In training it normalises by the statistics of the batch, over all processes where there are
    several (each with as many samples), and updates the running statistics that are passed in. A
    batch with one value per channel says nothing about its variance: it is normalised as in
    evaluation.

    Args:
        momentum: How much of the running statistics stays, as ONNX has it (PyTorch has 1 minus it).
        epsilon: Added to the variance.
        of_batch: The node itself asks for the statistics of the batch, trained or not: it gives
            them out too.

    Attributes:
        frozen: Keep to the running statistics in training, too.
    """

    def __init__(self, momentum: float, epsilon: float, *, of_batch: bool = False) -> None:
        super().__init__()
        self.momentum = momentum
        self.epsilon = epsilon
        self.of_batch = of_batch
        self.frozen = False

    def forward(
        self, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor
    ) -> Tensor | tuple[Tensor, ...]:
        """Return Y; or, `of_batch`, also running mean and variance and what opset 13 saved.

        Args:
            x: Shape (batch, channels, ...), or (batch,) for one channel.
            scale: Shape (channels,), or of a whole sample (what `spatial` 0 once meant).
            bias: Likewise.
            mean: Running mean, likewise.
            var: Running variance, likewise.
        """
        flat = x.ndim == 1
        x = x[:, None] if flat else x
        if self.of_batch:
            y, *others = self._of_batch(x, scale, bias, mean, var)
            return y[:, 0] if flat else y, *others
        count = x.numel() // max(scale.numel(), 1)
        processes = _processes() if self.training else 1
        if not self.training or self.frozen or count * processes < 2:
            y = self._by_running_statistics(x, scale, bias, mean, var)
        elif processes > 1 or scale.ndim > 1 or x.dtype != scale.dtype:
            y = self._by_statistics_of_batch(x, scale, bias, mean, var, count * processes)
        else:
            rate, running = 1 - self.momentum, (mean.detach(), var.detach())
            y = F.batch_norm(x, *running, scale, bias, True, rate, self.epsilon)
        return y[:, 0] if flat else y

    def _by_running_statistics(
        self, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor
    ) -> Tensor:
        if scale.ndim > 1 or mean.requires_grad or var.requires_grad or x.dtype != scale.dtype:
            return self._normalised(x, scale, bias, mean, var)
        return F.batch_norm(x, mean, var, scale, bias, False, 0.0, self.epsilon)

    def _by_statistics_of_batch(
        self, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor, count: int
    ) -> Tensor:
        batch_mean, batch_var = _statistics(x, scale.ndim, together=True)
        with torch.no_grad():
            rate = 1 - self.momentum
            mean.lerp_(batch_mean.to(mean.dtype), rate)
            var.lerp_((batch_var * (count / (count - 1))).to(var.dtype), rate)
        return self._normalised(x, scale, bias, batch_mean, batch_var)

    def _of_batch(
        self, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor
    ) -> tuple[Tensor, ...]:
        batch_mean, batch_var = _statistics(x, scale.ndim, together=self.training)
        m = self.momentum
        running_mean = (mean * m + batch_mean * (1 - m)).to(mean.dtype)
        running_var = (var * m + batch_var * (1 - m)).to(var.dtype)
        y = self._normalised(x, scale, bias, batch_mean, batch_var)
        return y, running_mean, running_var, batch_mean, torch.rsqrt(batch_var + self.epsilon)

    def _normalised(
        self, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor
    ) -> Tensor:
        shape = scale.shape + (1,) * (x.ndim - 1 - scale.ndim)
        factor = torch.rsqrt(var + self.epsilon).reshape(shape) * scale.reshape(shape)
        return ((x - mean.reshape(shape)) * factor + bias.reshape(shape)).to(x.dtype)


def freeze_batch_normalization(module: nn.Module, frozen: bool) -> int:
    """Freeze or free the running statistics of all BatchNormalization nodes in a module.

    Args:
        module: What `ops` made of a model, bodies of If, Loop and Scan included.
        frozen: Whether they keep to their running statistics in training.

    Returns:
        How many nodes there are.
    """
    found = [part for part in module.modules() if isinstance(part, BatchNormalization)]
    for part in found:
        part.frozen = frozen
    return len(found)


class _Sum(torch.autograd.Function):
    """The sum over all processes, whose gradient is the sum over all processes."""

    @staticmethod
    def forward(_: Any, value: Tensor) -> Tensor:  # noqa: ANN401
        total = value.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:  # noqa: ANN401
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def _sum(value: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
    return total


def _processes() -> int:
    together = dist.is_available() and dist.is_initialized()
    return dist.get_world_size() if together else 1


def _statistics(x: Tensor, ndim: int, *, together: bool) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of all axes but those of the channels.

    In two passes: the difference of large squares would lose the variance.
    """
    axes = [0, *range(1 + ndim, x.ndim)]
    processes = _processes() if together else 1

    def average(values: Tensor) -> Tensor:
        mean = values.mean(axes, keepdim=True)
        return mean if processes == 1 else _sum(mean) / processes

    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    mean = average(x)
    var = average((x - mean).square())
    shape = x.shape[1 : 1 + ndim]
    return mean.reshape(shape), var.reshape(shape)


def _handle(builder: Builder, node: onnx.NodeProto) -> fx.Node:
    given = attributes(node)
    # Before opset 14 five outputs said what training_mode says since.
    of_batch = bool(given.get("training_mode")) or (
        len(node.output) > 1 and builder.opset_version < 14
    )
    module = BatchNormalization(
        given.get("momentum", 0.9), given.get("epsilon", 1e-5), of_batch=of_batch
    )
    name = builder.register_submodule(f"BatchNormalization_{node.name}", module)
    return outputs(builder, node, builder.call_module(name, inputs(builder, node)))


HANDLERS: tuple[Row, ...] = (Row("BatchNormalization", 1, _handle),)
