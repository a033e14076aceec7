"""Numbers as people compare them: short, right-aligned, with as many digits as tell the values apart.

Everything here is for eyes. JSON and CSV carry `repr` of the float and never pass through this file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MISSING = "-"
_DEFAULT_DIGITS = 4
# Beyond this many significant digits two values count as equal to the eye.
_MOST_DIGITS = 9
# A column whose magnitudes span more than this reads better with each value in its own scale.
_WIDEST_SPAN = 1e5
_SI = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def format_number(value: float | None, digits: int = _DEFAULT_DIGITS) -> str:
    """One value on its own, `digits` significant: .9312, 1.031, 256, 41,220, 3e-4, 1.2e9, NaN, inf; None is `-`."""
    if value is None:
        return MISSING
    special = _special(value)
    if special is not None:
        return special
    size = abs(value)
    if size >= 1e7 or size < 1e-3:
        return _scientific(value, digits)
    if size < 1e-2 and len(power := _scientific(value, digits)) <= len(_plain(value, digits)):
        return power  # 1e-3 rather than .001, but .0015
    if value == int(value):
        return f"{int(value):,}"
    return _plain(value, digits)


def format_column(
    values: Sequence[float | None], digits: int = 3, most_digits: int = _MOST_DIGITS
) -> list[str]:
    """Values of one column, which share their decimals so that digits stand under digits.

    As few decimals as keep different values different, but at least `digits` and at most `most_digits` significant for
    the typical value.
    """
    return choose_format(values, digits, most_digits).texts(values)


@dataclass(frozen=True)
class NumberFormat:
    """How the numbers of a column are written: with so many decimals, or (``decimals`` None) each in its own scale."""

    decimals: int | None
    digits: int = _DEFAULT_DIGITS

    def texts(self, values: Sequence[float | None]) -> list[str]:
        """The values as text; None is `-`."""
        return [self.text(value) for value in values]

    def text(self, value: float | None) -> str:
        """One value as text; None is `-`."""
        if value is None or self.decimals is None:
            return format_number(value, self.digits)
        if math.isfinite(value) and abs(value) >= 1e7:
            return format_number(value, self.digits)  # came after the format was chosen
        return _special(value, zero="0") or _bare(f"{value:,.{self.decimals}f}")


def choose_format(
    values: Sequence[float | None], digits: int = 3, most_digits: int = _MOST_DIGITS
) -> NumberFormat:
    """The format that suits these values, to be kept for others of the same column."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    sizes = [abs(value) for value in finite if value]
    if not finite:
        return NumberFormat(None)
    distinct = len(set(finite))
    if sizes and (max(sizes) / min(sizes) > _WIDEST_SPAN or max(sizes) >= 1e7 or min(sizes) < 1e-3):
        used = digits
        while used < most_digits and len({format_number(value, used) for value in finite}) < distinct:
            used += 1
        return NumberFormat(None, used)
    if all(value == int(value) for value in finite):
        return NumberFormat(None)
    typical = sorted(sizes)[len(sizes) // 2]
    first = max(0, digits - 1 - math.floor(math.log10(typical)))
    most = max(first, most_digits - 1 - math.floor(math.log10(typical)))
    decimals = first
    while decimals < most and len({f"{value:.{decimals}f}" for value in finite}) < distinct:
        decimals += 1
    return NumberFormat(decimals, digits)


def format_step(step: float | None) -> str:
    """A step or a count: 4,200 in full, from ten million on 12.3M."""
    if step is None:
        return MISSING
    if abs(step) < 10_000_000:
        return f"{int(step):,}"
    return format_si(step)


def format_si(value: float, digits: int = 3) -> str:
    """A count with an SI letter: 950, 1k, 41.2k, 1.5M."""
    special = _special(value)
    if special is not None:
        return special
    for scale, letter in _SI:
        # 999,950 would round to "1000k": compare what will be printed.
        if abs(value) >= scale * (1 - 0.5 * 10**-digits):
            return f"{_significant(value / scale, digits)}{letter}"
    if value == int(value):
        return str(int(value))
    return format_number(value, digits)


def format_bytes(size: float | None) -> str:
    """A size in powers of a thousand, as disks and GPUs are sold: 812 B, 4.1 kB, 1.2 GB."""
    if size is None:
        return MISSING
    if abs(size) < 999.5:
        return f"{int(size)} B"
    for scale, letter in _SI:
        if abs(size) >= scale * (1 - 0.0005):
            return f"{_significant(size / scale, 2 if abs(size) / scale < 9.95 else 3)} {letter}B"
    return f"{int(size)} B"


def format_change(value: float, reference: float, digits: int = 3) -> str:
    """The change against a reference in percent: +3.4%, -.15%, +398%; against zero the difference itself."""
    if not (math.isfinite(value) and math.isfinite(reference)):
        return ""
    if value == reference:
        return "same"
    if reference == 0:
        return f"{'+' if value > 0 else ''}{format_number(value, digits)}"
    percent = (value - reference) / abs(reference) * 100
    if abs(percent) >= 1000:
        return f"x{format_number(value / reference, 2)}"
    text = f"{percent:+.{0 if abs(percent) >= 100 else 1 if abs(percent) >= 1 else 2}f}"
    if float(text) == 0:
        text = "+0.0" if percent > 0 else "-0.0"
        return f"{text[0]}<.01%"
    return f"{text[0]}{_bare(text[1:])}%"


def parse_number(text: str) -> float | None:
    """The number a parameter's text stands for, else None. `nan`, `1_000` and blanks are text."""
    if not text or not (text[0].isdigit() or text[0] in "+-.") or "_" in text:
        return None
    try:
        return float(text)
    except ValueError:
        return None


def format_parameter(text: str) -> str:
    """A parameter as short as its number can be written: 0.00030000000000000003 is 3e-4, whole numbers stay as they are."""
    number = parse_number(text)
    if number is None or not math.isfinite(number) or ("." not in text and "e" not in text.lower()):
        return text
    short = format_number(number, 6)
    return short if len(short) < len(text) else text


def _special(value: float, zero: str = "0") -> str | None:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return zero if value == 0 else None


def _plain(value: float, digits: int) -> str:
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return _bare(_trimmed(f"{value:,.{decimals}f}"))


def _scientific(value: float, digits: int) -> str:
    mantissa, exponent = f"{value:.{max(0, digits - 1)}e}".split("e")
    return f"{_trimmed(mantissa)}e{int(exponent)}"


def _significant(value: float, digits: int) -> str:
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return _trimmed(f"{value:.{decimals}f}")


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _bare(text: str) -> str:
    """Without the zero in front of the point: it tells nothing apart and costs a column."""
    if text.startswith("0."):
        return text[1:]
    if text.startswith("-0."):
        return "-" + text[2:]
    return text
