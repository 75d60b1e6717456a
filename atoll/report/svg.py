"""Figures by matplotlib as SVG that stands inside a page: its colours, its fonts, its own names."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

__all__ = ["COLOURS", "draw"]

# Stand-ins that no other part of a figure uses; the page's own variables take their place, so that
# one drawing serves on light, dark and paper.
COLOURS = {
    name: f"#0102{place:02x}"
    for place, name in enumerate(
        ("ink", "muted", "line", "federated", "local", "pooled", "better", "worse", "even"), start=1
    )
}
WIDTH = 5.0
"""Inches, of 72 units each: about as wide as a phone's page, so that its letters stay readable."""

_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}"
_STYLE: dict[RcKeyType, object] = {
    "font.size": 11.5,
    "font.family": "sans-serif",
    # Letters stay letters: they can be found, and they take the page's font.
    "svg.fonttype": "none",
    # A client may be called `$x`.
    "text.parse_math": False,
    "text.color": COLOURS["ink"],
    "axes.edgecolor": COLOURS["line"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.6,
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 11.5,
    "lines.linewidth": 1.8,
}


def draw(plot: Callable[[Axes], None], *, name: str, title: str, height: float = 2.9) -> Markup:
    """Let `plot` fill a figure of this height in inches.

    name: of letters; what the figure names inside begins with it.   title: its text alternative.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    stream = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # The font that measures a name may lack its letters; the reader's need not.
        warnings.simplefilter("ignore")
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        plot(figure.add_subplot())
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    return Markup(_inline(stream.getvalue(), name=name, title=title))


def _inline(text: str, *, name: str, title: str) -> str:
    """The element alone: no style that reaches the page, no name that another figure has."""
    root = ElementTree.fromstring(text)
    for child in root.findall(f"{_SVG}metadata"):
        root.remove(child)
    for place in root.iter(f"{_SVG}defs"):
        for child in place.findall(f"{_SVG}style"):
            place.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        element.attrib = dict(_attributes(element.attrib, name=name))
        element.tail = None
        if element.tag != "text":
            element.text = None
    root.attrib = {
        "class": "plot",
        "role": "img",
        "aria-label": title,
        "viewBox": root.attrib["viewBox"],
    }
    return ElementTree.tostring(root, encoding="unicode")


def _attributes(given: Mapping[str, str], *, name: str) -> Iterator[tuple[str, str]]:
    for key, value in given.items():
        key = key.removeprefix(_LINK)
        if key == "id":
            yield key, f"{name}-{value}"
        elif key == "href":
            yield key, f"#{name}-{value.removeprefix('#')}"
        elif key == "clip-path":
            yield key, value.replace("url(#", f"url(#{name}-")
        elif key == "style":
            yield key, _themed(value)
        # Text that is not turned is written as turned by zero degrees.
        elif key != "transform" or not value.startswith("rotate(-0 "):
            yield key, value


def _themed(style: str) -> str:
    """In the page's colours and font."""
    rules = (rule for rule in style.split("; ") if not rule.startswith("font-family"))
    style = "; ".join(rules)
    for colour, stand_in in COLOURS.items():
        style = style.replace(stand_in, f"var(--{colour})")
    return style
