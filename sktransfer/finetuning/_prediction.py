"""Embeddings of a tuned network, computed as those of frozen ones are."""

import secrets
from contextlib import contextmanager

from torch import nn

from .._engine import Network, embed_images, progress_bar, resolve_runtime
from .._utils._threads import thread_share
from ..backbones import shared_network, split_backbone
from ..cache import resolve_cache_root
from ..exceptions import ImageReadError, UnreadableImageError
from ..images import check_images, digest_images, image_problems

__all__ = ["TunedNetwork", "advised", "read_digests"]

#: What to do about images that cannot be read.
_HINT = "remove or replace these images: FineTuneClassifier needs all images that it is given."


def read_digests(images, cache):
    """Return the digest of each image, or raise one error that names all that have none."""
    root = resolve_cache_root(cache)
    digests = digest_images(images, root, thread_share())
    bad = {p: d for p, d in enumerate(digests) if isinstance(d, UnreadableImageError)}
    raise_unreadable(images, bad)
    return digests


def raise_unreadable(images, failures):
    """Raise one error that names every image of ``{position: reason}``, if there are any."""
    if failures:
        raise ImageReadError(image_problems(images, failures), _HINT)


@contextmanager
def advised():
    """Let errors of an embedder say what can be done where it is only a part."""
    try:
        yield
    except ImageReadError as error:
        raise ImageReadError(error.errors, _HINT) from None


class TunedNetwork:
    """A backbone whose upper part was tuned; only that part is in its pickle.

    Parameters
    ----------
    spec : BackboneSpec
        The backbone as it was before; its fingerprint is checked when the frozen part is loaded.
    n_unfrozen : int
        How many of its last stages were tuned.
    upper : torch.nn.Module
        The tuned part, on the CPU: the whole network where that cannot be cut in two.
    is_whole : bool
        Whether ``upper`` is the whole network.
    """

    def __init__(self, spec, n_unfrozen, upper, is_whole):
        self.spec, self.n_unfrozen, self.upper, self.is_whole = spec, n_unfrozen, upper, is_whole
        self._ready = None

    def __getstate__(self):
        return {**vars(self), "_ready": None}

    def network(self):
        """Return the network from normalised images to embeddings, on the CPU."""
        if self.is_whole:
            return self.upper
        lower, _ = split_backbone(shared_network(self.spec), self.n_unfrozen)
        # One stage after the other, not a part in a part, so that they can be told apart again.
        return nn.Sequential(*lower, *self.upper).eval()

    def embed(self, X, *, device, precision, engine, batch_size, cache, max_pixels, verbose):
        """Return embeddings (n, n_features), as `ImageEmbedder.transform` does."""
        images = check_images(X)
        runtime = self._runtime(device, precision, engine)
        network = Network(
            "tuned",
            self._fingerprint(),
            self.spec.n_features,
            self.spec.preprocessing,
            runtime,
            self.network,
            custom_module=self.spec.module is not None,
        )
        with progress_bar("tuned", len(images), verbose=verbose) as progress:
            rows, failures = embed_images(
                images,
                network,
                max_pixels=max_pixels,
                batch_size=batch_size,
                progress=progress,
            )
        raise_unreadable(images, failures)
        return rows

    def _fingerprint(self):
        # It serves one object: nothing that it embeds is kept.
        if self._ready is None:
            self._ready = secrets.token_hex()
        return self._ready

    def _runtime(self, device, precision, engine):
        # Converting a network that serves one estimator takes longer than it saves on a few
        # hundred images: OpenVINO only runs it when it is asked for by name.
        engine = "torch" if engine == "auto" else engine
        return resolve_runtime(
            device, precision, engine, custom_module=self.spec.module is not None
        )
