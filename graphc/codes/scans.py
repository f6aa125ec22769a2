"""E080x: scans."""

from __future__ import annotations

from graphc.codes.info import CodeInfo

CODES: dict[str, CodeInfo] = {
    "E0801": CodeInfo(
        "a carry changes its type",
        """A scan hands each carry from one step to the next, so that its dtype and shape are the same before and after
every step.

Wrong:

    input x: f32[T, N, 8]
    scan x_t in x with h = zeros([N, 4]) {
        h = concat([h, x_t], dim=1)
    }
    output y = h.last

Right:

    input x: f32[T, N, 8]
    scan x_t in x with h = zeros([N, 8]) {
        h = tanh(h + x_t)
    }
    output y = h.last
""",
    ),
    "E0802": CodeInfo(
        "the sequences of a scan have different lengths",
        """A scan goes along the first dimension of all its sequences at once.

Wrong:

    input x: f32[N, T, 8]
    input mask: f32[T, N]
    scan x_t in x, m in mask with h = zeros([8]) {
        h = h + mean(x_t, dim=0) * mean(m)
    }
    output y = h.last

Right:

    input x: f32[N, T, 8]
    input mask: f32[T, N]
    scan x_t in permute(x, (1, 0, 2)), m in mask with h = zeros([8]) {
        h = h + mean(x_t, dim=0) * mean(m)
    }
    output y = h.last
""",
    ),
    "E0803": CodeInfo(
        "a scan gives nothing",
        """A scan without `with` has no carries, so that all it can give is what its steps emit.

Wrong:

    input x: f32[T, N, 8]
    scan x_t in x {
        y = x_t * 2
    }
    output z = mean(x)

Right:

    input x: f32[T, N, 8]
    scan x_t in x {
        y = x_t * 2
        emit y
    }
    output z = y.stacked
""",
    ),
    "E0804": CodeInfo(
        "a name is emitted twice in one step",
        """Each step of a scan emits one value under each name; `h.stacked` has one of them for each step.

Wrong:

    input x: f32[T, N, 8]
    scan x_t in x with h = zeros([N, 8]) {
        emit h
        h = h + x_t
        emit h
    }
    output y = h.stacked

Right:

    input x: f32[T, N, 8]
    scan x_t in x with h = zeros([N, 8]) {
        before = h
        h = h + x_t
        emit before, h
    }
    output y = h.stacked - before.stacked
""",
    ),
}
