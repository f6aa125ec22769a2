"""Pictures and tables of a graph: `dot.draw` writes DOT text, `render.save` SVG/PNG/PDF files, `summary.summarise` tables.

Importing the package imports none of them.
"""
