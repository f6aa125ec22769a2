"""Training a compiled step: data, metrics, checkpoints, logs, and the loop that calls the step."""

from __future__ import annotations
