"""Device programs that do not fit their module are refused before anything is compiled."""

from dataclasses import replace

import pytest

from graphc.artifact import ModuleSpecError
from graphc.artifact.device import Address, DeviceProgram, Launch, Loop, TensorMap, check_program
from graphc.ir.dim import Dim
from tests.artifact.cuda import programs

GOOD = Launch("relu", (1, 1, 1), (64, 1, 1), (Address("output"), Address("arena"), 3))
MAP = TensorMap(Address("input"), "f32", (4, 8), (16,), (4, 8))


def with_first(step: Launch | Loop) -> DeviceProgram:
    program = programs.linear_program()
    return replace(program, calls=((step,), program.calls[1]))


def test_what_fits_is_accepted() -> None:
    spec = programs.linear_spec()
    check_program(programs.linear_program(), spec)
    t = Dim.symbol("t")
    check_program(with_first(Loop("t", programs.N, (replace(GOOD, grid=(t, 1, 1)),))), spec)
    check_program(with_first(replace(GOOD, arguments=(MAP,))), spec)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (replace(GOOD, kernel="nowhere"), "kernel `nowhere` is launched and not in the source"),
        (replace(GOOD, block=(1024, 2, 1)), "a block of 1024 x 2 x 1 threads"),
        (replace(GOOD, block=(0, 1, 1)), "a block of 0 x 1 x 1 threads"),
        (replace(GOOD, grid=(1, 65536, 1)), "a grid of 65536 blocks along an axis"),
        (
            replace(GOOD, grid=(Dim.symbol("t"), 1, 1)),
            "the grid of kernel `relu` uses unknown dims: t",
        ),
        (replace(GOOD, shared_bytes=228 << 10), "233472 bytes of shared memory"),
        (replace(GOOD, arguments=(Address("input", 1),)), "reads input 1, which there is not"),
        (replace(GOOD, arguments=(Address("weight", 2),)), "reads weight 2"),
        (replace(GOOD, arguments=(Dim.symbol("M"),)), "unknown dims: M"),
        (replace(GOOD, arguments=(replace(MAP, box=(4,)),)), "a tensor map whose ranks differ"),
        (Loop("N", 3, (GOOD,)), "loop variable `N` is also a dim"),
        (Loop("t", Dim.symbol("t"), (GOOD,)), "the length of loop `t` uses unknown dims: t"),
    ],
    ids=str,
)
def test_what_does_not_fit(step: Launch | Loop, message: str) -> None:
    with pytest.raises(ModuleSpecError, match=message):
        check_program(with_first(step), programs.linear_spec())


def test_each_kernel_has_one_call() -> None:
    program = programs.linear_program()
    with pytest.raises(ModuleSpecError, match="1 calls for 2 kernels"):
        check_program(replace(program, calls=program.calls[:1]), programs.linear_spec())
