"""Which taps a phase of a convolution over an input with holes meets."""

from __future__ import annotations

import itertools

from graphc.lowering.generic.phases import taps_of


def test_each_tap_meets_the_element_that_is_there() -> None:
    for kernel, dilation, holes, before in itertools.product(
        (1, 2, 5), (1, 2, 3), (2, 3), (-2, 0, 1)
    ):
        met = []
        for phase in range(holes):
            taps = taps_of(phase, kernel, dilation, holes, before)
            for j in range(taps.count):
                tap = taps.first + j * taps.step
                place = (
                    phase + tap * dilation - before
                )  # of the first output of the phase, zeros counted
                assert place == (taps.shift + j * taps.reach) * holes
                met.append((phase, tap))
        dense = [(p, k) for p in range(holes) for k in range(kernel)]
        assert met == [(p, k) for p, k in dense if (p + k * dilation - before) % holes == 0]
