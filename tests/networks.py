"""Networks, weights files and images for the tests of backbones."""

import warnings

import torch
import torchvision
from safetensors.torch import save_file

SMALL = "shufflenet_v2_x0_5"


def build(name, seed=1, **options):
    """A torchvision network with its classifier and seeded random weights."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        return torchvision.models.get_model(name, weights=None, **options).eval()


def saved(network, path):
    if path.suffix == ".safetensors":
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, path)
    else:
        torch.save(network.state_dict(), path)
    return path


def images(size, n=2):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))
