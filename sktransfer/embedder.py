"""`ImageEmbedder`: images in, embeddings out, as a scikit-learn transformer."""

import os
from numbers import Integral
from typing import ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from ._engine import embed_images, frozen_network, progress_bar, resolve_runtime
from ._utils._sklearn import HasMethods, Interval, StrOptions, fit_context
from ._utils._warnings import warn_user
from .backbones import resolve_backbone, warn_if_random
from .backbones._spec import same_weights
from .cache import resolve_cache_root
from .exceptions import (
    FingerprintMismatchError,
    ImageReadError,
    ImageReadWarning,
)
from .images import MAX_PIXELS, check_images, image_problems

__all__ = ["ImageEmbedder"]


class ImageEmbedder(TransformerMixin, BaseEstimator):
    """Turn images into the embeddings of a frozen pretrained network.

    The embedding is what feeds the last layer of the network. `fit` learns nothing from the
    images: it checks the parameters and that the backbone can be had. `transform` embeds, and
    never computes the same embedding twice: what is in the cache is read, so that folds, grid
    candidates, clones, parallel workers and later runs cost nothing.

    Parameters
    ----------
    backbone : str or torch.nn.Module, default="tiny_mobilenet"
        Name of the network, see :func:`sktransfer.list_backbones`: ``"resnet50"`` and all others
        of torchvision, ``"timm:NAME"`` (extra ``timm``), or ``"tiny_mobilenet"`` and
        ``"tiny_resnet"``, whose weights come with the package. Or a module of your own, which maps
        normalised float32 images (n, 3, S, S) to embeddings (n, n_features).
    weights : str, path-like or None, default="DEFAULT"
        ``"DEFAULT"`` for the best official weights, the name of others (``"IMAGENET1K_V1"``), a
        ``.pth`` or ``.safetensors`` file, or None for random ones, of which a warning tells.
    image_size : int or None, default=None
        Side in pixels of the square that the network sees; None for that of the weights.
    batch_size : int or None, default=None
        Images in progress at a time. On a CPU it bounds memory, and what a killed process has to
        repeat, and results do not depend on it; None is 32 for each core, at least 64. On a GPU it
        is the size of a forward pass; None is 64.
    device : str or torch.device, default="auto"
        ``"auto"`` (CUDA, else Apple's MPS, else the CPU), ``"cpu"``, ``"cuda"``, ``"cuda:1"``,
        ``"mps"``. MPS is untested.
    precision : {"float32", "bfloat16", "float16"}, default="float32"
        Precision of the forward pass; the embeddings are float32 in any case. ``"float16"`` needs a
        GPU, ``"bfloat16"`` a GPU or a CPU with AVX-512.
    engine : {"auto", "torch", "openvino"}, default="auto"
        What runs the network. ``"auto"`` takes OpenVINO (extra ``fast``) on a CPU when it is
        installed and the backbone is no module of your own.
    cache : bool, str, path-like or None, default=True
        Where embeddings are kept: True for the user's cache directory (the environment variable
        ``SKTRANSFER_HOME`` overrides it), a directory, or None (or False) for nowhere.
    on_error : {"raise", "nan"}, default="raise"
        What an image that cannot be read leads to, once all others are embedded: an error that
        names every such image, or rows of NaN and a warning.
    max_pixels : int, default=100_000_000
        Images with more pixels (height x width) are refused before they are decoded. What is in
        the cache is given without decoding anything.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    fingerprint_ : str
        Identifies the architecture and its weights; checked again by `transform`.
    n_features_in_ : int
        1: one column of images.
    n_features_out_ : int
        Width of the embedding.
    preprocessing_ : sktransfer.backbones.Preprocessing
        How an image is resized, cropped and normalised.
    errors_ : list of ImageProblem
        (index, path, reason) of each image that the last `transform` could not read.

    See Also
    --------
    sktransfer.make_transfer_pipeline : An embedder and a classifier in one pipeline.
    sktransfer.make_transfer_stack : Several backbones stacked.

    Notes
    -----
    A row depends on nothing but its image and the parameters: not on the other images, their
    order, the number of threads or processes (on one kind of machine, with one version of the
    engine). The network is not part of a pickle; it is loaded when the first embedding has to be
    computed.

    Examples
    --------
    >>> from sktransfer import ImageEmbedder
    >>> from sktransfer.datasets import make_shapes
    >>> shapes = make_shapes(n_samples=6, random_state=0)
    >>> embedder = ImageEmbedder("tiny_mobilenet", cache=None)
    >>> embedder.fit_transform(shapes.data).shape == (6, embedder.n_features_out_)
    True
    """

    _parameter_constraints: ClassVar[dict] = {
        "backbone": [str, HasMethods(["forward", "state_dict"])],
        "weights": [str, os.PathLike, None],
        "image_size": [Interval(Integral, 1, None, closed="left"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "device": [str, torch.device],
        "precision": [StrOptions({"float32", "bfloat16", "float16"})],
        "engine": [StrOptions({"auto", "torch", "openvino"})],
        "cache": ["boolean", str, os.PathLike, None],
        "on_error": [StrOptions({"raise", "nan"})],
        "max_pixels": [Interval(Integral, 1, None, closed="left")],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        backbone="tiny_mobilenet",
        *,
        weights="DEFAULT",
        image_size=None,
        batch_size=None,
        device="auto",
        precision="float32",
        engine="auto",
        cache=True,
        on_error="raise",
        max_pixels=MAX_PIXELS,
        verbose=0,
    ):
        self.backbone = backbone
        self.weights = weights
        self.image_size = image_size
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.engine = engine
        self.cache = cache
        self.on_error = on_error
        self.max_pixels = max_pixels
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Check everything that can be checked; no image is opened and nothing is embedded.

        Parameters
        ----------
        X : array-like of images
            See :func:`sktransfer.images.check_images`.
        y : None
            Ignored.

        Returns
        -------
        ImageEmbedder
            The fitted embedder.

        Raises
        ------
        UnknownBackboneError, WeightsError, MissingExtraError
            If the backbone, its weights or what runs it are not to be had.
        ValueError
            If device, precision and engine do not go together.
        """
        check_images(X)
        spec, _ = self._resolve()
        self.n_features_in_ = 1  # one column of images
        self.fingerprint_ = spec.fingerprint
        self.n_features_out_ = spec.n_features
        self.preprocessing_ = spec.preprocessing
        return self

    def transform(self, X):
        """Embed images.

        Parameters
        ----------
        X : array-like of images
            See :func:`sktransfer.images.check_images`.

        Returns
        -------
        ndarray of shape (n_samples, n_features), dtype float32
            One row for each image, in order; NaN where one could not be read and `on_error` is
            ``"nan"``.

        Raises
        ------
        ImageReadError
            If images cannot be read and `on_error` is ``"raise"``; all others are embedded, and
            stored, first.
        FingerprintMismatchError
            If the weights are no longer those of `fit`.
        WeightsError
            If the weights cannot be downloaded or loaded.

        Warns
        -----
        ImageReadWarning
            If images cannot be read and `on_error` is ``"nan"``.
        RandomWeightsWarning
            If `weights` is None.
        CacheWarning
            If the cache cannot be used; the result is right nevertheless.
        """
        check_is_fitted(self)
        images = check_images(X)
        spec, runtime = self._resolve()
        if not same_weights(spec.fingerprint, self.fingerprint_):
            raise FingerprintMismatchError(
                f"This embedder was fitted with the weights {self.fingerprint_}, but {spec.name!r} "
                f"now has {spec.fingerprint}. Bring back the expected weights, or fit again."
            )
        warn_if_random(spec)
        root = resolve_cache_root(self.cache)
        with progress_bar(spec.name, len(images), verbose=self.verbose) as progress:
            rows, failures = embed_images(
                images,
                frozen_network(spec, runtime, root),
                cache=root,
                max_pixels=self.max_pixels,
                batch_size=self.batch_size,
                progress=progress,
            )
        self.errors_ = image_problems(images, failures)
        self._report_errors(len(images))
        return rows

    def get_feature_names_out(self, input_features=None):
        """Name the columns of the embedding after the backbone.

        Parameters
        ----------
        input_features : None
            Ignored; an image has no named features.

        Returns
        -------
        ndarray of str
            ``["resnet50_0", "resnet50_1", ...]``.
        """
        check_is_fitted(self)
        name = self.backbone if isinstance(self.backbone, str) else type(self.backbone).__name__
        return np.array([f"{name}_{i}" for i in range(self.n_features_out_)], dtype=object)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.requires_fit = True
        return tags

    def _resolve(self):
        """What the parameters stand for on this machine."""
        spec = resolve_backbone(self.backbone, self.weights, self.image_size)
        runtime = resolve_runtime(
            self.device,
            self.precision,
            self.engine,
            batch_size=self.batch_size,
            custom_module=spec.module is not None,
        )
        return spec, runtime

    def _report_errors(self, n_samples):
        if not self.errors_:
            return
        if self.on_error == "raise":
            raise ImageReadError(
                self.errors_,
                "remove or replace these images: the `index` of each of this error's `errors` is "
                'its row in X. An ImageEmbedder(on_error="nan") gives NaN rows for them, which '
                "classifiers refuse. All other images were embedded and, with a cache, kept in it.",
            )
        index, path, reason = self.errors_[0]
        warn_user(
            f"{len(self.errors_)} of {n_samples} images could not be read and their rows are "
            f"NaN; the first is [{index}] {path or '(given in memory)'}: {reason}. "
            "`errors_` lists them all.",
            ImageReadWarning,
        )
