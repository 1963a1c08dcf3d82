"""Each test of backbones loads its networks anew."""

import pytest
from torchvision.models import vision_transformer

from sktransfer.backbones import _loading


@pytest.fixture(autouse=True)
def no_networks_from_before():
    _loading._networks.clear()
    yield
    _loading._networks.clear()


@pytest.fixture
def short_transformers(monkeypatch):
    """Let torchvision's transformers have two layers instead of twelve."""
    build = vision_transformer._vision_transformer

    def build_short(*, num_layers, **settings):
        return build(num_layers=2, **settings)

    monkeypatch.setattr(vision_transformer, "_vision_transformer", build_short)
