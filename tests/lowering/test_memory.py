"""The arena planner: buffers that live together never overlap, for any value of the named dims."""

from hypothesis import given
from hypothesis import strategies as st

from graphc.ir.dim import Dim, evaluate
from graphc.lowering.memory import ALIGNMENT, Request, plan

N, T = Dim.symbol("N"), Dim.symbol("T")
UNITS = [1, N, N * T, N * T * T, (N + 1) * (T + 2)]


@st.composite
def requests(draw):
    found = []
    for _ in range(draw(st.integers(1, 12))):
        first = draw(st.integers(0, 10))
        size = draw(st.integers(1, 5000)) * draw(st.sampled_from(UNITS))
        found.append(Request(size, first, first + draw(st.integers(0, 5))))
    return found


@given(requests(), st.integers(0, 3), st.integers(0, 7), st.integers(0, 7))
def test_buffers_alive_together_are_disjoint_and_inside(wanted, low, n, t):
    env = {"N": low + n, "T": low + t}
    layout = plan(wanted, {"N": low, "T": low})
    spans = []
    for request, offset in zip(wanted, layout.offsets, strict=True):
        start = evaluate(offset, env)
        stop = start + evaluate(request.size, env)
        assert stop <= evaluate(layout.size, env)
        assert start % 16 == 0
        for other, begin, end in spans:
            if other.first <= request.last and request.first <= other.last:
                assert stop <= begin or end <= start
        spans.append((request, start, stop))


def test_a_chain_needs_two_buffers():
    chain = [Request(1 << 20, i, i + 1) for i in range(50)]
    layout = plan(chain)
    assert layout.size == layout.live({}) == 2 << 20


def test_constant_sizes_are_aligned_to_cache_lines():
    layout = plan([Request(100, 0, 3), Request(70, 1, 2), Request(1, 1, 1)])
    assert all(offset % ALIGNMENT == 0 for offset in layout.offsets)


def test_constants_lie_where_multiples_of_a_dim_certainly_leave_room():
    wanted = [Request(6400 * N, 0, 1), Request(640 * N, 2, 4), Request(5760, 3, 3)]
    assert plan(wanted, {"N": 1}).size == 6400 * N
    assert plan(wanted).size == 6400 * N + 5760  # N may be 0
    assert plan([Request(640 * N, 0, 1), Request(6400, 1, 1)], {"N": 1}).size == 640 * N + 6400


def test_offsets_are_polynomials_in_the_named_dims():
    layout = plan([Request(3136 * N, 0, 1), Request(640 * N, 1, 2), Request(256, 0, 2)])
    assert layout.size == (3136 + 640) * N + 256
    assert plan([Request(3136 * N, 0, 0), Request(640 * N, 1, 2)]).size == 3136 * N
