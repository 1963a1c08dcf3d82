"""Each test of backbones loads its networks anew."""

import pytest

from sktransfer.backbones import _loading


@pytest.fixture(autouse=True)
def no_networks_from_before():
    _loading._networks.clear()
    yield
    _loading._networks.clear()
