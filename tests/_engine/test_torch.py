"""Eager torch: batch norms are folded where that is right, and nowhere else."""

import warnings

import pytest
import torch
from torch import nn
from torchvision.models import get_model

from sktransfer._engine._torch import fold_batch_norm


class Block(nn.Module):
    """A convolution and a batch norm, in one of several ways."""

    def __init__(self, way):
        super().__init__()
        self.way, self.convolution, self.norm = (
            way,
            nn.Conv2d(3, 3, 3, padding=1),
            nn.BatchNorm2d(3),
        )
        self.activation = nn.ReLU(inplace=True)
        with torch.no_grad():
            self.norm.weight.add_(1)
            self.norm.running_mean.add_(0.5)

    def forward(self, x):
        y = self.convolution(x)
        if self.way == "sum":
            return (self.norm(y) + y).flatten(1)
        if self.way == "activation":
            return self.norm(self.activation(y)).flatten(1)
        if self.way == "twice":
            return (self.norm(y) + self.norm(x)).flatten(1)
        return self.norm(y).flatten(1)


@pytest.mark.parametrize(
    ("way", "n_norms"), [("plain", 0), ("sum", 1), ("activation", 1), ("twice", 1)]
)
def test_a_batch_norm_is_folded_only_where_that_is_right(way, n_norms):
    torch.manual_seed(0)
    block, x = Block(way).eval(), torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        folded, expected = fold_batch_norm(block, 8), block(x)
        assert (folded(x) - expected).abs().max() < 1e-5 * expected.abs().max()
    assert sum(type(part) is nn.BatchNorm2d for part in folded.modules()) == n_norms
    assert type(block.norm) is nn.BatchNorm2d


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "regnet_y_400mf", "efficientnet_b0"])
def test_all_batch_norms_of_common_networks_are_folded(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = get_model(name, weights=None)
    folded = fold_batch_norm(network, 64)
    assert not [part for part in folded.modules() if isinstance(part, nn.BatchNorm2d)]
