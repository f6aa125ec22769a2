"""Recurrent cells: loops whose steps are products and arithmetic on units."""
