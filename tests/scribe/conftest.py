"""One embedded web for all tests of the scribe."""

import pytest
from embedded_pages import Embedded, build


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Embedded:
    return build(7, 963, tmp_path_factory.mktemp("embedded"))
