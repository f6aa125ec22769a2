"""Attention and its gradient, without a score matrix."""
