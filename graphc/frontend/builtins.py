"""Every name that a `.nn` file knows without an import."""

from __future__ import annotations

import math
from typing import Any

from graphc.frontend.functions import FUNCTIONS
from graphc.frontend.layers import LAYERS
from graphc.ir.dtype import DType

CONSTANTS: dict[str, Any] = {
    "pi": math.pi,
    "inf": math.inf,
    **{d.value: d for d in DType if d is not DType.BOOL},
}
"""Numbers with a name, and the dtypes as values (`astype(x, f16)`)."""

BUILTINS: dict[str, Any] = {**LAYERS, **FUNCTIONS, **CONSTANTS}
"""Layers, functions, initialisers and constants, by name."""

_TRAINING = {
    "losses": "cross_entropy nll_loss mse_loss l1_loss smooth_l1_loss huber_loss kl_div "
    "binary_cross_entropy binary_cross_entropy_with_logits",
    "optimizers": "SGD Adam AdamW NAdam RAdam Adagrad Adadelta RMSprop Lion Lamb",
    "schedules": "constant_lr warmup cosine linear step exponential polynomial one_cycle plateau",
    "augmentations": "random_crop random_resized_crop center_crop resize rotate translate affine "
    "flip horizontal_flip vertical_flip color_jitter brightness contrast saturation hue grayscale "
    "gaussian_blur gaussian_noise erase cutout mixup cutmix normalize",
}

TRAINING = frozenset(name for names in _TRAINING.values() for name in names.split())
"""Names that mean something inside `train { ... }`. They are checked; compiling them is not there yet."""
