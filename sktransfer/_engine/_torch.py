"""Run a network with eager torch, on the CPU or on an accelerator."""

import copy
from collections import Counter, defaultdict
from functools import partial

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class NormalizedNetwork(nn.Module):
    """A network with the normalization of its training in front, for uint8 pixels."""

    def __init__(self, network, mean, std, channels_last=False):
        super().__init__()
        self.network, self.channels_last = network, channels_last
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("scale", 1 / (torch.tensor(std).view(1, 3, 1, 1) * 255))

    def forward(self, pixels):
        pixels = pixels.permute(0, 3, 1, 2) if self.channels_last else pixels
        return self.network((pixels.to(self.mean.dtype) - self.mean) * self.scale)


class TorchRunner:
    """A copy of a network in channels_last. Batch norms are folded unless it is a user's module."""

    def __init__(self, network, preprocessing, runtime, *, custom_module=False):
        self.dtype = getattr(torch, runtime.precision)
        if custom_module:
            network = copy.deepcopy(network)
        else:
            network = fold_batch_norm(network, preprocessing.image_size)
        self.network = network.to(runtime.device, self.dtype, memory_format=torch.channels_last)
        self.network.eval()
        # In half precision too, pixels are normalized in float32 and rounded once.
        normalize = NormalizedNetwork(nn.Identity(), preprocessing.mean, preprocessing.std)
        self.normalize = normalize.to(runtime.device)

    @torch.inference_mode()
    def __call__(self, pixels):
        """Return float32 rows, on the device, for uint8 (rows, 3, S, S)."""
        normalized = self.normalize(pixels).to(self.dtype, memory_format=torch.channels_last)
        return self.network(normalized).float()


def fold_batch_norm(network, image_size):
    """Return a copy with batch norms folded into the convolutions before them, where possible.

    `torch.fx` cannot find them: it patches modules of the whole process while other threads run.
    """
    folded = copy.deepcopy(network).eval()
    if not any(type(part) is nn.BatchNorm2d for part in folded.modules()):
        return folded
    some = next(folded.parameters())
    noise = torch.randn(1, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    noise = noise.to(some.device, some.dtype)
    with torch.inference_mode():
        pairs, expected = _convolutions_and_norms(folded, noise)
    with torch.no_grad():
        for convolution, norm in pairs:
            modules = folded.get_submodule(convolution), folded.get_submodule(norm)
            folded.set_submodule(convolution, fuse_conv_bn_eval(*modules))
            folded.set_submodule(norm, nn.Identity())
    with torch.inference_mode():
        # Detects a network that also uses the output of a convolution elsewhere.
        error = (folded(noise) - expected).abs().max()
    return folded if error <= 1e-3 * expected.abs().max() else copy.deepcopy(network).eval()


def _convolutions_and_norms(network, pixels):
    """Return the pairs (convolution, norm) that can be folded, and the output of the network."""
    runs, takers = Counter(), defaultdict(list)

    def note(name, module, inputs, output):
        runs[name] += 1
        for tensor in inputs:
            if (convolution := getattr(tensor, "convolution", None)) is not None:
                takers[convolution].append(name)
        if type(module) is nn.Conv2d:
            output.convolution = name

    leaves = {name: part for name, part in network.named_modules() if not any(part.children())}
    hooks = [part.register_forward_hook(partial(note, name)) for name, part in leaves.items()]
    output = network(pixels)
    for hook in hooks:
        hook.remove()
    pairs = [(name, norms[0]) for name, norms in takers.items() if len(norms) == 1]
    return [
        (convolution, norm)
        for convolution, norm in pairs
        # A subclass may do more than its base class, such as an activation.
        if type(leaves[norm]) is nn.BatchNorm2d
        and leaves[norm].running_mean is not None
        and runs[convolution] == runs[norm] == 1
    ], output
