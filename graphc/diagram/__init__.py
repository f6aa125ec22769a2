"""Pictures and tables of a graph: `dot.draw` (DOT text), `render.save` (SVG, PNG, PDF), `summary.summarise` (tables).

Importing the package imports none of them.
"""
