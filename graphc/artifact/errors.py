"""What can go wrong with a compiled module, as exceptions.

All derive from `ModuleError`; where Python has a word for the kind of mistake, the class derives
from that too, so that `except ValueError` and `except IndexError` do what a reader expects.
"""

from __future__ import annotations


class ModuleError(Exception):
    """A compiled module cannot be written, opened or run as asked. The message says what to do
    about it.
    """


class ModuleFileError(ModuleError, OSError):
    """A file of the module is missing, truncated, altered, or cannot be read or written."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class ModuleVersionError(ModuleError):
    """The module was written in a newer format than this graphc reads."""


class ModuleTargetError(ModuleError):
    """This machine lacks CPU features that the module was compiled for."""


class TargetError(ValueError):
    """A target text that names no known target, or a machine that graphc has no code for."""


class ModuleCompilerError(ModuleError):
    """No working C compiler (or CUDA compiler), or it refused: a module cannot be built."""


class ModuleSpecError(ModuleError, ValueError):
    """A module description that cannot be made into a module."""


class ModuleClosedError(ModuleError):
    """The module was used after `close()`."""


class ModuleInputError(ModuleError, ValueError):
    """An input is missing, unknown, given twice, or nothing an array can be made of."""


class ModuleDTypeError(ModuleInputError, TypeError):
    """An input has another element type; the message holds the cast to write."""


class ModuleShapeError(ModuleInputError):
    """An input's shape does not fit, or two inputs disagree about a named dim."""


class ModuleIndexError(ModuleError, IndexError):
    """An index among the inputs is out of range of the table it looks up."""


class ModuleMemoryError(ModuleError, MemoryError):
    """The system has no memory for a call with these input sizes."""


class SafetensorsError(ModuleError, ValueError):
    """A safetensors file that is malformed, truncated or holds what NumPy cannot."""
