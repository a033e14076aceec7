"""What a key, number or text must be to be stored: exactly as given, or refused with a sentence."""

from __future__ import annotations

TYPE_CHECKING = False  # not typing's: the import must cost little
if TYPE_CHECKING:
    from mltrack.store.client.trouble import Trouble

KEY_CHARACTERS = 1000
# What an index of PostgreSQL holds beside the number of a run, with our escapes.
KEY_BYTES = 2000
TEXT_BYTES = 1 << 20
STEP_MIN, STEP_MAX = -(1 << 63), (1 << 63) - 1


class Refused(ValueError):
    """The value cannot be stored exactly; the message says why."""


def check_key(key: object) -> str:
    """A metric, param or tag key: a text of 1 to 1,000 characters that UTF-8 can hold in 2,000 bytes."""
    if not isinstance(key, str):
        raise Refused(f"a key must be text, not {type(key).__name__}")
    if not key:
        raise Refused("a key must not be empty")
    if len(key) > KEY_CHARACTERS:
        raise Refused(f"a key may have {KEY_CHARACTERS} characters, this one has {len(key)}")
    _check_utf8(key)
    if len(key) * 4 > KEY_BYTES and len(key.encode()) > KEY_BYTES:
        raise Refused(f"a key may have {KEY_BYTES} bytes in UTF-8, this one has {len(key.encode())}")
    return key


def check_text(value: object) -> str:
    """A param or tag value as text (``str()`` of anything), at most 1 MiB in UTF-8."""
    text = value if isinstance(value, str) else str(value)
    if len(text) > TEXT_BYTES or (
        len(text) * 4 > TEXT_BYTES and len(text.encode("utf-8", "replace")) > TEXT_BYTES
    ):
        raise Refused(
            f"a text may have 1 MiB, this one has {len(text):,} characters; log it as an artifact (log_text)"
        )
    _check_utf8(text)
    return text


def check_param(key: str, text: str, say: Trouble) -> str:
    """A param's text as it is kept. Whole configurations are logged as params, keys to other services with them: those are not
    for everybody who looks."""
    from mltrack.store.client.secrets import redact_setting

    shown = redact_setting(key, text)
    if shown != text:
        say(f"param {key!r} looks like a secret: *** was stored in its place", about=f"secret|{key}")
    return shown


def check_number(value: object) -> float:
    """A metric value as a float64. Accepts numbers and one-element tensors; refuses what a float64 would alter."""
    if isinstance(value, int):
        try:
            number = float(value)
        except OverflowError:
            raise Refused("the whole number is larger than a float64 can hold") from None
        if int(number) != value:
            raise Refused(f"the whole number {value} cannot be held exactly by a float64")
        return number
    if isinstance(value, (str, bytes)) or value is None:
        raise Refused(f"a metric value must be a number, not {type(value).__name__}")
    try:
        number = float(value)  # type: ignore[arg-type]  # numpy, torch, Decimal, Fraction: anything with __float__
        altered = number == number and not bool(number == value)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise Refused(f"a metric value must be one number; {type(value).__name__} gave: {error}") from None
    if altered:
        raise Refused(f"a float64 would alter this {type(value).__name__}; pass float(...) if that is meant")
    return number


def check_step(step: object) -> int:
    """A step or a time in ms as a 64-bit whole number. 3.0 is 3; 3.5 is refused."""
    try:
        whole = int(step)  # type: ignore[call-overload]
        exact = whole == step
    except (TypeError, ValueError, OverflowError):
        raise Refused(f"a step must be a whole number, not {type(step).__name__}") from None
    if not exact:
        raise Refused(f"a step must be a whole number, not {step!r}")
    if not STEP_MIN <= whole <= STEP_MAX:
        raise Refused("a step must fit into 64 bits")
    return int(whole)


def _check_utf8(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise Refused(
            "the text has a lone surrogate, which no file can hold; decode it with errors='replace' first"
        ) from None
