"""Whether axes are as long as weights say, where only the data can tell."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_relief.data import Batch
from onnx_relief.errors import UnsupportedError
from onnx_relief.graph.layers import Survey, lengths_read
from onnx_relief.graph.sites import Site
from onnx_relief.runtime import open_at


def check_lengths(survey: Survey, sites: Sequence[Site], batch: Batch, provider: str) -> None:
    """Refuse layers that repeat an axis of length 1, as ONNX Runtime does for an Einsum.

    Layers in bodies are taken to be as their weights say.

    Raises:
        UnsupportedError: A layer does, named.
        ModelError: The model cannot be run on the batch.
    """
    main = survey.model.scopes[0]
    unsure = [
        site
        for site in sites
        if site.layer.op == "Einsum"
        and site.scope is main
        and any(isinstance(size, str) for _, size in lengths_read(site, survey.model))
    ]
    if not unsure:
        return
    names = sorted({site.data for site in unsure} - main.inputs)
    seen = dict(batch.feed)
    if names:
        seen |= open_at(survey.runnable, names, provider=provider).run(batch.feed, names)
    for site in unsure:
        shape, asked = seen[site.data].shape, site.input_axes
        if shape[-len(asked) :] != asked:
            raise UnsupportedError(
                f"layer {site.layer.name!r} reads {shape[-len(asked) :]} where its weight has "
                f"{asked}, and an axis of length 1 is repeated; leave it out with --skip"
            )
