"""The Python API of really smaller models: `compact` and `prune_channels`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from onnx_relief.channels.pruning import ChannelsPruned
from onnx_relief.channels.pruning import prune_channels as cut_channels
from onnx_relief.channels.settings import ChannelSettings
from onnx_relief.compaction.compact import Compacted, compact_on
from onnx_relief.data import Preprocess, open_data
from onnx_relief.graph.document import input_specs, load
from onnx_relief.graph.origin import note_dense
from onnx_relief.graph.sparse_store import is_sparse
from onnx_relief.inspection import Model
from onnx_relief.results import Progress
from onnx_relief.settings import Reconstruction, Settings


def compact(
    model: Model,
    data: object | None = None,
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    round_to: int | None = None,
    store: str = "dense",
    provider: str = "auto",
    preprocess: Preprocess | None = None,
    strict: bool = False,
) -> Compacted:
    """Return a model that computes the same without the channels that a masked one never uses.

    Args:
        model: Path of an ONNX file, or a model in memory; it is not changed.
        data: Data of any form that `prune` takes: both models are compared on its first sample, and
            on made-up numbers in any case.
        shapes: Without data, the shapes of inputs with free sizes.
        round_to: Keep a multiple of so many channels, some of them as zeros; 1 removes all, None
            takes 16, 8 or 4, whichever still fits four times.
        store: ``dense``, or ``sparse`` for very sparse weights as sparse tensors where the file
            gets smaller by it; only ONNX Runtime reads those.
        provider: Execution provider of ONNX Runtime, or ``auto``.
        preprocess: How samples become what the model takes.
        strict: Whether a broken picture is an error.

    Raises:
        UnsupportedError: The smaller model would differ.
        ReliefError: One sentence that says what, where, and what to do.
    """
    document = load(model)
    opened = None
    if data is not None:
        inputs = input_specs(document.proto)
        opened = open_data(data, inputs, preprocess=preprocess or Preprocess(), strict=strict)
    return compact_on(
        document,
        opened,
        shapes=shapes or {},
        provider=provider,
        round_to=round_to,
        sparse=is_sparse(store),
    )


def prune_channels(
    model: Model,
    data: object,
    *,
    ratio: float | None = None,
    target_params: float | None = None,
    target_macs: float | None = None,
    target_latency: float | None = None,
    scope: str | None = None,
    criterion: str = "obs",
    round_to: int | None = None,
    min_units: int = 1,
    heads: bool = False,
    repair: str = "least-squares",
    repair_epochs: int | None = None,
    flip: bool = False,
    crop_padding: int = 0,
    crop_scale: float = 1.0,
    color_jitter: float = 0.0,
    cutmix: float = 0.0,
    latency_batch: int = 1,
    latency_threads: int = 1,
    seed: int = 0,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    samples: int | None = 1000,
    batch_size: int = 16,
    provider: str = "auto",
    preprocess: Preprocess | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> ChannelsPruned:
    """Return a model without the channels that carry the least signal, coupled ones together.

    Args:
        model: Path of an ONNX file, or a model in memory; it is not changed.
        data: Calibration data of any form that `prune` takes.
        ratio: Share of the channels that goes; 0.3 unless a target is given.
        target_params: Instead, the share of the layers' weights that may stay.
        target_macs: Instead, the share of the multiply-accumulates that may stay.
        target_latency: Instead, the share of the latency that may stay, measured here.
        scope: ``layer``, the same share everywhere, or ``global``, wherever least is lost; by
            default ``layer`` with a ratio and ``global`` with a target.
        criterion: What scores connections: ``relief``, ``magnitude``, ``wanda``, ``obs`` ...
        round_to: Keep a multiple of so many channels; None decides by measuring latency.
        min_units: Keep at least so many of each axis.
        heads: Whether whole heads of attention go, instead of a part of each.
        repair: ``none``, ``mean``, ``bias``, ``least-squares`` or ``reconstruct``.
        repair_epochs: As for `prune`.
        flip: As for `prune`.
        crop_padding: As for `prune`.
        crop_scale: As for `prune`.
        color_jitter: As for `prune`.
        cutmix: As for `prune`.
        latency_batch: Samples per run where latency decides.
        latency_threads: Threads there; 0 for ONNX Runtime's own choice.
        seed: For what is drawn.
        only: Patterns; layers that match none of them are left alone.
        skip: Patterns; layers that match one of them are left alone.
        samples: At most so many samples of `data`, evenly spread; None for all.
        batch_size: Samples per run, where the model leaves that open.
        provider: Execution provider of ONNX Runtime, or ``auto``.
        preprocess: How samples become what the model takes.
        strict: Whether a broken picture is an error.
        progress: Called with (stage, done, total or None).

    Raises:
        UnsupportedError: No channel can be followed from where it is made to where it is read.
        ReliefError: One sentence that says what, where, and what to do.
    """
    document = load(model)
    inputs = input_specs(document.proto)
    found = cut_channels(
        document,
        open_data(data, inputs, preprocess=preprocess or Preprocess(), strict=strict),
        Settings(
            criterion=criterion,
            seed=seed,
            reconstruction=Reconstruction(
                epochs=repair_epochs,
                flip=flip,
                crop_padding=crop_padding,
                crop_scale=crop_scale,
                color_jitter=color_jitter,
                cutmix=cutmix,
            ),
            only=tuple(only),
            skip=tuple(skip),
            samples=samples,
            batch_size=batch_size,
            provider=provider,
        ),
        ChannelSettings(
            ratio=ratio,
            scope=scope,
            round_to=round_to,
            least=min_units,
            repair=repair,
            target_params=target_params,
            target_macs=target_macs,
            target_latency=target_latency,
            heads=heads,
            latency_batch=latency_batch,
            latency_threads=latency_threads,
        ),
        progress=progress,
    )
    return replace(found, document=note_dense(found.document, document))
