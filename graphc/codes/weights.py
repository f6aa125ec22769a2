"""E06xx: checkpoints that do not fit."""

from __future__ import annotations

from graphc.codes.info import CodeInfo

CODES: dict[str, CodeInfo] = {
    "E0601": CodeInfo(
        "weights do not fit the model",
        """The names, shapes and dtypes of a checkpoint must be those of the model's parameters. The table lists what is
missing, what has no parameter, and what has another shape. Names come from labels: `layer1.0.conv1: Conv2d(...)`
has `layer1.0.conv1.weight`. Floating-point arrays of another precision are converted.
""",
    ),
}
