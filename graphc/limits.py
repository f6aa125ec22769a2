"""Bounds on what the parser accepts: far above any model file, far below what hurts a machine."""

from __future__ import annotations

MAX_SOURCE = 128 * 1024
"""Characters (and bytes) in one file; the parser reads 50 to 200 kB a second."""

MAX_NESTING = 64
"""Brackets inside brackets, and operators inside operators, in one definition."""

MAX_NAME = 128
"""Characters in an identifier."""

MAX_INT = 2**63 - 1
"""The largest integer literal."""

MAX_NUMBER = 64
"""Characters in a number."""

MAX_ERRORS = 20
"""Syntax errors reported for one file before the parser gives up on it."""
