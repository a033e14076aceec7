"""Reports and figures load nothing from anywhere, and whatever somebody wrote into a name is text in them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mltrack.tui.draw.figure import FigureCurve, Label, draw_figure, to_pdf, to_svg
from mltrack.tui.report import Report, Table, Texts, to_page

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=https://evil.example/x onerror=alert(1)>',
    "</style><script src=//evil.example></script>",
    "</title></svg><iframe src='https://evil.example'>",
    "&lt;b&gt; &amp; \x1b]0;pwned\x07 \u202e",
    "javascript:alert(1)",
    "@import url(https://evil.example)",
]
VOID = {"meta"}
KNOWN = set(
    "html head meta title style body h1 h2 p div span table thead tbody tr th td details summary pre svg text polyline polygon".split()
)
LOADING = {
    "src",
    "href",
    "srcset",
    "action",
    "data",
    "background",
    "poster",
    "xlink:href",
    "style",
    "formaction",
    "ping",
}


class Page(HTMLParser):
    """Everything in a page, with what would load or run something counted."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []
        self.styles = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID and not (self.get_starttag_text() or "").endswith("/>"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.styles += data
        else:
            self.text.append(data)


def check(page: str) -> Page:
    """The page needs nothing but itself, and is made of nothing but what we put there."""
    found = Page(page)
    assert found.open == []
    assert found.tags <= KNOWN
    assert not [pair for pair in found.attributes if pair[0] in LOADING or pair[0].startswith("on")]
    addresses = [value for name, value in found.attributes if "//" in value and name != "xmlns"]
    assert addresses == []
    assert not re.search(r"url\(|@import|expression|//", found.styles)
    assert "default-src 'none'" in page
    return found


def page_of(name: str) -> str:
    curve = FigureCurve(name, np.arange(5.0), np.array([1.0, 2.0, np.nan, 3.0, np.inf]))
    picture = to_svg(draw_figure([curve, curve], name), name)
    table = Table(name, [name, name], [[(name, "best"), (name, name)]], name)
    folded = Table(name, [name], [[(name, "")]], folded=True)
    return to_page(
        Report(name, name, [table, folded], [picture], [Texts(name, [[[name, "red"], [name, name]]])])
    )


def test_hostile_names_are_text() -> None:
    for name in HOSTILE:
        found = check(page_of(name))
        assert "\x1b" not in "".join(found.text) and "\u202e" not in "".join(found.text)
        if name.isprintable():
            assert "".join(found.text).count(name) >= 10


@given(st.text(max_size=40))
def test_any_text_is_text(name: str) -> None:
    check(page_of(name))


def test_a_picture_alone_is_well_formed_and_gaps_stay_gaps() -> None:
    y = np.array([1.0, 2.0, np.nan, 4.0, 5.0])
    drawing = draw_figure(
        [FigureCurve("<a&b>", np.arange(5.0), y), FigureCurve("b", np.arange(5.0), y + 1)], "x < y", 252, 168
    )
    root = ElementTree.fromstring(to_svg(drawing, "x < y"))
    lines = [
        node
        for node in root
        if node.tag.endswith("polyline")
        and (node.get("stroke"), node.get("stroke-width")) == ("#0072b2", "0.9")
    ]
    assert len(lines) == 2  # one on each side of the NaN
    texts = ["".join(node.itertext()) for node in root if node.tag.endswith("text")]
    assert {"x < y", "a", "b", "a <a&b>", "b b"} <= set(texts)
    for item in drawing.items:
        places = [(item.x, item.y)] if isinstance(item, Label) else item.points
        assert all(0 <= x <= 252 and 0 <= y <= 168 for x, y in places)


def test_a_pdf_is_one_page_of_that_size(tmp_path: Path) -> None:
    drawing = draw_figure(
        [FigureCurve("a", np.arange(9.0), np.arange(9.0) ** 2)], "loss (\\ test) ü", 252, 168
    )
    content = to_pdf(drawing)
    places = [int(row.split()[0]) for row in content.split(b"xref\n")[1].splitlines()[2:6]]
    assert all(content[place:].startswith(b"%d 0 obj" % number) for number, place in enumerate(places, 1))
    assert b"/MediaBox [0 0 252 168]" in content and int(
        content.split(b"startxref\n")[1].split()[0]
    ) == content.index(b"xref\n")
    stream = zlib.decompress(content.split(b"stream\n", 1)[1].split(b"\nendstream")[0])
    assert b"(loss \\(\\\\ test\\) \xfc) Tj" in stream
    assert stream.count(b" l") >= 8


def test_constants_logs_and_nothing_are_drawn() -> None:
    for values in ([3.0, 3.0], [1e-300, 1e300], [0.0, -1.0], [np.nan, np.nan], []):
        curve = FigureCurve("a", np.arange(float(len(values))), np.array(values))
        for scale in ("linear", "log", "symlog"):
            ElementTree.fromstring(to_svg(draw_figure([curve], "t", y_scale=scale)))  # type: ignore[arg-type]
