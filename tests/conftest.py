"""Options and settings for all tests."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# Tests compile what the sources say now; those of the cache turn one on for themselves.
os.environ["GRAPHC_CACHE"] = "off"

# A failing example must fail everywhere, and a slow machine is no failure.
settings.register_profile(
    "graphc",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("graphc")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write the golden files anew instead of comparing with them",
    )
