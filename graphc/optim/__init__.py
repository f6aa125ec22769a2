"""Optimizers and learning-rate schedules, which write the ops of one update into the graph of a training step."""

from __future__ import annotations

from graphc.optim.base import ArgumentError, Optimizer, Result, Schedule, Slot, Update

__all__ = ["ArgumentError", "Optimizer", "Result", "Schedule", "Slot", "Update"]
