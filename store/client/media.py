"""Images, figures and tables as files, without importing the library they come from."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

from mltrack.store.client.values import Refused


def image_bytes(image: Any) -> bytes:
    """PNG bytes of a PIL image or an array of shape (height, width[, 1|3|4]), uint8 or float in 0..1. Raises Refused."""
    if isinstance(image, (bytes, bytearray)):
        return bytes(image)
    if hasattr(image, "save") and hasattr(image, "mode"):
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        return buffer.getvalue()
    if hasattr(image, "detach"):  # a torch tensor
        image = image.detach().cpu().numpy()
    shape: tuple[int, ...] = tuple(int(size) for size in getattr(image, "shape", ()))
    if len(shape) == 2:
        shape = (*shape, 1)
    if len(shape) != 3 or shape[2] not in (1, 3, 4):
        raise Refused(f"an image must have the shape (height, width) or (height, width, 1|3|4), not {shape}")
    kind = getattr(getattr(image, "dtype", None), "kind", "")
    if kind == "f":
        image = (image.clip(0.0, 1.0) * 255.0 + 0.5).astype("uint8")
    elif str(getattr(image, "dtype", "")) != "uint8":
        raise Refused(
            f"an image must hold uint8 or float values in 0..1, not {getattr(image, 'dtype', type(image).__name__)}"
        )
    return _png(image.tobytes(), int(shape[1]), int(shape[0]), int(shape[2]))


def _png(pixels: bytes, width: int, height: int, channels: int) -> bytes:
    row = width * channels
    raw = b"".join(b"\0" + pixels[y * row : (y + 1) * row] for y in range(height))

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(raw, 6))
        + chunk(b"IEND", b"")
    )


def figure_bytes(figure: Any, name: str) -> bytes:
    """A matplotlib figure in the format of the name's ending, or a plotly figure as HTML or JSON. Raises Refused."""
    ending = name.rsplit(".", 1)[-1].lower()
    if hasattr(figure, "savefig"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=ending)
        return buffer.getvalue()
    if hasattr(figure, "to_html"):
        text = figure.to_json() if ending == "json" else figure.to_html(include_plotlyjs=True, full_html=True)
        return str(text).encode("utf-8")
    raise Refused(f"a figure must come from matplotlib or plotly, not {type(figure).__name__}")


def table_bytes(table: Any) -> bytes:
    """Rows as JSON {"columns": [...], "data": [[...], ...]} from a dict of columns, a list of dicts or a DataFrame."""
    if hasattr(table, "to_dict") and not isinstance(table, Mapping):
        table = table.to_dict(orient="list")
    if isinstance(table, Mapping):
        columns = [str(name) for name in table]
        cells = [
            list(column) if not isinstance(column, (str, int, float)) else [column]
            for column in table.values()
        ]
        if len({len(column) for column in cells}) > 1:
            raise Refused("the columns of a table must have equal lengths")
        data = [list(row) for row in zip(*cells, strict=True)]
    else:
        rows = list(table)
        columns = sorted({str(name) for row in rows for name in row})
        data = [[row.get(name) for name in columns] for row in rows]
    return json.dumps({"columns": columns, "data": data}, default=_plain).encode("utf-8")


def _plain(value: Any) -> Any:
    for method in ("item", "tolist", "isoformat"):
        if hasattr(value, method):
            return getattr(value, method)()
    return str(value)
