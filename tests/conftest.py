"""Options and settings for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# Tests compile what the sources say now; those of the cache turn one on for themselves.
os.environ["GRAPHC_CACHE"] = "off"

# Of several processes of tests each has its share of the processors: modules, PyTorch and NumPy start a thread for
# every processor they see, and threads that wait for one another on a shared processor take several times as long.
PROCESSORS = sorted(os.sched_getaffinity(0))
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    first, step = int(worker[2:]), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.sched_setaffinity(0, PROCESSORS[first % len(PROCESSORS) :: step])

# A failing example must fail everywhere, and a slow machine is no failure.
settings.register_profile(
    "graphc",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("graphc")


@pytest.fixture
def all_processors() -> Iterator[None]:
    """What runs in several threads really does so, at once."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, PROCESSORS)
    yield
    os.sched_setaffinity(0, own)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write the golden files anew instead of comparing with them",
    )
