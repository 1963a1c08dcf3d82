"""The two networks whose weights come with the package."""

import torch
import torchvision.models
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from ._building import Headless, behead, building, fill


class _WithInput(nn.Sequential):
    """A stage that also returns its input, pooled to the size of its output."""

    def forward(self, features):
        output = super().forward(features)
        return torch.cat([nn.functional.adaptive_avg_pool2d(features, output.shape[2:]), output], 1)


def _tiny_mobilenet():
    # The pooled output of the convolutions (576 features) transfers better than the hidden layer
    # behind it; see pretraining/README.md.
    network = torchvision.models.mobilenet_v3_small(num_classes=1)
    network.classifier = nn.Identity()
    return Headless(network, ("classifier.",))


def _tiny_resnet():
    # The pooled outputs of the last two stages (256 + 512 features) transfer better than the last
    # one alone.
    headless = behead(ResNet(BasicBlock, [1, 2, 2, 1], num_classes=1))
    headless.network.layer4 = _WithInput(*headless.network.layer4)
    return headless


def load_network(name, file):
    """Return a network with the weights of a file, or with random ones if that is None."""
    build = {"tiny_mobilenet": _tiny_mobilenet, "tiny_resnet": _tiny_resnet}[name]
    # Building on "meta" skips most of the work where a file overwrites the weights anyway.
    with building(random=file is None), torch.device("cpu" if file is None else "meta"):
        headless = build()
    if file is not None:
        headless.network.to_empty(device="cpu")
    return fill(headless, file, name)
