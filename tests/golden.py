"""Golden files: expected texts that lie beside the tests.

``pytest --update-golden`` writes them anew; look at the difference before committing it.
"""

from __future__ import annotations

from pathlib import Path

import pytest


def check_golden(request: pytest.FixtureRequest, path: Path, actual: str) -> None:
    """Compare ``actual`` with the content of ``path``, or write it there under --update-golden."""
    if request.config.getoption("--update-golden"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(actual, encoding="utf-8")
        return
    assert path.exists(), f"{path.name} is missing; run pytest with --update-golden"
    assert actual == path.read_text(encoding="utf-8")
