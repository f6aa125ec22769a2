"""Differentiation: graphs of gradients, made of the same ops. The rule of an op is its `gradient`."""

from __future__ import annotations

from graphc.autodiff.checkpoint import BACKWARD, CHECKPOINT
from graphc.autodiff.reverse import grad_graph, gradients

__all__ = ["BACKWARD", "CHECKPOINT", "grad_graph", "gradients"]
