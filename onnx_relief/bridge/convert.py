"""ONNX -> torch: onnx2fx with our own handlers, every weight a parameter tied to its home."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx2fx.exceptions import Onnx2FxError, UnsupportedDTypeError, UnsupportedOpError
from onnx2fx.graph_builder import GraphBuilder
from onnx2fx.utils.dtype import DTYPE_MAP
from torch import nn

from onnx_relief.bridge.module import OnnxModule
from onnx_relief.bridge.ops import register_handlers
from onnx_relief.errors import SettingsError, UnsupportedError
from onnx_relief.graph.document import Document
from onnx_relief.graph.lift import Lifted, lift_constants
from onnx_relief.graph.trainable import trainable_names
from onnx_relief.graph.walk import TensorHome

_RESERVED = frozenset(dir(torch.fx.GraphModule)) | frozenset(vars(nn.Module()))


def convert(document: Document, *, freeze: Iterable[str] = ()) -> OnnxModule:
    """Return `document` as a module whose weights can be trained.

    Weights that are stored as integers are trained as the numbers that these stand for, and seen
    by the module's nodes as the file can store them.

    Args:
        document: The model; it is not changed.
        freeze: Patterns (shell wildcards) of constants, as the file calls them, that stay as they
            are.

    Raises:
        UnsupportedError: An operator or type has no converter, or there is no weight to train.
        SettingsError: A pattern of `freeze` matches nothing.
    """
    lifted = lift_constants(document, _RESERVED, rounding=True)
    builder, net = build(lifted, document.name)
    trainable = _without_frozen(lifted, trainable_names(lifted), tuple(freeze))
    for name in trainable:
        value = getattr(net, name)
        delattr(net, name)
        net.register_parameter(name, nn.Parameter(value.clone()))
    if not trainable:
        raise UnsupportedError(f"{document.name} has no weights that could be trained")
    types = {value.name: value.type for value in lifted.proto.graph.input}
    return OnnxModule(
        net,
        inputs={name: _dtype(types[name]) for name in builder.input_names},
        outputs=tuple(value.name for value in lifted.proto.graph.output),
        homes=lifted.names,
    )


def build(lifted: Lifted, name: str) -> tuple[Any, torch.fx.GraphModule]:
    """Return onnx2fx's builder, which knows the node of every tensor, and the module it built.

    Raises:
        UnsupportedError: An operator or type has no converter.
    """
    register_handlers()
    try:
        builder = GraphBuilder(lifted.proto)
        return builder, _silenced(builder.build())
    except UnsupportedOpError as error:
        domain = f"{error.domain}::" if error.domain else ""
        raise UnsupportedError(
            f"{name} cannot be trained: there is no converter to torch for {domain}{error.op_type} "
            f"(opset {error.opset_version}); prune without retraining, or register a handler with "
            f"onnx2fx.register_op({error.op_type!r}, ...) before calling onnx_relief"
        ) from error
    except UnsupportedDTypeError as error:
        raise UnsupportedError(
            f"{name} cannot be trained: {_first_line(error)}; prune without retraining"
        ) from error
    except (
        Onnx2FxError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        RuntimeError,
    ) as error:
        raise UnsupportedError(
            f"{name} cannot be trained: the converter to torch fails with "
            f"{type(error).__name__}: {_first_line(error)}; prune without retraining"
        ) from error


def _silenced(net: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """Return a module that raises without printing a traceback first, bodies of loops included."""
    for part in net.modules():
        if isinstance(part, torch.fx.GraphModule):
            # Every one has a class of its own, whose call is what prints.
            type(part).__call__ = nn.Module.__call__  # type: ignore[method-assign]
    return net


def masks_for(
    module: OnnxModule, kept: Mapping[TensorHome, NDArray[np.bool_]]
) -> dict[str, torch.Tensor]:
    """Return what stays of the parameters, by name, for what stays of the stored tensors.

    Args:
        module: The module.
        kept: True where a stored element stays, flat or in its shape; homes that are no parameters
            are left out.
    """
    parameters = dict(module.named_parameters())
    return {
        name: torch.from_numpy(np.array(kept[home])).reshape(parameters[name].shape)
        for name, home in module.homes.items()
        if name in parameters and home in kept
    }


def _without_frozen(
    lifted: Lifted, names: tuple[str, ...], patterns: tuple[str, ...]
) -> tuple[str, ...]:
    known = {name: (name, lifted.names[name].name, str(lifted.names[name])) for name in names}
    for pattern in patterns:
        if not any(fnmatchcase(text, pattern) for texts in known.values() for text in texts):
            examples = ", ".join(str(lifted.names[name]) for name in names[:3])
            raise SettingsError(
                f"--freeze {pattern!r} matches no weight; there are for example {examples}"
            )
    return tuple(
        name
        for name in names
        if not any(fnmatchcase(text, p) for text in known[name] for p in patterns)
    )


def _dtype(kind: onnx.TypeProto) -> torch.dtype | None:
    if not kind.HasField("tensor_type"):
        return None
    found: torch.dtype | None = DTYPE_MAP.get(kind.tensor_type.elem_type)
    return found


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
