"""The model as a `torch.nn.Module` that knows which of its tensors lives where in the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from onnx_relief.errors import DataError
from onnx_relief.graph.walk import TensorHome


class OnnxModule(nn.Module):
    """An ONNX model that torch can train.

    Parameters are the weights, in the stored shape, in fp32 or fp64; buffers are running statistics
    and other float constants. Both are called by `state_dict` what they are called in the file, as
    far as Python allows.

    Attributes:
        inputs: Names of the model's inputs, in order.
        outputs: Names of its outputs, in order.
        homes: Where each parameter and buffer lives in the file, by its name in `state_dict`.
        masks: False where a parameter is held at zero, bool of the parameter's shape, by name.
    """

    homes: Mapping[str, TensorHome]

    def __init__(
        self,
        net: torch.fx.GraphModule,
        *,
        inputs: Mapping[str, torch.dtype | None],
        outputs: tuple[str, ...],
        homes: Mapping[str, TensorHome],
    ) -> None:
        super().__init__()
        self.net = net
        self.inputs = tuple(inputs)
        self.outputs = outputs
        self.homes = {f"net.{name}": home for name, home in homes.items()}
        self.masks: dict[str, Tensor] = {}
        self._zeroed: dict[str, Tensor] = {}
        self._dtypes = dict(inputs)

    def forward(self, *args: Any, **named: Tensor) -> dict[str, Tensor]:  # noqa: ANN401
        """Return the outputs by name for inputs in order, by name, or in one mapping.

        Raises:
            DataError: An input is missing or unknown.
        """
        feed = dict(args[0]) if args and isinstance(args[0], Mapping) else {}
        if not feed:
            feed = dict(zip(self.inputs, args, strict=False)) | named
        if set(feed) != set(self.inputs):
            raise DataError(
                f"the model takes {', '.join(map(repr, self.inputs))}, "
                f"and was given {', '.join(map(repr, feed)) or 'nothing'}"
            )
        found = self.net(*(self._fitted(name, feed[name]) for name in self.inputs))
        values = found if isinstance(found, tuple | list) and len(self.outputs) > 1 else (found,)
        return dict(zip(self.outputs, values, strict=True))

    def run(self, feed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs by name for inputs by name."""
        outputs: dict[str, Tensor] = self(feed)
        return outputs

    def hold(self, masks: Mapping[str, Tensor]) -> None:
        """Hold parameters at zero where `masks` is False, from now on, in any training loop.

        Their gradients become zero, so that no optimizer moves them (weight decay of zero is zero).

        Args:
            masks: Bool of the parameter's shape, by parameter name; added to those held already.
        """
        parameters = dict(self.named_parameters())
        for name, mask in masks.items():
            if name not in self.masks:
                self.masks[name] = mask.clone()
                parameters[name].register_hook(_Held(self, name))
            else:
                self.masks[name] &= mask.to(self.masks[name].device)
            self._zeroed.pop(name, None)
        self.hold_masks()

    def hold_masks(self) -> None:
        """Write the zeros again, exactly, whatever happened to the parameters."""
        parameters = dict(self.named_parameters())
        with torch.no_grad():
            for name in self.masks:
                parameters[name].masked_fill_(self.zeroed(name, parameters[name].device), 0.0)

    def zeroed(self, name: str, device: torch.device) -> Tensor:
        """Return where a parameter is held at zero, on a device; kept, since each step asks."""
        found = self._zeroed.get(name)
        if found is None or found.device != device:
            found = self._zeroed[name] = ~self.masks[name].to(device)
        return found

    def _fitted(self, name: str, value: Tensor) -> Tensor:
        """Return a float input in the width that the module computes in."""
        wanted = self._dtypes[name]
        if wanted is None or not (value.is_floating_point() and wanted.is_floating_point):
            return value
        return value.to(wanted)


class _Held:
    """A hook that zeroes the gradient of what is held at zero."""

    def __init__(self, module: OnnxModule, name: str) -> None:
        self._module, self._name = module, name

    def __call__(self, gradient: Tensor) -> Tensor:
        """Return the gradient with zeros, also where it was infinite or no number."""
        return gradient.masked_fill(self._module.zeroed(self._name, gradient.device), 0.0)
