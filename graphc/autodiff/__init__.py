"""Differentiation: graphs of gradients, made of the same ops. The rule of an op is its `gradient`."""

from __future__ import annotations

from graphc.autodiff.reverse import BACKWARD, grad_graph, gradients

__all__ = ["BACKWARD", "grad_graph", "gradients"]
