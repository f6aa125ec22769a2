"""What elaboration may cost. A file that asks for more gets a diagnostic, never a hang or an exhausted machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of one elaboration. The largest models of the zoo stay below a tenth of each."""

    depth: int = 40  # blocks inside blocks
    steps: int = 400_000  # statements run and expressions evaluated
    iterations: int = 100_000  # loop bodies run
    uses: int = 8_000  # layers and blocks used
    nodes: int = 15_000  # nodes in the graph
    elements: int = 2**40  # elements of one tensor
    parameters: int = 2**36  # elements of all parameters
    length: int = 100_000  # elements of a list, characters of a string
    integer: int = 2**63  # magnitude of an integer
    dim_terms: int = 32  # terms of a dimension's polynomial
    dim_degree: int = 12  # and its degree
    files: int = 256  # files read for one model
    file_bytes: int = 4 * 2**20  # bytes of one file


class LimitError(Exception):
    """A limit is reached; carries the code and the message. Stops the elaboration as a whole."""

    def __init__(self, code: str, message: str, help: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.help = code, message, help
        self.reported = False


class Budget:
    """Counts work against the limits. Raises LimitError when one is passed."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.steps = 0
        self.iterations = 0
        self.uses = 0

    def step(self, count: int = 1) -> None:
        """One expression, or as much work as several."""
        self.steps += count
        if self.steps > self.limits.steps:
            raise LimitError(
                "E0503",
                f"building this model takes more than {self.limits.steps:,} steps",
                "look for a loop or a block that expands too often",
            )

    def iteration(self) -> None:
        """One run of a loop body."""
        self.iterations += 1
        if self.iterations > self.limits.iterations:
            raise LimitError(
                "E0502",
                f"the loops of this model run more than {self.limits.iterations:,} times",
                "`for` is unrolled while the graph is built; a loop at run time is a `scan`",
            )

    def use(self) -> None:
        """One use of a layer or block."""
        self.uses += 1
        if self.uses > self.limits.uses:
            raise LimitError(
                "E0503",
                f"this model uses more than {self.limits.uses:,} layers and blocks",
                "look for a block that uses itself more than once",
            )

    def nodes(self, count: int) -> None:
        """The size of the graph."""
        if count > self.limits.nodes:
            raise LimitError("E0503", f"the graph has more than {self.limits.nodes:,} nodes")
