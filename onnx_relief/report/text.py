"""Numbers and names in words a person reads; names come from files that nobody has checked."""

from __future__ import annotations

import math

_UNITS = ("", "k", "M", "G", "T")


def plain(text: str) -> str:
    r"""Return `text` on one line, without anything that a terminal would obey.

    >>> plain("conv\x1b[2J1")
    'conv\\x1b[2J1'
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def bytes_text(count: int) -> str:
    """Return a size with three digits.

    >>> bytes_text(1_067_194)
    '1.07 MB'
    """
    return f"{_scaled(count)}B"


def count_text(count: float | None) -> str:
    """Return a count: exact below a million, else with three digits.

    >>> count_text(266610), count_text(40551040), count_text(None)
    ('266,610', '40.6 M', '-')
    """
    if count is None:
        return "-"
    if count < 1_000_000:
        return f"{round(count):,}"
    return _scaled(count).strip()


def share_text(part: float, whole: float) -> str:
    """Return `part` of `whole` in percent.

    >>> share_text(1, 3), share_text(0, 0)
    ('33.3 %', '-')
    """
    return f"{100 * part / whole:.1f} %" if whole else "-"


def two_shares(found: float, asked: float) -> tuple[str, str]:
    """Return two shares in percent, with as many digits as tell them apart and say the second.

    >>> two_shares(0.9167, 0.6), two_shares(0.00431, 0.0001), two_shares(0.60004, 0.6)
    (('91.7%', '60%'), ('0.431%', '0.01%'), ('60.004%', '60%'))
    """
    for digits in range(3, 9):
        one, other = (f"{100 * share:.{digits}g}%" for share in (found, asked))
        if one != other and math.isclose(float(other[:-1]), 100 * asked):
            break
    return one, other


def change_text(before: float, after: float) -> str:
    """Return two numbers with the digits that tell them apart, three at least.

    >>> change_text(0.172, 0.31), change_text(0.17201, 0.17204)
    ('from 0.172 to 0.31', 'from 0.17201 to 0.17204')
    """
    for digits in range(3, 9):
        one, other = (f"{value:.{digits}g}" for value in (before, after))
        if one != other:
            break
    return f"from {one} to {other}"


def time_text(milliseconds: float) -> str:
    """Return a time with three digits.

    >>> time_text(0.01234), time_text(1234.5)
    ('0.0123 ms', '1.23 s')
    """
    return f"{milliseconds / 1000:.3g} s" if milliseconds >= 1000 else f"{milliseconds:.3g} ms"


def score_text(value: float | None, unit: str) -> str:
    """Return a score of a metric.

    >>> score_text(97.84, "%"), score_text(0.99871, "")
    ('97.84 %', '0.9987')
    """
    if value is None:
        return "-"
    return f"{value:.2f} %" if unit == "%" else f"{value:.4g}"


def plural(count: int, thing: str) -> str:
    """Return a count with its noun.

    >>> plural(1, "unit"), plural(1200, "unit")
    ('1 unit', '1,200 units')
    """
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def _scaled(value: float) -> str:
    step = 0
    while value >= 999.5 and step < len(_UNITS) - 1:
        value, step = value / 1000, step + 1
    digits = 0 if step == 0 or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {_UNITS[step]}"
