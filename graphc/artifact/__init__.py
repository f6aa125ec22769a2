"""The deployable module: writing it to a folder, and opening and running it.

Opening needs NumPy only. The writer (`graphc.artifact.writer`) and the description that lowering
hands over (`graphc.artifact.spec`) are imported by those who write.
"""

from __future__ import annotations

from graphc.artifact.errors import (
    ModuleClosedError,
    ModuleCompilerError,
    ModuleDTypeError,
    ModuleError,
    ModuleFileError,
    ModuleIndexError,
    ModuleInputError,
    ModuleMemoryError,
    ModuleShapeError,
    ModuleSpecError,
    ModuleTargetError,
    ModuleVersionError,
    SafetensorsError,
)
from graphc.artifact.module import KernelTime, Module, Profile
from graphc.artifact.opening import open, open_compiled

__all__ = [
    "KernelTime",
    "Module",
    "ModuleClosedError",
    "ModuleCompilerError",
    "ModuleDTypeError",
    "ModuleError",
    "ModuleFileError",
    "ModuleIndexError",
    "ModuleInputError",
    "ModuleMemoryError",
    "ModuleShapeError",
    "ModuleSpecError",
    "ModuleTargetError",
    "ModuleVersionError",
    "Profile",
    "SafetensorsError",
    "open",
    "open_compiled",
]
