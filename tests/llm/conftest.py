"""Fixtures of the client's tests."""

from collections.abc import Iterator

import pytest
import stamina


@pytest.fixture
def no_backoff() -> Iterator[None]:
    """Retries without waiting; the number of attempts stays that of the settings."""
    with stamina.set_testing(True, attempts=100, cap=True):
        yield
