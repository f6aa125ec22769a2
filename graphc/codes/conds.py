"""E0805 to E0808: choices at run time."""

from __future__ import annotations

from graphc.codes.info import CodeInfo

CODES: dict[str, CodeInfo] = {
    "E0805": CodeInfo(
        "a cond does not choose by one bool",
        """A cond runs one of two branches, so that what it tests is one bool: a scalar tensor that a run computes.
What is known while the graph is built is for `if`; a choice for each element is `where`.

Wrong:

    input x: f32[N, 8]
    cond x > 0 {
        y = x * 2
    } else {
        y = x
    }
    output z = y

Right:

    input x: f32[N, 8]
    cond any(x > 0) {
        y = x * 2
    } else {
        y = x
    }
    output z = y + where(x > 0, x, 0.0)
""",
    ),
    "E0806": CodeInfo(
        "the branches of a cond do not agree on a value",
        """After a cond a name stands for what the branch that ran has given it. What reads it is compiled for one dtype
and one shape, so that both branches give it these. Numbers and lists are known while the graph is built and
cannot be chosen when it runs; `full([], 3)` makes a tensor of a number.

Wrong:

    input x: f32[N, 8]
    cond mean(x) > 0 {
        y = x
    } else {
        y = mean(x, dim=1)
    }
    output z = y

Right:

    input x: f32[N, 8]
    cond mean(x) > 0 {
        y = x
    } else {
        y = expand(mean(x, dim=1, keepdim=true), [N, 8])
    }
    output z = y
""",
    ),
    "E0807": CodeInfo(
        "a cond chooses nothing",
        """A cond chooses the names that have a value after both branches: both bind it, or one of them binds it anew.

Wrong:

    input x: f32[N, 8]
    cond mean(x) > 0 {
        y = x * 2
    }
    output z = x

Right:

    input x: f32[N, 8]
    y = x
    cond mean(x) > 0 {
        y = x * 2
    }
    output z = y
""",
    ),
    "E0808": CodeInfo(
        "a name has a value in one branch of a cond only",
        """After a cond there are the names to which both branches give a value, and those that had one before.
Any other name of a branch ends with it.

Wrong:

    input x: f32[N, 8]
    cond mean(x) > 0 {
        h = x * 2
        y = h + 1
    } else {
        y = x
    }
    output z = y + h

Right:

    input x: f32[N, 8]
    cond mean(x) > 0 {
        h = x * 2
        y = h + 1
    } else {
        h = x
        y = x
    }
    output z = y + h
""",
    ),
}
