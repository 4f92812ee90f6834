"""What tensors that carry channels are like on data: mean and variance of every channel."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from onnx_relief.data import Dataset
from onnx_relief.graph.channels import Trace
from onnx_relief.graph.channels.ids import varying
from onnx_relief.graph.layers import Survey
from onnx_relief.measuring.moments import Channels, Moments, moments
from onnx_relief.settings import Settings


def moments_of(
    survey: Survey, trace: Trace, names: Iterable[str], data: Dataset, settings: Settings
) -> dict[str, Moments]:
    """Return mean and variance of every channel, by tensor; of those in the main graph alone.

    Raises:
        ModelError, DataError: The model cannot be run on the data.
    """
    main = {name for name, home in trace.whole.homes.items() if home.parent is None}
    wide = {site.data for site in survey.sites if site.parts[0].view.dtype == np.float64}
    where = {
        name: Channels(trace.of(name).ndim, varying(trace.of(name))[0], wide=name in wide)
        for name in sorted(main.intersection(names))
        if varying(trace.of(name))
    }
    if not where:
        return {}
    return moments(
        survey.document,
        where,
        data,
        batch_size=settings.batch_size,
        provider=settings.provider,
    )
