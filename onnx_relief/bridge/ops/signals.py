"""The discrete Fourier transform; complex numbers are a last axis of length 2."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from onnx_relief.bridge.ops.registry import Row, call


def dft(
    x: Tensor,
    dft_length: Tensor | None = None,
    axis: Tensor | int | None = None,
    *,
    inverse: int = 0,
    onesided: int = 0,
) -> Tensor:
    """Return the transform along an axis of `x` (..., 1 or 2), cut or padded to `dft_length`.

    One-sided, the forward transform of real numbers leaves out the half that mirrors the other, and
    the inverse takes that half and gives real numbers.
    """
    length = None if dft_length is None else int(dft_length.item())
    along = -2 if axis is None else int(axis)
    along = along % x.ndim
    wide = x if x.dtype == torch.float64 else x.float()
    z = wide[..., 0] if x.shape[-1] == 1 else torch.view_as_complex(wide.contiguous())
    if onesided and inverse:
        real: Tensor = torch.fft.irfft(z, length, along)
        return real.unsqueeze(-1).to(x.dtype)
    transform = torch.fft.rfft if onesided else torch.fft.ifft if inverse else torch.fft.fft
    result: Tensor = transform(z, length, along)
    return torch.view_as_real(result.resolve_conj()).to(x.dtype)


def dft_17(
    x: Tensor,
    dft_length: Tensor | None = None,
    *,
    axis: int = 1,
    inverse: int = 0,
    onesided: int = 0,
) -> Tensor:
    """Return the transform as opset 17 has it: the axis is an attribute."""
    return dft(x, dft_length, axis, inverse=inverse, onesided=onesided)


HANDLERS: Final = (
    Row("DFT", 20, call(dft)),
    Row("DFT", 17, call(dft_17)),
)
