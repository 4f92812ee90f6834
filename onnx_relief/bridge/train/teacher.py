"""Who tells the model what to answer where labels do not: a model that is never trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from onnx_relief.bridge.check import check
from onnx_relief.bridge.convert import convert
from onnx_relief.data.batch import Array
from onnx_relief.graph.document import Document
from onnx_relief.runtime import Session, open_session
from onnx_relief.training import TrainSettings

Teacher = Callable[[Mapping[str, Array]], Mapping[str, Any]]
"""Called with arrays by input name, returns arrays by output name."""


@dataclass(frozen=True, eq=False)
class SessionTeacher:
    """A model in ONNX Runtime.

    Attributes:
        session: The model.
        outputs: Names of the outputs wanted; empty for all.
    """

    session: Session
    outputs: tuple[str, ...] = ()

    def __call__(self, feed: Mapping[str, Array]) -> Mapping[str, Any]:
        """Return the outputs by name.

        Raises:
            ModelError: It cannot be run on this feed.
        """
        return self.session.run(feed, self.outputs)


@dataclass(frozen=True, eq=False)
class ModuleTeacher:
    """A module of torch that takes and gives tensors by name, as an `OnnxModule` does."""

    module: nn.Module

    def __call__(self, feed: Mapping[str, Array]) -> Mapping[str, Any]:
        """Return the outputs by name."""
        self.module.eval()
        device = next((p.device for p in self.module.parameters()), torch.device("cpu"))
        with torch.no_grad():
            found: Mapping[str, Tensor] = self.module(
                {name: torch.from_numpy(array).to(device) for name, array in feed.items()}
            )
        return {name: value.detach().cpu().numpy() for name, value in found.items()}


def module_teacher(
    document: Document,
    sample: Mapping[str, Array],
    settings: TrainSettings,
    *,
    provider: str = "auto",
) -> ModuleTeacher:
    """Return a model as a teacher that PyTorch runs, on the device that trains.

    Raises:
        UnsupportedError: The bridge cannot carry it; ONNX Runtime can run it all the same.
    """
    module = convert(document)
    check(module, document, sample, provider=provider)
    wants_gpu = settings.device != "cpu" and torch.cuda.is_available()
    return ModuleTeacher(module.to("cuda" if wants_gpu else "cpu").requires_grad_(False))


def open_teacher(
    document: Document, *, provider: str = "auto", outputs: Sequence[str] = ()
) -> SessionTeacher:
    """Return a model as a teacher.

    Raises:
        ModelError, SettingsError: As `open_session`.
    """
    return SessionTeacher(open_session(document, provider=provider), tuple(outputs))
