"""The input of the trained part of a backbone: outputs of the frozen part, or pixels.

The output of the frozen part for a view does not change during training. It is computed once and
kept if memory allows, otherwise again for each batch. The numbers are the same on a CPU, because
one function computes both.
"""

from copy import copy
from dataclasses import replace
from functools import partial
from math import prod

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from .._engine import NormalizedNetwork, PixelNetwork, embed_images, frozen_network, progress_bar
from ..backbones import backbone_stages
from ..exceptions import ImageReadError
from ..images import image_problems
from ._tuned_backbone import ADVICE


class _Flat(nn.Module):
    """A network whose outputs are rows, with the channels of feature maps last."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        outputs = self.network(images)
        return (outputs.permute(0, 2, 3, 1) if outputs.ndim == 4 else outputs).flatten(1)


def frozen_part(lower, spec, runtime, n_stages, root):
    """Return the part below the trained stages as a network that embeds, and its output shape.

    If there is no such part (``lower`` is None or has no parameters), return plain pixels.
    OpenVINO's conversions are kept below the cache directory ``root``, unless that is None.
    """
    size = spec.preprocessing.image_size
    if lower is None or not any(True for _ in lower.parameters()):
        return PixelNetwork(spec.preprocessing), (3, size, size)
    with torch.inference_mode():
        shape = tuple(lower(torch.zeros(1, 3, size, size)).shape[1:])
    network = replace(
        frozen_network(spec, runtime, root),
        name=f"{spec.name} (frozen part)",
        fingerprint=f"{spec.fingerprint} below {n_stages}",
        n_features=prod(shape),
        load=partial(_Flat, lower),
    )
    return network, shape


class FeatureDataset(Dataset):
    """Outputs of the frozen part for views of images, one random view of each image per epoch.

    `params` is the estimator. With ``new_views``, each epoch makes a new view of each image.
    Otherwise, if the outputs of all views fit into ``room`` bytes, they are kept in ``rows``
    (n_samples, n_views, n_features); ``n_bytes`` is their size.
    """

    def __init__(
        self,
        params,
        network,
        shape,
        images,
        digests,
        y,
        *,
        device,
        room,
        views=None,
        new_views=False,
    ):
        self.images, self.digests, self.network, self.shape = images, digests, network, shape
        self.views, self.new_views, self.max_pixels = views, new_views, params.max_pixels
        self.y, self.weight = torch.from_numpy(y), None
        self.device = torch.device("cpu")  # of the positions
        self.positions = torch.arange(len(images))
        self.numbers = torch.zeros(len(images), dtype=torch.long)
        n_views = 1 if views is None else len(views)
        n_bytes = len(images) * n_views * network.n_features * np.dtype(network.dtype).itemsize
        self.rows, self.n_bytes = None, 0
        if new_views or n_bytes > room:
            return
        self.n_bytes = n_bytes
        with progress_bar(network.name, len(images), n_views, verbose=params.verbose) as progress:
            rows = self._embed(range(len(images)), progress=progress)
        self.rows = torch.from_numpy(rows if views is not None else rows[:, None])
        on_gpu = torch.device(device).type == "cuda"
        if on_gpu and 2 * self.n_bytes <= torch.cuda.mem_get_info(device)[0]:
            self.rows = self.rows.to(device)

    @property
    def kept(self):
        """What is kept in memory: "features", "pixels" or "nothing"."""
        if self.rows is None:
            return "nothing"
        return "pixels" if self.network.dtype == np.uint8 else "features"

    def part(self, positions, weight=None):
        """Return a dataset of some of the images, with their weights; it shares the rows."""
        part = copy(self)
        part.positions = self.positions[positions]
        part.weight = None if weight is None else torch.from_numpy(weight)
        return part

    def __len__(self):
        return len(self.positions)

    def start_epoch(self, epoch):
        """Choose the view of each image for an epoch; torch's generators are already seeded."""
        if self.new_views:
            self.numbers = torch.full((len(self.images),), epoch)
        elif self.views is not None:
            self.numbers = torch.randint(len(self.views), (len(self.images),))

    def __getitem__(self, indices):
        weight = None if self.weight is None else self.weight[indices]
        indices = self.positions[indices]
        numbers = self.numbers[indices]
        if self.rows is not None:
            device = self.rows.device
            rows = self.rows[indices.to(device), numbers.to(device)]
        else:
            rows = self._embed(indices.tolist(), numbers=numbers[:, None].numpy())
            rows = torch.from_numpy(rows).flatten(1)
        if len(self.shape) == 3 and self.network.dtype != np.uint8:
            channels, height, width = self.shape
            rows = rows.view(-1, height, width, channels).permute(0, 3, 1, 2)
        else:
            rows = rows.view(-1, *self.shape)
        return {"X": rows, "sample_weight": weight}, self.y[indices]

    def _embed(self, indices, numbers=None, progress=None):
        images = [self.images[index] for index in indices]
        rows, failures = embed_images(
            images,
            self.network,
            digests=[self.digests[index] for index in indices],
            views=self.views,
            numbers=None if self.views is None else numbers,
            max_pixels=self.max_pixels,
            progress=progress,
        )
        if failures:
            raise ImageReadError(image_problems(images, failures), ADVICE)
        return rows


class TrainedPart(nn.Module):
    """The upper stages of a backbone and a head; takes pixels too, and normalizes them."""

    def __init__(self, upper, head, preprocessing, update_batch_norm):
        super().__init__()
        self.upper, self.head, self.update_batch_norm = upper, head, update_batch_norm
        self.normalize = NormalizedNetwork(nn.Identity(), preprocessing.mean, preprocessing.std)

    def forward(self, X):
        if X.dtype == torch.uint8:
            X = self.normalize(X)
        return self.head(self.upper(X).float())

    def train(self, mode=True):
        """Set the mode; what must not change stays in evaluation mode.

        Stages that are not trained exist where a network cannot be split.
        """
        super().train(mode)
        if mode:
            frozen = [
                stage
                for _, stage in backbone_stages(self.upper)
                if not any(parameter.requires_grad for parameter in stage.parameters())
            ]
            if not self.update_batch_norm:
                norms = nn.modules.batchnorm._BatchNorm
                frozen += [m for m in self.upper.modules() if isinstance(m, norms)]
            for module in frozen:
                module.eval()
        return self

    def rates(self, lr, backbone_lr_factor, layer_decay):
        """Return the learning rate of each parameter of the backbone, by name.

        Stages are slower the further they are from the head.
        """
        names = {parameter: f"upper.{name}" for name, parameter in self.upper.named_parameters()}
        rates, rate = {}, lr * backbone_lr_factor
        for _, stage in backbone_stages(self.upper)[::-1]:
            rates |= {names[parameter]: rate for parameter in stage.parameters()}
            rate *= layer_decay
        return {name: rates.get(name, rate) for name in names.values()}
