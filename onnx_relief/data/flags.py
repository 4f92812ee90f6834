"""Text of the preprocessing flags -> values; a sentence names the flag when one is wrong."""

from __future__ import annotations

import math
import re
from typing import Final

from onnx_relief.errors import SettingsError

Size = tuple[int, int]

_SIZE: Final = re.compile(r"(\d+)(?:x(\d+))?")


def parse_size(flag: str, text: str) -> int | Size:
    """Return one length, or (height, width).

    Raises:
        SettingsError: The text is neither.

    >>> parse_size("--resize", "256"), parse_size("--resize", "48x320")
    (256, (48, 320))
    """
    found = _SIZE.fullmatch(text.strip().lower())
    if found is None:
        raise SettingsError(
            f"{flag} {text!r} is not a size; give the shorter side (256) or height x width (48x320)"
        )
    first, second = found.groups()
    return int(first) if second is None else (int(first), int(second))


def parse_number(flag: str, text: str) -> float:
    """Return a number that may be written as a fraction.

    Raises:
        SettingsError: The text is neither a number nor a fraction, or not finite.

    >>> parse_number("--scale", "1/4")
    0.25
    """
    above, slash, below = text.partition("/")
    try:
        value = float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        raise SettingsError(f"{flag} {text!r} is not a number; give for example 0.5 or 1/255")
    return value


def parse_numbers(flag: str, text: str) -> tuple[float, ...]:
    """Return numbers that stand between commas.

    Raises:
        SettingsError: One of them is not a number.

    >>> parse_numbers("--mean", "0.485,0.456,0.406")
    (0.485, 0.456, 0.406)
    """
    return tuple(parse_number(flag, part) for part in text.split(","))
