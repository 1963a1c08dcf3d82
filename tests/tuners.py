"""A small network and images for the tests of fine-tuning."""

import torch
from torch import nn

from sktransfer import FineTuneClassifier
from sktransfer.backbones import Preprocessing
from sktransfer.datasets import make_shapes

SHAPES = make_shapes(n_samples=40, random_state=0)
X, Y = SHAPES.data, SHAPES.target


def tiny_net():
    """A network of three stages that takes milliseconds, for tests of everything but accuracy."""
    network = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 5, stride=2), nn.ReLU()),
        nn.Sequential(nn.Conv2d(8, 12, 3, stride=2, bias=False), nn.BatchNorm2d(12), nn.ReLU()),
        nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, 10), nn.ReLU()),
    )
    network.preprocessing = Preprocessing(32, None)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.2)
    return network


def tuner(**params):
    defaults = {
        "trainable_stages": 2,
        "max_epochs": 3,
        "cache": None,
        "random_state": 0,
        "lr": 0.01,
        "backbone_lr_factor": 0.1,
        "tuned_fraction": 1.0,
        "label_smoothing": 0.0,
        "augmentation": None,
    }
    return FineTuneClassifier(tiny_net(), **{**defaults, **params})


def state(model):
    return {
        **model.backbone_.upper.state_dict(),
        **{f"head.{k}": v for k, v in model.head_.net_.module_.state_dict().items()},
    }


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one | other)
