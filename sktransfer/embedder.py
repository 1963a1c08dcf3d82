"""`ImageEmbedder`: images in, embeddings out, as a scikit-learn transformer."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from . import augmentation as views
from ._engine import embed_images, frozen_network, progress_bar, resolve_runtime
from ._utils._files import printable
from ._utils._fork import IMPORTING
from ._utils._parameters import MAX_VIEWS, HoldsModules
from ._utils._sklearn import HasMethods, Interval, StrOptions, fit_context
from ._utils._tasks import ReportsTasks
from ._utils._typing import FilePath, Images, Seed
from ._utils._warnings import warn_user
from .backbones import MAX_IMAGE_SIZE, load_backbone, resolve_backbone, same_weights, warn_if_random
from .cache import resolve_cache_root
from .exceptions import FingerprintMismatchError, ImageReadError, ImageReadWarning
from .images import MAX_PIXELS, check_images, image_problems

if TYPE_CHECKING:
    import torch

__all__ = ["ImageEmbedder"]


def resolve_spec(embedder):
    """Return the `BackboneSpec` that the parameters of an embedder stand for."""
    spec = resolve_backbone(
        embedder.backbone,
        embedder.weights,
        embedder.image_size,
        pooling=embedder.pooling,
        resize=embedder.resize,
    )
    if embedder.decoding == "exact":
        spec = replace(spec, preprocessing=replace(spec.preprocessing, decoding="exact"))
    return spec


def returns_rows(embedder):
    """Whether `transform` and `fit_transform` return two dimensions."""
    return embedder.n_views == 1 and embedder.n_test_views in (None, 1)


def network_of(embedder):
    """Return the network of a fitted embedder; warn if its weights are random."""
    spec = embedder._fitted_spec()
    warn_if_random(spec)
    return frozen_network(spec, embedder._runtime(spec), resolve_cache_root(embedder.cache))


def run_embedder(embedder, images, n_views=1, *, digests=None, progress=None):
    """Return what `embed_images` does, from the parameters of a fitted embedder."""
    rows, failures = embed_images(
        images,
        network_of(embedder),
        digests=digests,
        views=None if n_views == 1 else embedder._views(n_views),
        cache=resolve_cache_root(embedder.cache),
        max_pixels=embedder.max_pixels,
        batch_size=embedder.batch_size,
        progress=progress,
        spread=True,
    )
    rows[list(failures)] = np.nan  # all views, also where the augmentation fails on one
    return rows, failures


@dataclass(kw_only=True, repr=False, eq=False)
class ImageEmbedder(HoldsModules, ReportsTasks, TransformerMixin, BaseEstimator):
    """Turn images into the embeddings of a frozen pretrained network.

    An embedding is the input of the network's last layer. `fit` learns nothing. Each embedding is
    computed once: folds, candidates of a search, clones, parallel workers and later runs read it
    from the cache.

    Parameters
    ----------
    backbone : str or torch.nn.Module, default="tiny_mobilenet"
        Name of the network, see :func:`sktransfer.list_backbones`, such as ``"resnet50"``, or
        ``"timm:NAME"`` (extra ``timm``). Or a custom module that maps normalized float32 images of
        shape (n, 3, S, S) to embeddings of shape (n, n_features).
    weights : str, path-like or None, default="DEFAULT"
        ``"DEFAULT"`` for the best official weights, a name such as ``"IMAGENET1K_V1"``, a ``.pth``
        or ``.safetensors`` file, or None for random initialization.
    image_size : int or None, default=None
        Side of the network's square input in pixels, at most 4096; None uses that of the weights.
        A vision transformer takes multiples of its patch size.
    pooling : {"auto", "cls", "mean", "cls+mean"}, default="auto"
        Which tokens of a vision transformer are the embedding: the class token, the mean of the
        patch tokens without registers, or both side by side. ``"auto"`` is what the authors of
        the weights use. Other networks have no tokens and take only ``"auto"``.
    resize : {"auto", "crop", "squash"}, default="auto"
        Whether an image is cropped to a square, or squashed, which changes its aspect ratio.
        ``"auto"`` is what the weights were evaluated with.
    augmentation : str, torch.nn.Module or None, default=None
        What makes the views of an image: ``"flip"`` mirrors every second one; ``"crop"`` also
        crops at least half the area; ``"color"`` also changes colors; ``"auto"`` is ``"crop"`` and
        one random change of TrivialAugment [1]_. Or a transform of
        :mod:`torchvision.transforms.v2` that maps a uint8 tensor (3, H, W) to another.
    n_views : int, default=1
        Number of views of each image that `fit_transform` returns, for training. View 0 is the
        image. More than 1 needs an `augmentation`; at most 10,000.
    n_test_views : int or None, default=None
        Number of views that `transform` returns, for prediction; None for `n_views`.
    random_state : int, RandomState instance or None, default=0
        Seed of the views. An int gives the same views in every fit, so that cached ones are used
        again; otherwise each `fit` draws new views.
    batch_size : int or None, default=None
        Images in progress at a time, at most 65,536. On a CPU it limits memory, and what a killed
        process has to repeat; None is 32 for each core, at least 64. On a GPU it is the size of a
        forward pass; None is 64.
    device : str or torch.device, default="auto"
        ``"auto"`` (CUDA, else Apple's MPS, else the CPU), ``"cpu"``, ``"cuda"``, ``"cuda:1"``,
        ``"mps"``. MPS is untested.
    precision : {"float32", "bfloat16", "float16"}, default="float32"
        Precision of the forward pass; embeddings are always float32. ``"float16"`` needs a GPU,
        ``"bfloat16"`` a GPU, or a CPU with AVX-512 or Arm bf16 instructions.
    engine : {"auto", "torch", "openvino"}, default="auto"
        What runs the network. ``"auto"`` uses OpenVINO (extra ``fast``) on a CPU if it is
        installed and the backbone is not a custom module.
    cache : bool, str, path-like or None, default=True
        Where embeddings are kept: True for the user's cache directory (the environment variable
        ``SKTRANSFER_HOME`` overrides it), a directory, or None (or False) for no cache.
    on_error : {"raise", "nan"}, default="raise"
        What happens to unreadable images, once all others are embedded: an error that names each
        of them, or rows of NaN and a warning.
    decoding : {"fast", "exact"}, default="fast"
        ``"fast"`` decodes a large JPEG at 1/2, 1/4 or 1/8 of its size, as long as it stays at least
        twice as large as the network needs. ``"exact"`` decodes all pixels.
    max_pixels : int, default=100_000_000
        Images with more pixels (height x width) are refused before they are decoded. Cached
        embeddings are returned without decoding.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    fingerprint_ : str
        Identifies the architecture and its weights; `transform` checks it.
    n_features_in_ : int
        1: one column of images.
    n_features_out_ : int
        Width of an embedding.
    preprocessing_ : sktransfer.backbones.Preprocessing
        How images are resized, cropped and normalized.
    seed_ : int
        Seed of the views.
    errors_ : list of ImageProblem
        (index, path, reason) of each image that the last `transform` could not read.

    See Also
    --------
    sktransfer.make_transfer_pipeline : An embedder and a classifier in one pipeline.
    sktransfer.make_transfer_stack : Several backbones in a stack.
    sktransfer.MultiViewClassifier : A classifier for several views of each image.

    Notes
    -----
    A row depends on its image and the parameters only: not on the other images, their order, or
    the number of threads or processes (on one kind of machine, with one version of the engine).
    The network is not part of a pickle; it is loaded when an embedding has to be computed.
    A custom module whose weights change gives new embeddings. Writes through ``.data`` may go
    unnoticed; use ``torch.no_grad()``.

    Views are cached like images, those of a custom transform under its class and attributes: if
    you change its code, change its name or an attribute too. It must draw its random numbers with
    torch functions. As a candidate in the grid of a search, put it into ``v2.Compose([...])``.
    Arrays with views have three dimensions and stay NumPy arrays, whatever ``set_output`` asks for.

    References
    ----------
    .. [1] S. G. Müller and F. Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data
       Augmentation", ICCV, 2021, https://arxiv.org/abs/2103.10158

    Examples
    --------
    >>> from sktransfer import ImageEmbedder
    >>> from sktransfer.datasets import make_shapes
    >>> shapes = make_shapes(n_samples=6, random_state=0)
    >>> embedder = ImageEmbedder("tiny_mobilenet", cache=None)
    >>> embedder.fit_transform(shapes.data).shape == (6, embedder.n_features_out_)
    True
    >>> embedder.set_params(augmentation="flip", n_views=2).fit_transform(shapes.data).shape[:2]
    (6, 2)
    """

    _parameter_constraints: ClassVar[dict] = {
        "backbone": [str, HasMethods(["forward", "state_dict"])],
        "weights": [str, os.PathLike, None],
        "image_size": [Interval(Integral, 1, MAX_IMAGE_SIZE, closed="both"), None],
        "pooling": [StrOptions({"auto", "cls", "mean", "cls+mean"})],
        "resize": [StrOptions({"auto", "crop", "squash"})],
        "augmentation": [str, HasMethods(["forward", "state_dict"]), None],
        "n_views": [Interval(Integral, 1, MAX_VIEWS, closed="both")],
        "n_test_views": [Interval(Integral, 1, MAX_VIEWS, closed="both"), None],
        "random_state": ["random_state"],
        "batch_size": [Interval(Integral, 1, 65_536, closed="both"), None],
        "device": "no_validation",  # `resolve_device` checks it
        "precision": [StrOptions({"float32", "bfloat16", "float16"})],
        "engine": [StrOptions({"auto", "torch", "openvino"})],
        "cache": ["boolean", str, os.PathLike, None],
        "on_error": [StrOptions({"raise", "nan"})],
        "decoding": [StrOptions({"fast", "exact"})],
        "max_pixels": [Interval(Integral, 1, None, closed="left")],
        "verbose": ["verbose"],
    }

    backbone: str | torch.nn.Module = field(default="tiny_mobilenet", kw_only=False)
    weights: FilePath | None = "DEFAULT"
    image_size: int | None = None
    pooling: str = "auto"
    resize: str = "auto"
    augmentation: str | torch.nn.Module | None = None
    n_views: int = 1
    n_test_views: int | None = None
    random_state: Seed = 0
    batch_size: int | None = None
    device: str | torch.device = "auto"
    precision: str = "float32"
    engine: str = "auto"
    cache: bool | FilePath | None = True
    on_error: str = "raise"
    decoding: str = "fast"
    max_pixels: int = MAX_PIXELS
    verbose: int = 0

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Images, y: Any = None) -> Self:
        """Check the parameters and resolve the backbone; nothing is embedded.

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
            If the backbone, its weights or the inference engine is unavailable.
        ValueError
            If `device`, `precision` and `engine` contradict each other, or if the augmentation is
            missing, unknown or does not work.
        """
        images = check_images(X)
        with self._fit_task(images, y):
            spec = resolve_spec(self)
            self._runtime(spec)  # refuses what this machine cannot do
            self.n_features_in_ = 1  # one column of images
            self.fingerprint_ = spec.fingerprint
            self.n_features_out_ = spec.n_features
            self.preprocessing_ = spec.preprocessing
            if isinstance(self.random_state, Integral):
                self.seed_ = int(self.random_state)
            else:
                self.seed_ = int(check_random_state(self.random_state).randint(2**31 - 1))
            if self.augmentation is not None:
                views.resolve_augmentation(self.augmentation)
            if (n_views := max(self.n_views, self.n_test_views or 1)) > 1:
                views.check_augmentation(self._views(n_views).augmentation, images, self.max_pixels)
        return self

    def fit_transform(self, X: Images, y: Any = None) -> Any:
        """Fit, and embed images for training.

        Parameters
        ----------
        X : array-like of images
            See :func:`sktransfer.images.check_images`.
        y : None
            Ignored.

        Returns
        -------
        ndarray of shape (n_samples, n_features) or (n_samples, n_views, n_features), dtype float32
            As from `transform`, with `n_views` views.
        """
        return self.fit(X, y)._embedded(X, self.n_views)

    def transform(self, X: Images) -> Any:
        """Embed images for prediction: `n_test_views` views of each.

        Parameters
        ----------
        X : array-like of images
            See :func:`sktransfer.images.check_images`.

        Returns
        -------
        ndarray of shape (n_samples, n_features) or (n_samples, n_test_views, n_features), \
                dtype float32
            An embedding for each image, in order, or several if there are several views; NaN for
            unreadable images if `on_error` is ``"nan"``.

        Raises
        ------
        ImageReadError
            If images cannot be read and `on_error` is ``"raise"``; all others are cached first.
        FingerprintMismatchError
            If the weights differ from those of `fit`.
        ValueError
            If `image_size`, `resize` or `decoding` were changed after `fit`.
        WeightsError
            If the weights cannot be downloaded or loaded.

        Warns
        -----
        ImageReadWarning
            If images cannot be read and `on_error` is ``"nan"``.
        RandomWeightsWarning
            If `weights` is None.
        CacheWarning
            If the cache cannot be used; the result is correct nevertheless.
        """
        check_is_fitted(self)
        self._validate_params()  # some may be changed after `fit`
        return self._embedded(X, self.n_views if self.n_test_views is None else self.n_test_views)

    def network_(self) -> torch.nn.Module:
        """Return a copy of the network, for explainers and other tools of PyTorch.

        It maps images that are prepared as `preprocessing_` says to embeddings. Changes to the copy
        do not affect the embedder.

        Returns
        -------
        torch.nn.Module
            A new copy in each call: on the CPU, float32, in evaluation mode, without gradients of
            its parameters, whatever `device`, `precision` and `engine` are.

        Raises
        ------
        FingerprintMismatchError
            If the weights differ from those of `fit`.

        Examples
        --------
        >>> import torch
        >>> from sktransfer import ImageEmbedder
        >>> embedder = ImageEmbedder("tiny_mobilenet").fit(["image.jpg"])
        >>> embedder.network_()(torch.zeros(1, 3, 160, 160)).shape
        torch.Size([1, 576])
        """
        return load_backbone(self._fitted_spec())

    def set_output(self, *, transform: str | None = None) -> Self:
        """Set the container that `transform` and `fit_transform` return.

        Parameters
        ----------
        transform : {"default", "pandas", "polars"} or None, default=None
            See :meth:`sklearn.base.TransformerMixin.set_output`. No effect with several views.

        Returns
        -------
        ImageEmbedder
            This embedder.
        """
        return super().set_output(transform=transform) if returns_rows(self) else self

    @available_if(returns_rows)
    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Name the columns of an embedding after the backbone; not available with several views.

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
        return np.array([f"{self._name()}_{i}" for i in range(self.n_features_out_)], dtype=object)

    def _name(self):
        return self.backbone if isinstance(self.backbone, str) else type(self.backbone).__name__

    def _runtime(self, spec):
        return resolve_runtime(self.device, self.precision, self.engine, spec, self.batch_size)

    def _fitted_spec(self):
        check_is_fitted(self)
        spec = resolve_spec(self)
        if not same_weights(spec.fingerprint, self.fingerprint_):
            raise FingerprintMismatchError(
                f"The weights of {spec.name!r} differ from those at `fit`.\n"
                f"  expected: {self.fingerprint_}\n  found:    {spec.fingerprint}\n"
                "Hint: restore `backbone`, `weights`, `image_size` and `pooling`, or fit again."
            )
        if spec.preprocessing != self.preprocessing_:
            raise ValueError(
                f"This embedder was fitted with {self.preprocessing_}, but image_size="
                f"{self.image_size}, resize={self.resize!r} and decoding={self.decoding!r} now "
                f"mean {spec.preprocessing}. Restore these parameters, or fit again."
            )
        return spec

    def _views(self, n_views):
        if self.augmentation is None:
            name = "n_views" if n_views == self.n_views else "n_test_views"
            raise ValueError(
                f"{name}={n_views} requests several views of each image, but augmentation=None "
                'makes only one. Pass augmentation="crop", another name or a transform; or set '
                "n_views and n_test_views to 1."
            )
        with IMPORTING:
            from .augmentation import Views, resolve_augmentation
        return Views(resolve_augmentation(self.augmentation), n_views, self.seed_)

    def _embedded(self, X, n_views, advice=None):
        images = check_images(X)
        with progress_bar(self._name(), len(images), n_views, verbose=self.verbose) as progress:
            rows, failures = run_embedder(self, images, n_views, progress=progress)
        self.errors_ = image_problems(images, failures)
        if not self.errors_:
            return rows
        if self.on_error == "raise":
            hint = "remove or replace these images. This error's `errors` lists them, each with "
            hint += 'its row in X as `index`. ImageEmbedder(on_error="nan") returns rows of NaN '
            hint += "for them instead, but classifiers reject such rows."
            if len(self.errors_) < len(images):
                hint += " All other images were embedded, and cached unless cache=None."
            raise ImageReadError(self.errors_, advice or hint)
        index, path, reason = self.errors_[0]
        warn_user(
            f"{len(self.errors_)} of {len(images)} images could not be read and their rows are "
            f"NaN; the first is [{index}] {printable(path) or '(given in memory)'}: {reason}. "
            "`errors_` lists them all.",
            ImageReadWarning,
        )
        return rows
