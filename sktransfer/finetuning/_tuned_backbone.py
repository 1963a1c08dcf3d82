"""The tuned backbone of a fitted classifier."""

import copy
from contextlib import contextmanager

from torch import nn

from .._engine import Network, embed_images, progress_bar
from .._utils._hashing import hash_value
from .._utils._threads import usable_kernels
from ..backbones import shared_network, split_backbone
from ..exceptions import ImageReadError
from ..images import image_problems

#: Advice about images that cannot be read.
ADVICE = "repair or remove them: FineTuneClassifier needs every image that it is given."


@contextmanager
def with_advice():
    """Replace the advice of the embedder by that of the classifier."""
    try:
        yield
    except ImageReadError as error:
        raise ImageReadError(error.errors, ADVICE) from None


class TunedBackbone:
    """A backbone whose upper part was tuned; only that part is in its pickle.

    `n_stages` is the number of tuned stages, counted from the end. `upper` contains them, on the
    CPU, or the whole network if it cannot be split. The fingerprint of `spec` is checked when the
    frozen part is loaded.
    """

    def __init__(self, spec, n_stages, upper, is_whole):
        self.spec, self.n_stages, self.upper, self.is_whole = spec, n_stages, upper, is_whole
        self.digest = hash_value([n_stages, upper.state_dict()])

    def network(self):
        """Return a copy of the whole network, from normalized images to embeddings, on the CPU."""
        with usable_kernels():
            return copy.deepcopy(self._network())

    def _network(self):
        if self.is_whole:
            return self.upper
        with usable_kernels():
            lower, _ = split_backbone(shared_network(self.spec), self.n_stages)
        # One flat sequence, so that the stages can be told apart again.
        return nn.Sequential(*lower, *self.upper).eval()

    def embed(self, images, runtime, max_pixels, verbose):
        """Return embeddings (n_samples, n_features) of checked images."""
        network = Network(
            f"{self.spec.name} (tuned)",
            f"{self.spec.fingerprint}|{self.digest}",
            self.spec.n_features,
            self.spec.preprocessing,
            runtime,
            self._network,
            custom_module=self.spec.module is not None,
        )
        with progress_bar(network.name, len(images), verbose=verbose) as progress:
            rows, failures = embed_images(images, network, max_pixels=max_pixels, progress=progress)
        if failures:
            raise ImageReadError(image_problems(images, failures), ADVICE)
        return rows
