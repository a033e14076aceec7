"""What a file of a run looks like, from its first bytes: text, code, tables, trees of tensors, pictures where they can be.

Pure but for the libraries that colour text and read pictures. Nothing here is ever unpickled or executed.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from mltrack.tui.clean import cell_width, clean, pad
from mltrack.tui.draw.numbers import format_bytes, parse_number
from mltrack.tui.raster import Canvas, Raster

if TYPE_CHECKING:
    from mltrack.tui.draw.png import Budget

Line = list[list[str]]

_MOST_LINES = 2000
_MOST_ROWS, _MOST_COLUMNS, _WIDEST_CELL = 500, 60, 40
_LEXED_BYTES = 200_000
_HEX_BYTES = 512
_TABLES = {".csv": ",", ".tsv": "\t"}
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM", b"RIFF")
# Few bytes may hold many more pixels; these take 200 MB for a moment.
_MOST_PIXELS = 64 << 20
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP")
_TOO_LARGE = "It is too large to be shown here."
HOW_TO_SEE_PICTURES = "To see pictures here: pip install 'mltrack-tui[images]'."


@dataclass(frozen=True)
class Preview:
    """``kind`` is a word or two for the head; ``lines`` hold [text, style] pairs. A ``picture`` lies over the last of them."""

    kind: str
    lines: list[Line]
    picture: Raster | None = None

    def placed(self, above: int = 0) -> list[list[Any]]:
        """[line, column, *packed raster] of its picture, with so many lines ``above`` these."""
        if self.picture is None:
            return []
        return [[above + len(self.lines) - self.picture.rows, 0, *self.picture.packed()]]


def preview(
    name: str,
    head: bytes,
    size: int,
    width: int,
    height: int,
    budget: Budget | None = None,
    canvas: Canvas | None = None,
) -> Preview:
    """The preview of a file whose first bytes are ``head``. ``budget``: of all pictures that are shown with this one.
    ``canvas``: pictures are wanted as pixels, not as half-blocks."""
    suffix = PurePosixPath(name).suffix.lower()
    if not size:
        return Preview("empty", [[["The file is empty.", "dim"]]])
    if picture := _picture(head, len(head) == size, _Room(width, height, canvas), budget):
        return picture
    if suffix == ".safetensors" and (tensors := _tensors(head)):
        return tensors
    if _is_binary(head):
        return Preview("binary", _hex(head))
    text = head.decode("utf-8", "replace")
    cut = len(head) < size
    if suffix in _TABLES and (table := _csv(text, _TABLES[suffix], cut)):
        return table
    if suffix == ".json" and not cut and (parsed := _json(text, width)):
        return parsed
    lines = _coloured(name, text[:_LEXED_BYTES])
    if cut or len(text) > _LEXED_BYTES or len(lines) > _MOST_LINES:
        lines = lines[:_MOST_LINES]
        lines.append([[f"… {format_bytes(size)} in all; only the start is shown", "dim"]])
    return Preview(suffix[1:] or "text", lines)


def _is_binary(head: bytes) -> bool:
    if b"\0" in head[:8192]:
        return True
    sample = head[:8192]
    odd = sum(byte < 32 and byte not in b"\t\n\r\x0c\x1b" for byte in sample)
    return odd * 20 > len(sample)


def _hex(head: bytes) -> list[Line]:
    lines: list[Line] = []
    for start in range(0, min(len(head), _HEX_BYTES), 16):
        row = head[start : start + 16]
        letters = "".join(chr(byte) if 32 <= byte < 127 else "·" for byte in row)
        lines.append([[f"{start:06x}  ", "dim"], [f"{row.hex(' '):<48}  ", ""], [letters, "cyan"]])
    return lines


def table_lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[Line]:
    """A table with its columns under each other, numbers at the right."""
    count = min(_MOST_COLUMNS, max([len(columns), *(len(row) for row in rows)], default=0))
    names = [clean(columns[place], _WIDEST_CELL) if place < len(columns) else "" for place in range(count)]
    cells = [
        [clean(row[place], _WIDEST_CELL) if place < len(row) else "" for place in range(count)]
        for row in rows
    ]
    lines: list[Line] = []
    widths = [
        max([cell_width(names[place]), *(cell_width(row[place]) for row in cells)]) for place in range(count)
    ]
    numeric = [
        any(row[place] for row in cells)
        and all(not row[place] or parse_number(row[place]) is not None for row in cells)
        for place in range(count)
    ]

    def line(values: Sequence[str], style: str) -> Line:
        return [
            [
                pad(value, widths[place], "right" if numeric[place] else "left") + "  ",
                style or ("" if numeric[place] else "cyan" if place == 0 else ""),
            ]
            for place, value in enumerate(values)
        ]

    if any(names):
        lines.append(line(names, "header"))
    lines += [line(row, "") for row in cells]
    return lines


def _csv(text: str, delimiter: str, cut: bool) -> Preview | None:
    if cut:
        text = text[: text.rfind("\n") + 1]
    first = text.split("\n", 1)[0]
    if delimiter == "," and first.count(";") > first.count(","):
        delimiter = ";"
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            rows.append(row)
            if len(rows) > _MOST_ROWS:
                break
    except csv.Error:
        return None
    if not rows:
        return None
    head = rows[0] if all(parse_number(cell) is None for cell in rows[0]) else []
    body = rows[1:] if head else rows
    lines = table_lines(head, body[:_MOST_ROWS])
    if cut or len(body) > _MOST_ROWS:
        lines.append([["… only the start is shown", "dim"]])
    return Preview("table", lines)


def _json(text: str, width: int) -> Preview | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, Mapping):
        columns, data = value.get("columns"), value.get("data")
        if (
            isinstance(columns, list)
            and isinstance(data, list)
            and all(isinstance(row, list) for row in data)
        ):
            rows = [[_cell(cell) for cell in row] for row in data[:_MOST_ROWS]]
            lines = table_lines([str(name) for name in columns], rows)
            if len(data) > _MOST_ROWS:
                lines.append([[f"… {len(data):,} rows in all", "dim"]])
            return Preview("table", lines)
        if matrix := _matrix(value, width):
            return matrix
    try:
        shown = json.dumps(value, indent=2, ensure_ascii=False)
    except RecursionError:
        return None
    lines = _coloured("x.json", shown[:_LEXED_BYTES])
    return Preview("json", lines[:_MOST_LINES])


def _cell(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _matrix(value: Mapping[str, Any], width: int) -> Preview | None:
    """A confusion matrix {"classes": [...], "matrix": [[...], ...]}: numbers on cells as bright as their share of the row."""
    names, rows = value.get("classes") or value.get("labels"), value.get("matrix")
    if not isinstance(names, list) or not isinstance(rows, list) or not 0 < len(rows) <= 100:
        return None
    if not all(
        isinstance(row, list)
        and len(row) == len(rows)
        and all(isinstance(cell, (int, float)) for cell in row)
        for row in rows
    ):
        return None
    texts = [[f"{cell:,}" if isinstance(cell, int) else f"{cell:.3g}" for cell in row] for row in rows]
    shown = [clean(str(name), 12) for name in names[: len(rows)]] + [""] * (len(rows) - len(names))
    wide = (
        max(max(len(text) for row in texts for text in row), *(min(cell_width(name), 6) for name in shown))
        + 1
    )
    left = max(cell_width(name) for name in shown) + 1
    count = max(1, min(len(rows), (width - left) // wide))
    lines: list[Line] = [
        [["", ""], [" " * left, ""], *[[pad(name, wide, "right"), "dim"] for name in shown[:count]]]
    ]
    for name, row, cells in zip(shown, rows, texts, strict=True):
        total = sum(abs(cell) for cell in row) or 1.0
        line: Line = [[pad(name, left), "dim"]]
        for cell, text in zip(row[:count], cells[:count], strict=True):
            share = min(1.0, max(0.0, cell / total))
            line.append([text.rjust(wide), _heat(share)])
        lines.append(line)
    if count < len(rows):
        lines.append([[f"… {len(rows)} classes in all", "dim"]])
    lines.append([["rows are what is, columns what was predicted", "dim"]])
    return Preview("matrix", lines)


def _heat(share: float) -> str:
    """A ground from dark to the blue of the first curve, and ink that can be read on it."""
    level = round(share**0.5 * 15) / 15
    if level < 0.2:
        return "dim"
    red, green, blue = (round(18 + (bright - 18) * level) for bright in (0x5C, 0xC8, 0xFF))
    ink = "fg:#121212" if level > 0.6 else "fg:#d7dce2"
    return f"{ink} bg:#{red:02x}{green:02x}{blue:02x}"


def _tensors(head: bytes) -> Preview | None:
    """The names, types and shapes in the head of a safetensors file."""
    if len(head) < 8:
        return None
    (length,) = struct.unpack_from("<Q", head)
    if not 2 <= length <= len(head) - 8:
        return None
    try:
        entries = json.loads(head[8 : 8 + length])
    except (ValueError, RecursionError):
        return None
    if not isinstance(entries, Mapping):
        return None
    rows: list[list[str]] = []
    values = 0
    for name, entry in entries.items():
        if name == "__metadata__" or not isinstance(entry, Mapping):
            continue
        shape = entry.get("shape")
        count = 1
        for part in shape if isinstance(shape, list) else []:
            count *= part if isinstance(part, int) and 0 <= part < 1 << 40 else 0
        values += count
        shown = "x".join(str(part) for part in shape) if isinstance(shape, list) else ""
        rows.append([str(name), str(entry.get("dtype", "")), shown or "scalar", f"{count}"])
    lines = table_lines(["tensor", "type", "shape", "values"], rows[:_MOST_ROWS])
    lines.insert(0, [[f"{len(rows):,} tensors, {values:,} values", "bold"]])
    return Preview("safetensors", lines)


@dataclass(frozen=True)
class _Room:
    """Where a picture is drawn: in half-blocks, two pixels to a cell, or on a ``canvas``."""

    width: int
    height: int
    canvas: Canvas | None

    def size(self, wide: int, high: int) -> tuple[int, int]:
        """Pixels across and down that a picture of this size becomes; small pictures grow."""
        cell = (1, 2) if self.canvas is None else self.canvas.cell
        scale = min(self.width * cell[0] / wide, self.height * cell[1] / high, 8.0)
        if self.canvas is None:
            return max(1, int(wide * scale)), max(2, int(high * scale) // 2 * 2)
        return max(1, int(wide * scale)), max(1, int(high * scale))

    def sampled(self, wide: int, high: int) -> tuple[int, int]:
        """How many of its pixels are wanted."""
        across, down = self.size(wide, high)
        if self.canvas is not None:
            across, down = min(across, wide), min(down, high)
            share = min(1.0, (self.canvas.most / (across * down)) ** 0.5)
            across, down = max(1, int(across * share)), max(1, int(down * share))
        return across, down

    def drawn(self, told: str, colours: bytes, sampled: tuple[int, int], size: tuple[int, int]) -> Preview:
        """The preview of a picture that was ``sampled``; ``size`` is that of all of it."""
        first: list[Line] = [[[told, "dim"]], []]
        if self.canvas is None:
            return Preview("picture", [*first, *_half_blocks(colours, *sampled)])
        wide, high = self.size(*size)
        columns, rows = -(-wide // self.canvas.cell[0]), -(-high // self.canvas.cell[1])
        blank: list[Line] = [[[" " * columns, ""]] for _ in range(rows)]
        return Preview("picture", [*first, *blank], Raster(columns, rows, wide, high, *sampled, colours))


def _picture(head: bytes, whole: bool, room: _Room, budget: Budget | None) -> Preview | None:
    if not head.startswith(_PICTURES) or head.startswith(b"RIFF") and head[8:12] != b"WEBP":
        return None
    size = _dimensions(head)
    if head.startswith(b"BM") and size is None:
        return None
    told = f"picture, {size[0]} x {size[1]} pixels" if size else "picture"
    if not whole:
        return Preview("picture", [[[told, ""]], [[_TOO_LARGE, "dim"]]])
    try:
        images: Any = importlib.import_module("PIL.Image")  # comes with the extra, which need not be here
    except ImportError:
        return _png(head, told, room, budget)
    try:
        with images.open(io.BytesIO(head), formats=_FORMATS) as image:
            size = (image.width, image.height)
            told = f"picture, {size[0]} x {size[1]} pixels"
            if size[0] * size[1] > _MOST_PIXELS:
                return Preview("picture", [[[told, ""]], [[_TOO_LARGE, "dim"]]])
            sampled = room.sampled(*size)
            image.draft("RGB", sampled)
            colours = image.convert("RGB").resize(sampled).tobytes()
    except (OSError, ValueError, SyntaxError, images.DecompressionBombError) as error:
        return Preview("picture", [[[f"{told}; it cannot be read: {error}", "yellow"]]])
    return room.drawn(told, colours, sampled, size)


def _png(head: bytes, told: str, room: _Room, budget: Budget | None) -> Preview:
    """Without the extra: most PNG files, of others how to see them."""
    from mltrack.tui.draw.png import decode_png, resized

    pixels = decode_png(head, budget)
    if pixels is None:
        return Preview("picture", [[[told, ""]], [[HOW_TO_SEE_PICTURES, "dim"]]])
    size = (pixels.shape[1], pixels.shape[0])
    sampled = room.sampled(*size)
    return room.drawn(told, resized(pixels, *sampled).tobytes(), sampled, size)


def _half_blocks(pixels: bytes, across: int, down: int) -> list[Line]:
    lines: list[Line] = []
    for row in range(0, down, 2):
        line: Line = []
        for column in range(across):
            upper = (row * across + column) * 3
            lower = upper + across * 3
            line.append(["▀", f"fg:#{pixels[upper : upper + 3].hex()} bg:#{pixels[lower : lower + 3].hex()}"])
        lines.append(line)
    return lines


def _dimensions(head: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG, GIF, BMP or JPEG from its head."""
    if head.startswith(b"\x89PNG") and len(head) >= 24:
        return struct.unpack_from(">II", head, 16)
    if head.startswith(b"GIF8") and len(head) >= 10:
        return struct.unpack_from("<HH", head, 6)
    if head.startswith(b"BM"):
        if len(head) < 26 or struct.unpack_from("<I", head, 14)[0] not in (12, 40, 52, 56, 108, 124):
            return None
        wide, high = struct.unpack_from("<ii", head, 18)
        return wide, abs(high)
    place = 2
    while head.startswith(b"\xff\xd8") and place + 9 < len(head) and head[place] == 0xFF:
        kind = head[place + 1]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            high, wide = struct.unpack_from(">HH", head, place + 5)
            return wide, high
        place += 2 + struct.unpack_from(">H", head, place + 2)[0]
    return None


_TOKENS = (
    ("Comment", "dim"),
    ("Keyword", "magenta"),
    ("Literal.String.Doc", "green"),
    ("Literal.String", "green"),
    ("Literal.Number", "cyan"),
    ("Name.Function", "blue"),
    ("Name.Class", "blue bold"),
    ("Name.Decorator", "yellow"),
    ("Name.Tag", "blue"),
    ("Name.Attribute", "cyan"),
    ("Name.Builtin", "cyan"),
    ("Generic.Heading", "bold best"),
    ("Generic.Subheading", "bold"),
    ("Generic.Strong", "bold"),
    ("Generic.Emph", "link"),
    ("Generic.Deleted", "red"),
    ("Generic.Inserted", "green"),
    ("Generic.Error", "red"),
)


def _coloured(name: str, text: str) -> list[Line]:
    """Lines of text in the colours of its language, as the name of the file says it."""
    from pygments.lexers import TextLexer, get_lexer_for_filename  # type: ignore[import-untyped]
    from pygments.util import ClassNotFound  # type: ignore[import-untyped]

    try:
        lexer = get_lexer_for_filename(
            re.sub(r"[^\w.+-]", "_", PurePosixPath(name).name) or "x", stripnl=False
        )
    except ClassNotFound:
        lexer = TextLexer(stripnl=False)
    lines: list[Line] = [[]]
    for kind, piece in lexer.get_tokens(text.replace("\r\n", "\n")):
        word = str(kind)[6:]
        style = next((style for token, style in _TOKENS if word.startswith(token)), "")
        first, *rest = piece.split("\n")
        if first:
            lines[-1].append([first.expandtabs(4), style])
        for part in rest:
            lines.append([[part.expandtabs(4), style]] if part else [])
    while lines and not lines[-1]:
        lines.pop()
    return lines
