"""The tuned backbone of a fitted classifier."""

import copy
from dataclasses import replace

import torch
from torch import nn

from .._engine import embed_images, frozen_network, progress_bar
from .._training._weights import load_arrays, to_arrays
from .._utils._hashing import hash_value
from .._utils._threads import usable_kernels
from ..backbones import shared_network, split_backbone
from ..exceptions import ImageReadError
from ..images import image_problems

#: Advice about images that cannot be read.
ADVICE = "repair or remove them: FineTuneClassifier needs every image that it is given."


class TunedBackbone:
    """A backbone whose upper part was tuned.

    `embedder` is that of the frozen backbone, `n_stages` the number of tuned stages, counted from
    the end. The state has the weights of these stages as arrays, or those of the whole network if
    it cannot be split. The frozen part is loaded by name, and its fingerprint is checked.
    """

    def __init__(self, embedder, n_stages, upper):
        self.embedder, self.n_stages, self._upper = embedder, n_stages, upper
        self._digest = hash_value([n_stages, upper.state_dict()])
        self._torch_version = str(torch.__version__)

    def __getstate__(self):
        state = {**vars(self)}
        if "_upper" in state:
            state["_weights"] = to_arrays(state.pop("_upper"))
        return state

    @property
    def spec(self):
        """The frozen backbone."""
        return self.embedder._fitted_spec()

    def _split(self):
        with usable_kernels():
            return split_backbone(shared_network(self.spec), self.n_stages)

    @property
    def upper(self):
        """The tuned stages on the CPU, or the whole network; built again after loading."""
        weights = vars(self).get("_weights")  # read first: another thread may build it, too
        upper = vars(self).get("_upper")
        if upper is None:
            _, upper = self._split()
            load_arrays(upper, weights, self._torch_version)
            self._upper = upper.requires_grad_(False).eval()
            vars(self).pop("_weights", None)
        return upper

    def network(self):
        """Return a copy of the whole network, from normalized images to embeddings, on the CPU."""
        with usable_kernels():
            return copy.deepcopy(self._network())

    def _network(self):
        upper, (lower, _) = self.upper, self._split()
        if lower is None or not any(True for _ in lower.parameters()):
            return upper
        # One flat sequence, so that the stages can be told apart again.
        return nn.Sequential(*lower, *upper).eval()

    def embed(self, images, runtime, n_views, max_pixels, verbose):
        """Return embeddings of checked images as `embed_images` does, with several views."""
        spec = self.spec
        network = replace(
            frozen_network(spec, runtime),
            name=f"{spec.name} (tuned)",
            fingerprint=f"{spec.fingerprint}|{self._digest}",
            load=self._network,
        )
        views = None if n_views == 1 else self.embedder._views(n_views)
        with progress_bar(network.name, len(images), n_views, verbose=verbose) as progress:
            rows, failures = embed_images(
                images, network, views=views, max_pixels=max_pixels, progress=progress
            )
        if failures:
            raise ImageReadError(image_problems(images, failures), ADVICE)
        return rows
