"""What all integration tests share: programs start quickly."""

from collections.abc import Iterator

import pytest

from tests.support.programs import forked_programs


@pytest.fixture(scope="session", autouse=True)
def programs() -> Iterator[None]:
    """Programs of the project are forked from a process that has imported them."""
    with forked_programs():
        yield
