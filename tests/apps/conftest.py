"""What tests of pages share."""

import pytest

from tests.support.browsers import chromium


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser
