"""Compute a model in float64, where differences are no rounding, through the bridge to torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from onnx_relief.bridge.check import as_array, tensors
from onnx_relief.bridge.convert import build
from onnx_relief.graph.document import Document
from onnx_relief.graph.lift import lift_constants


class _Double(TorchFunctionMode):
    """Whoever asks torch for fp32, a Cast or a constant for example, gets fp64."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - as declared by torch
        return func(*tree_map(_wide, args), **tree_map(_wide, dict(kwargs or {})))


def _wide(value: object) -> object:
    return torch.float64 if value is torch.float32 else value


def outputs_in_double(
    document: Document, feed: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Return the outputs of a model that are tensors, all of it computed in float64.

    Raises:
        UnsupportedError: The bridge does not carry the model.
    """
    lifted = lift_constants(document)
    with _Double(), torch.no_grad():
        builder, net = build(lifted, document.name)
        given = {
            name: value.double() if value.is_floating_point() else value
            for name, value in tensors(feed).items()
        }
        found = net.double().eval()(*(given[name] for name in builder.input_names))
    names = [value.name for value in lifted.proto.graph.output]
    values = found if isinstance(found, tuple | list) and len(names) > 1 else (found,)
    arrays = dict(zip(names, map(as_array, values), strict=True))
    return {name: one for name, one in arrays.items() if isinstance(one, np.ndarray)}
