"""`AugmentedClassifier`: training views and test-time views around any classifier of images."""

import os
from contextlib import contextmanager
from numbers import Integral
from typing import ClassVar

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, _fit_context, clone
from sklearn.pipeline import Pipeline
from sklearn.utils import (
    _safe_indexing,
    check_consistent_length,
    check_random_state,
    get_tags,
)
from sklearn.utils._metadata_requests import UNUSED, _routing_enabled
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import _is_arraylike, _num_samples, check_is_fitted
from torch import nn

from .._utils._threads import thread_share
from ..cache import resolve_cache_root
from ..exceptions import ImageReadError
from ..images import MAX_PIXELS, check_images, image_name
from ._splits import bind_splits
from ._transforms import HoldsAugmentation
from ._views import ViewName, check_augmentation, make_views, resolve_augmentation

__all__ = ["AugmentedClassifier"]


def _inner_has(method):
    """Whether the wrapped classifier, fitted if it can be, has a method."""

    def check(self):
        getattr(getattr(self, "estimator_", self.estimator), method)  # its own error says why not
        return True

    return check


class AugmentedClassifier(HoldsAugmentation, MetaEstimatorMixin, ClassifierMixin, BaseEstimator):
    """Train a classifier of images on augmented views, and average its predictions over views.

    ``fit`` makes `n_views` views of each image, the image itself among them, and fits the
    classifier on all of them. As this happens inside ``fit``, cross-validation around it never
    tests on a view of an image that was trained on. Inside, every split that the classifier makes
    by itself (a stack's, a search's, for early stopping) keeps the views of one image together.

    Views are the same ones each time, and are stored as images are: with 8 views, a grid search
    over a head embeds each image 8 times in all.

    Parameters
    ----------
    estimator : classifier
        Any classifier of images, such as `make_transfer_pipeline` and `make_transfer_stack`
        return. It is cloned.
    augmentation : str, torch.nn.Module or None, default="crop"
        What is done to views. ``"flip"`` mirrors every second view left to right; ``"crop"`` also
        cuts out a random part of half the image's area or more; ``"color"`` also changes
        brightness, contrast, saturation and hue; ``"auto"`` is ``"crop"`` and one random change
        of TrivialAugment's [1]_. Or a transform of :mod:`torchvision.transforms.v2` that turns a
        uint8 tensor (3, H, W) into another, see Notes. None makes no views, whatever `n_views`
        and `n_test_views` say.
    n_views : int, default=4
        Views to train on for each image. View 0 is the image itself. 1 trains as without.
    n_test_views : int, default=4
        Views whose predictions are averaged (test-time augmentation), view 0 among them. 1
        predicts from the image alone.
    random_state : int, RandomState instance or None, default=0
        Seed of the views. An int gives the same views in each fit, so that what is stored is used
        again; otherwise each fit draws new ones.

    Attributes
    ----------
    estimator_ : classifier
        The fitted classifier.
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    seed_ : int
        Seed of the views, for training and for prediction.

    See Also
    --------
    sktransfer.make_transfer_pipeline : An embedder and a head.
    sktransfer.make_transfer_stack : Several backbones stacked.

    Notes
    -----
    Every image has the same number of views, so the balance of classes stays as it is, and a
    sample weight counts for each view of its image. The rows that the classifier sees, and with
    them the weight of the data against a penalty such as that of ``LogisticRegression(C=...)``,
    grow `n_views` times.

    How inner splits stay clean: an integer, a splitter or an iterable that is found as ``cv`` or
    ``validation_splitter`` in any nested parameter splits the images as they were given, and all
    views of an image go along, also into the test side. A ``HeadClassifier`` is told how many rows
    an image has, for its validation share and for the rows that ``weight_decay="auto"`` leaves
    out. ``RidgeClassifierCV(cv=None)`` leaves out single rows, which would be single views: it gets
    five folds of images. What splits rows in ways that cannot be changed from outside is refused:
    ``early_stopping`` and ``oob_score`` of scikit-learn's classifiers, ``SVC(probability=True)``,
    skorch's ``ValidSplit``. A classifier of another make that splits its rows without any such
    parameter cannot be recognised.

    Views of a transform of your own are stored under the names of its class and attributes and
    under what these hold: numbers, texts, arrays, containers of these, further transforms, and
    classes and functions that can be imported by name. Anything else, a lambda above all, is
    refused. When you change the code of a transform, change its name or an attribute too. It has to
    draw random numbers by torch's functions; `fit` tries it out on one image. As a candidate in
    the grid of a search it goes into ``v2.Compose([...])``: some transforms have a method
    ``get_params`` of another meaning, which scikit-learn takes for its own.

    Named augmentations first shrink images to 800 pixels on the shorter side, unless ``"flip"``
    stands alone; their crops are not resized, as the network's preprocessing does that.

    With ``on_error="nan"`` the embedder's warning and ``errors_`` count views; an
    :class:`~sktransfer.exceptions.ImageReadError` names images.

    With ``n_test_views`` above 1, ``predict`` takes the most probable class on average; a threshold of the
    wrapped classifier (``TunedThresholdClassifierCV``) is not looked at: wrap that around.

    References
    ----------
    .. [1] S. G. Müller and F. Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data
       Augmentation", ICCV, 2021, https://arxiv.org/abs/2103.10158

    Examples
    --------
    >>> from sktransfer import AugmentedClassifier, make_transfer_pipeline
    >>> from sktransfer.datasets import make_shapes
    >>> shapes = make_shapes(n_samples=60, random_state=0)
    >>> pipeline = make_transfer_pipeline("tiny_mobilenet", image_size=64, cache=None)
    >>> model = AugmentedClassifier(pipeline, augmentation="flip", n_views=2, n_test_views=2)
    >>> model.fit(shapes.data, shapes.target).predict_proba(shapes.data[:5]).shape
    (5, 4)
    """

    _parameter_constraints: ClassVar[dict] = {
        "estimator": [HasMethods("fit")],  # some have a `predict` only when fitted
        "augmentation": [str, nn.Module, None],
        "n_views": [Interval(Integral, 1, None, closed="left")],
        "n_test_views": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }
    # Routed to the wrapped classifier, and not used here.
    __metadata_request__fit: ClassVar[dict] = {"sample_weight": UNUSED}

    def __init__(
        self, estimator, *, augmentation="crop", n_views=4, n_test_views=4, random_state=0
    ):
        self.estimator = estimator
        self.augmentation = augmentation
        self.n_views = n_views
        self.n_test_views = n_test_views
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, sample_weight=None, **fit_params):
        """Fit the classifier on views of the images.

        Parameters
        ----------
        X : array-like of images
            See :func:`sktransfer.images.check_images`.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Class labels, or label indicators where the classifier takes them.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of images; each view has the weight of its image. In a pipeline they go to
            the last step. A stack of pipelines takes them with metadata routing, from heads with
            ``set_fit_request(sample_weight=True)``.
        **fit_params
            Further arguments for ``fit`` of the classifier; what has a row for each image is
            repeated for its views. With metadata routing enabled they are routed.

        Returns
        -------
        AugmentedClassifier
            The fitted classifier.

        Raises
        ------
        ValueError
            If the augmentation is unknown or does not work, or if the classifier splits rows by itself
            in a way that would part views of one image, or cannot take sample weights to the
            pipelines in it.
        ImageReadError
            If images cannot be read and the embedder is told to raise.
        """
        images = check_images(X)
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but y is None.")
        check_consistent_length(images, y, sample_weight)
        check_classification_targets(y)
        self._augmentation = resolve_augmentation(self.augmentation)
        self._several_labels = type_of_target(y) == "multilabel-indicator"
        self.seed_ = self._draw_seed()
        if self._augmentation is not None and max(self.n_views, self.n_test_views) > 1:
            check_augmentation(self._augmentation, images, self.seed_, MAX_PIXELS)
        fit_params = self._route(sample_weight, fit_params)
        self.estimator_ = clone(self.estimator)
        if self._augmentation is None or self.n_views == 1:
            self.estimator_.fit(X, y, **fit_params)
        else:
            self._fit_on_views(X, images, y, fit_params)
        self.classes_ = getattr(self.estimator_, "classes_", None)
        if self.classes_ is None:
            self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        """Predict classes.

        Parameters
        ----------
        X : array-like of images
            See :func:`sktransfer.images.check_images`.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
            The most probable class on average over the views, or each label that is more
            probable than not.
        """
        check_is_fitted(self)
        if self._n_test_views() == 1:
            return self.estimator_.predict(X)
        if hasattr(self.estimator_, "predict_proba"):
            return self._decide(self.predict_proba(X), boundary=0.5)
        if hasattr(self.estimator_, "decision_function"):
            return self._decide(self.decision_function(X), boundary=0.0)
        raise ValueError(
            f"n_test_views={self.n_test_views} averages what predict_proba or decision_function say, and "
            f"{type(self.estimator_).__name__} has neither. Set n_test_views=1, or calibrate it with "
            "CalibratedClassifierCV."
        )

    @available_if(_inner_has("predict_proba"))
    def predict_proba(self, X):
        """Predict probabilities, averaged over the views.

        Parameters
        ----------
        X : array-like of images
            See :func:`sktransfer.images.check_images`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Columns in the order of ``classes_``.
        """
        return self._average("predict_proba", X)

    @available_if(_inner_has("decision_function"))
    def decision_function(self, X):
        """Return the classifier's decision values, averaged over the views.

        Parameters
        ----------
        X : array-like of images
            See :func:`sktransfer.images.check_images`.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
            As the classifier gives them.
        """
        return self._average("decision_function", X)

    def get_metadata_routing(self):
        """Return how metadata reaches the wrapped classifier.

        Returns
        -------
        sklearn.utils.metadata_routing.MetadataRouter
            What ``fit`` is given goes to ``fit`` of the classifier.
        """
        return MetadataRouter(owner=self).add(
            estimator=self.estimator,
            method_mapping=MethodMapping().add(caller="fit", callee="fit"),
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.input_tags = inner.input_tags
        tags.target_tags = inner.target_tags
        if inner.classifier_tags is not None:
            tags.classifier_tags = inner.classifier_tags
        return tags

    def _draw_seed(self):
        if isinstance(self.random_state, Integral):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _route(self, sample_weight, fit_params):
        """Arguments of the classifier's ``fit``, one row for each image as yet."""
        if sample_weight is not None:
            fit_params = {**fit_params, "sample_weight": sample_weight}
        if _routing_enabled():
            return dict(process_routing(self, "fit", **fit_params).estimator.fit)
        if sample_weight is not None:
            fit_params[_weight_parameter(self.estimator)] = fit_params.pop("sample_weight")
        return fit_params

    def _fit_on_views(self, X, images, y, fit_params):
        rows = np.repeat(np.arange(len(images)), self.n_views)
        bind_splits(self.estimator_, self.n_views, len(rows), self.seed_)
        repeated = {
            name: _safe_indexing(value, rows) if _has_rows(value, len(images)) else value
            for name, value in fit_params.items()
        }
        with _problems_of_images(images):
            views = self._views(X, images, self.n_views)
            self.estimator_.fit(views, _safe_indexing(y, rows), **repeated)

    def _views(self, X, images, n_views):
        """Views of all images, as a column where X is one."""
        views = make_views(
            images,
            self._augmentation,
            n_views,
            self.seed_,
            root=_cache_root(self.estimator_),
            n_threads=thread_share(),
        )
        return views.reshape(-1, 1) if _is_column(X) else views

    def _n_test_views(self):
        return 1 if self._augmentation is None else self.n_test_views

    def _average(self, method, X):
        check_is_fitted(self)
        predict, n_views = getattr(self.estimator_, method), self._n_test_views()
        if n_views == 1:
            return predict(X)
        images = check_images(X)
        with _problems_of_images(images):
            values = predict(self._views(X, images, n_views))
        if not hasattr(values, "reshape"):
            raise ValueError(
                f"{type(self.estimator_).__name__}.{method} gives a list with an array for each "
                "label, which n_test_views cannot average. Set n_test_views=1, or take HeadClassifier."
            )
        values = np.asarray(values)
        return values.reshape(len(images), n_views, *values.shape[1:]).mean(axis=1)

    def _decide(self, values, boundary):
        """Classes for averaged probabilities or decision values."""
        if values.ndim == 1:
            return self.classes_[(values > boundary).astype(int)]
        if self._several_labels:
            return (values > boundary).astype(int)
        return self.classes_[values.argmax(axis=1)]


def _weight_parameter(estimator):
    """Name under which ``fit`` of a classifier takes sample weights."""
    if isinstance(estimator, Pipeline):
        name, last = estimator.steps[-1]
        return f"{name}__{_weight_parameter(last)}"
    _refuse_weights_in_pipelines(estimator)
    return "sample_weight"


def _refuse_weights_in_pipelines(estimator):
    """Check that weights do not get lost, or rejected, on the way to pipelines deep inside."""
    inside = estimator.get_params(deep=True).values() if hasattr(estimator, "get_params") else ()
    if not type(estimator).__module__.startswith("sklearn.") or not any(
        isinstance(value, Pipeline) for value in inside
    ):
        return
    raise ValueError(
        f"{type(estimator).__name__} cannot pass sample_weight to the heads of the pipelines in it "
        "unless it is told to. First type sklearn.set_config(enable_metadata_routing=True), and "
        "build it from heads that ask for weights: "
        "HeadClassifier().set_fit_request(sample_weight=True). Or leave sample_weight out, and set "
        'class_weight="balanced" in the heads where classes are to count the same.'
    )


def _has_rows(value, n_rows):
    return _is_arraylike(value) and _num_samples(value) == n_rows


def _is_column(X):
    """Whether X is a column, as ``BaggingClassifier`` asks for."""
    return hasattr(X, "columns") or (isinstance(X, np.ndarray) and X.ndim == 2)


def _cache_root(estimator):
    """Where the first embedder inside keeps what it stores, and knows files from."""
    for name, value in estimator.get_params(deep=True).items():
        if name.rpartition("__")[2] == "cache" and isinstance(value, (bool, str, os.PathLike)):
            return resolve_cache_root(value)
    return None


@contextmanager
def _problems_of_images(images):
    """Let errors about views name the images, each of them once."""
    try:
        yield
    except ImageReadError as error:
        raise ImageReadError(_merged(error.errors, images), error.advice) from None


def _merged(problems, images):
    if not all(isinstance(problem.path, ViewName) for problem in problems):
        return problems  # of images that no views were made of, such as X_val
    reasons = {problem.path.row: problem.reason for problem in reversed(problems)}
    return [(row, image_name(images[row]), reasons[row]) for row in sorted(reasons)]
