"""E08xx: what is parsed and checked, and not compiled yet."""

from __future__ import annotations

from graphc.codes.info import CodeInfo

CODES: dict[str, CodeInfo] = {
    "E0801": CodeInfo(
        "`scan` is not compiled yet",
        """The loop at run time parses, formats and has its names checked, but no code is made for it yet. A fixed
number of steps can be a `for`, which is unrolled.
""",
    ),
}
