"""What TensorBoard's hparams plugin keeps in the metadata of summaries: params of a session, and how it ended."""

from __future__ import annotations

from mltrack.store.sources import protobuf
from mltrack.store.sources.protobuf import FIXED64, LENGTH, VARINT, NotAMessage

_STATUS = {1: "FINISHED", 2: "FAILED"}
# HParamsPluginData: which field holds what.
_START, _END = 3, 4


def number_text(value: float) -> str:
    """A number as a person wrote it: the plugin keeps 64 and 64.0 alike."""
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)


def read_session(content: bytes) -> tuple[dict[str, str], str | None, int | None]:
    """(params, status, end in ms) of one record's plugin data; empty and None for what it does not say. Raises NotAMessage."""
    params: dict[str, str] = {}
    status: str | None = None
    end_ms: int | None = None
    for number, wire, start, end in protobuf.fields(content):
        if wire != LENGTH:
            continue
        if number == _START:
            for inner, inner_wire, a, b in protobuf.fields(content, start, end):
                if inner == 1 and inner_wire == LENGTH:
                    name, value = _entry(content, a, b)
                    if value is not None:
                        params[name] = value
        elif number == _END:
            for inner, inner_wire, a, _ in protobuf.fields(content, start, end):
                if inner == 1 and inner_wire == VARINT:
                    status = _STATUS.get(a)
                elif inner == 2 and inner_wire == FIXED64:
                    seconds = protobuf.double(content, a)
                    end_ms = round(seconds * 1000) if 0 < seconds < 1e11 else None
    return params, status, end_ms


def _entry(data: bytes, start: int, end: int) -> tuple[str, str | None]:
    name, value = "", None
    for number, wire, a, b in protobuf.fields(data, start, end):
        if number == 1 and wire == LENGTH:
            name = protobuf.text(data, a, b)
        elif number == 2 and wire == LENGTH:
            value = _value(data, a, b)
    if not name:
        raise NotAMessage("a param without a name")
    return name, value


def _value(data: bytes, start: int, end: int) -> str | None:
    """A google.protobuf.Value that is no list or structure (the plugin allows none)."""
    for number, wire, a, b in protobuf.fields(data, start, end):
        if number == 2 and wire == FIXED64:
            return number_text(protobuf.double(data, a))
        if number == 3 and wire == LENGTH:
            return protobuf.text(data, a, b)
        if number == 4 and wire == VARINT:
            return str(bool(a))
    return None
