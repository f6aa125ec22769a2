"""E09xx: mistakes in the text form of a graph, which `graphc dump` prints and the reader reads."""

from __future__ import annotations

from graphc.codes.info import CodeInfo

CODES: dict[str, CodeInfo] = {
    "E0901": CodeInfo(
        "malformed graph text",
        """The text does not follow the syntax of printed graphs, `grammar/graph.lark`.

A node is one line: results, operation, operands, attributes, types and, after `@`, its block path:

    %2 = conv_general(%image, %w) {strides = [1, 1]} : f32[N, 6, 24, 24] @ conv1: Conv2d
""",
    ),
    "E0902": CodeInfo(
        "unknown operation",
        """The name before the parenthesis is not an operation of this version of graphc.

    wrong:  %2 = ad(%0, %1) : f32[N]
    right:  %2 = add(%0, %1) : f32[N]
""",
    ),
    "E0903": CodeInfo(
        "value not defined",
        """Every value is defined once, above its first use. Results of an operation with
several are numbered: `%5:2 = ...` defines `%5#0` and `%5#1`.
""",
    ),
    "E0904": CodeInfo(
        "wrong attribute",
        """An attribute is unknown, missing, given twice, or holds the wrong kind of value;
or a named dim is not declared at the top of the graph.

    wrong:  %1 = transpose(%0) {permutation = 1} : f32[3, N]
    right:  %1 = transpose(%0) {permutation = [1, 0]} : f32[3, N]
""",
    ),
    "E0905": CodeInfo(
        "ill-typed node",
        """The operation does not accept these operands, or its result is of another type
than the text after `:` says.
""",
    ),
    "E0906": CodeInfo(
        "graph text asks for too much",
        """Reading a graph is bounded: 64-bit integers, 32 levels of nesting, 64 terms or
factors in a dimension, and 64 MiB of repeated elements (`splat`) in all literals together.
""",
    ),
}
