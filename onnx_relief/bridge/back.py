"""torch -> ONNX: the weights go back into the user's file, and nothing else changes."""

from __future__ import annotations

import numpy as np
import torch

from onnx_relief.bridge.module import OnnxModule
from onnx_relief.errors import SettingsError
from onnx_relief.graph.document import Document
from onnx_relief.graph.quantised import as_integers, dequantised
from onnx_relief.graph.rewrite import write_constants
from onnx_relief.graph.views import Constants
from onnx_relief.graph.walk import understand


def write_back(module: OnnxModule, document: Document) -> Document:
    """Return a copy of `document` with the module's parameters and running statistics in it.

    Values are rounded to the type that the file stores, or to the integers behind a
    DequantizeLinear; what is held at zero is written as zero.

    Args:
        module: A module that `convert` made of this document, or of one with the same tensors.
        document: The model; it is not changed.

    Raises:
        SettingsError: The module was made of another model, or integers would have to store what
            is no number.
    """
    constants = Constants(document)
    module.hold_masks()
    values = {}
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        home = module.homes.get(name)
        if home is None:
            continue
        if home not in constants:
            raise SettingsError(
                f"{document.name} has no tensor {str(home)!r}; give the model that the module was "
                "made of"
            )
        values[home] = _array(tensor)
        stored = constants.stored(home)
        if stored.size != 1 and stored.shape != values[home].shape:
            raise SettingsError(
                f"{document.name} stores {str(home)!r} as {stored.shape}, the module as "
                f"{values[home].shape}; give the model that the module was made of"
            )
    for home, group in dequantised(constants, understand(document.proto)).items():
        if home in values:
            if not np.isfinite(values[home]).all():
                raise SettingsError(
                    f"a weight of {str(home)!r} is infinite or no number, which integers cannot "
                    "be; train with a lower learning rate"
                )
            values[home] = as_integers(constants, group[0][-1], values[home])
    return write_constants(document, values)


def _array(tensor: torch.Tensor) -> np.ndarray:
    found: np.ndarray = tensor.detach().cpu().numpy()
    return found
