"""Pictures and tables of a graph: DOT text, SVG/PNG/PDF files, the layer summary."""

from graphc.diagram.dot import Failure, draw
from graphc.diagram.render import save
from graphc.diagram.summary import Summary, summarise

__all__ = ["Failure", "Summary", "draw", "save", "summarise"]
