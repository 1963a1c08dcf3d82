"""Any classifier or regressor, for samples that have several views."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, RegressorMixin, clone
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.multioutput import ClassifierChain, RegressorChain
from sklearn.pipeline import Pipeline
from sklearn.utils import check_consistent_length, get_tags
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from .._training._parameters import check_no_images, check_readable
from .._utils._sklearn import (
    UNUSED,
    HasMethods,
    estimator_has,
    fit_context,
    is_arraylike,
    num_samples,
    routing_enabled,
    safe_indexing,
)
from .._utils._tasks import ReportsTasks, subtask
from .._utils._threads import usable_kernels
from .._utils._typing import ArrayLike


class _MultiView(ReportsTasks, MetaEstimatorMixin):
    """What `MultiViewClassifier` and `MultiViewRegressor` have in common."""

    _parameter_constraints: ClassVar[dict] = {"estimator": [HasMethods(["fit", "get_params"])]}
    # Metadata goes to the wrapped estimator.
    __metadata_request__fit: ClassVar[dict] = {"sample_weight": UNUSED}
    __metadata_request__partial_fit: ClassVar[dict] = {"classes": UNUSED, "sample_weight": UNUSED}

    @fit_context(prefer_skip_nested_validation=False)
    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None, **fit_params: Any
    ) -> Self:
        """Fit the estimator on all views.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_views, n_features) or (n_samples, n_features)
            Views of each sample, or one row for each.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights; each view has the weight of its sample.
        **fit_params
            Further parameters of the estimator's ``fit``. Arrays with a value for each sample are
            repeated for its views, and ``X_val`` may have three dimensions as well.

        Returns
        -------
        object
            The fitted estimator itself.

        Raises
        ------
        ValueError
            If a regressor is given to a wrapper for classifiers or the reverse, or if the estimator
            would split views of one sample or has a decision threshold.
        """
        check_no_images(X, type(self).__name__)
        self._check_kind()
        params = self._route("fit", sample_weight, fit_params)
        if _n_views(X) is not None:
            self._check_splits_nothing()
            self._check_no_threshold()
            self._check_readable(X)
            groups = _groups_parameter(self.estimator)
            if groups is not None:
                params.setdefault(groups, np.arange(len(X)))
        rows, targets, params = _flatten(X, y, params)
        with self._fit_task(X, y, 1) as context:
            estimator = clone(self.estimator)
            with subtask(self, context, estimator):
                self.estimator_ = estimator.fit(rows, targets, **params)
        return self

    @available_if(estimator_has("partial_fit"))
    @fit_context(prefer_skip_nested_validation=False)
    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        **fit_params: Any,
    ) -> Self:
        """Train the estimator on another batch of samples.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_views, n_features) or (n_samples, n_features)
            Views of each sample, or one row for each.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets.
        classes : array-like of shape (n_classes,), default=None
            All classes; needed in the first call of a classifier.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights; each view has the weight of its sample.
        **fit_params
            Further parameters of the estimator's ``partial_fit``.

        Returns
        -------
        object
            The fitted estimator itself.
        """
        check_no_images(X, type(self).__name__)
        self._check_kind()
        params = self._route("partial_fit", sample_weight, fit_params)
        if classes is not None:  # no metadata: the same in each call
            params["classes"] = classes
        X, y, params = _flatten(X, y, params)
        if not hasattr(self, "estimator_"):
            self.estimator_ = clone(self.estimator)
        self.estimator_.partial_fit(X, y, **params)
        return self

    @property
    def n_features_in_(self):
        """Number of features of each view."""
        return self.estimator_.n_features_in_

    @property
    def feature_names_in_(self):
        """Names of the features."""
        return self.estimator_.feature_names_in_

    def get_metadata_routing(self) -> MetadataRouter:
        """Return how metadata reaches the wrapped estimator.

        Returns
        -------
        sklearn.utils.metadata_routing.MetadataRouter
            ``fit`` and ``partial_fit`` pass it to the same method of the estimator.
        """
        mapping = MethodMapping().add(caller="fit", callee="fit")
        mapping.add(caller="partial_fit", callee="partial_fit")
        return (
            MetadataRouter(owner=self)
            .add_self_request(self)
            .add(estimator=self.estimator, method_mapping=mapping)
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.input_tags, tags.target_tags = inner.input_tags, inner.target_tags
        tags.input_tags.three_d_array = True
        tags.classifier_tags = inner.classifier_tags or tags.classifier_tags
        tags.regressor_tags = inner.regressor_tags or tags.regressor_tags
        return tags

    def _route(self, method, sample_weight, params):
        if sample_weight is not None:
            params = {**params, "sample_weight": sample_weight}
        if routing_enabled():
            return dict(process_routing(self, method, **params).estimator[method])
        return dict(params)

    def _mean(self, method, X):
        check_is_fitted(self)
        predict, n_views = getattr(self.estimator_, method), _n_views(X)
        if n_views is None:
            return predict(X)
        self._check_readable(X)
        values = predict(_rows(X))
        if isinstance(values, list):  # one array for each output, as forests return
            return [_by_sample(value, n_views).mean(axis=1) for value in values]
        return _by_sample(values, n_views).mean(axis=1)

    def _check_kind(self):
        own, kind = (get_tags(each).estimator_type for each in (self, self.estimator))
        if {own, kind} == {"classifier", "regressor"}:
            raise ValueError(
                f"{type(self).__name__} takes a {own}, but {type(self.estimator).__name__} is a "
                f"{kind}. Use MultiView{kind.capitalize()}."
            )

    def _check_splits_nothing(self):
        for name, value in clone(self.estimator).get_params(deep=True).items():
            prefix, _, parameter = name.rpartition("__")
            if parameter == "cv" and not isinstance(value, str):  # "prefit" splits nothing
                split = self.estimator.get_params()[prefix] if prefix else self.estimator
                if value is None and isinstance(split, (ClassifierChain, RegressorChain)):
                    continue  # they split only if told to
                name, split = type(self).__name__, type(split).__name__
                raise ValueError(
                    f"{split} inside {name} would split single views, and put views of one image "
                    f"on both sides of a split. Put it around {name} instead, for example "
                    f'GridSearchCV({name}(...), {{"estimator__alpha": [0.1, 1.0]}}).'
                )

    def _check_readable(self, X):
        rows = _rows(X)
        if rows.dtype.kind == "f" and not get_tags(self.estimator).input_tags.allow_nan:
            check_readable(rows.reshape(X.shape))

    def _check_no_threshold(self):
        for part in (self.estimator, *self.estimator.get_params(deep=True).values()):
            if isinstance(part, (FixedThresholdClassifier, TunedThresholdClassifierCV)):
                name, threshold = type(self).__name__, type(part).__name__
                raise ValueError(
                    f"{threshold} inside {name} has no effect on means over views. Put it around "
                    f"{name} instead, or around the pipeline: "
                    f"{threshold}(make_transfer_pipeline(...))."
                )


class MultiViewClassifier(_MultiView, ClassifierMixin, BaseEstimator):
    """Train a classifier on all views of each sample, and average its predictions over views.

    The input has the shape ``(n_samples, n_views, n_features)``, which is what
    :class:`~sktransfer.ImageEmbedder` returns with ``n_views`` above 1. Each view is a training
    row of its own, with the target and the weight of its sample. What splits samples around this
    classifier sees images, never single views. Two-dimensional input passes unchanged.

    Parameters
    ----------
    estimator : classifier
        Any scikit-learn classifier of rows; ``fit`` clones it.

    Attributes
    ----------
    estimator_ : classifier
        The fitted classifier.
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    n_features_in_ : int
        Number of features of each view.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, if X has names that are all strings.

    See Also
    --------
    MultiViewRegressor : The same for numbers.
    sktransfer.make_transfer_pipeline : Inserts this classifier where there are views.
    sktransfer.ImageEmbedder : Embeds several views of each image.

    Notes
    -----
    Steps that take two dimensions only, such as ``StandardScaler``, belong inside:
    ``MultiViewClassifier(make_pipeline(StandardScaler(), LogisticRegression()))``.

    What splits its training data belongs around:
    ``GridSearchCV(MultiViewClassifier(LogisticRegression()), {"estimator__C": [0.1, 1.0]})``.
    ``fit`` refuses an estimator with a parameter ``cv``, and one with a decision threshold, such as
    ``FixedThresholdClassifier``, which belongs around as well. Switch off ``early_stopping`` of
    ``SGDClassifier`` and ``oob_score`` of forests, which split rows as well. A ``fit`` with a
    parameter ``groups``, as `HeadClassifier` has, receives the number of the sample of each row.

    ``LogisticRegression(C=1 / v)`` with v views corresponds to ``C=1.0`` without.

    ``predict`` uses the mean of ``predict_proba`` over views, or that of ``decision_function`` with
    one column for each class, or else takes the class that most views vote for.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sktransfer import MultiViewClassifier
    >>> X = np.random.default_rng(0).normal(size=(40, 4, 8))
    >>> y = (X.mean(axis=(1, 2)) > 0).astype(int)
    >>> model = MultiViewClassifier(LogisticRegression()).fit(X, y)
    >>> model.predict_proba(X).shape
    (40, 2)
    """

    def __init__(self, estimator: BaseEstimator) -> None:
        self.estimator = estimator

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Predict classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_views, n_features) or (n_samples, n_features)
            Views of each sample, or one row for each.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
            The class with the highest mean over views, or each label above the threshold.
        """
        check_is_fitted(self)
        if _n_views(X) is None:
            return self.estimator_.predict(X)
        self._check_no_threshold()  # after training with one view
        if hasattr(self.estimator_, "predict_proba"):
            values, threshold = self._mean("predict_proba", X), 0.5
        elif hasattr(self.estimator_, "decision_function") and not _is_one_vs_one(self.estimator_):
            values, threshold = self._mean("decision_function", X), 0.0
        else:
            return self._vote(X)
        if isinstance(values, list):
            codes = [value.argmax(axis=1) for value in values]
            return np.column_stack([c[i] for c, i in zip(self.classes_, codes, strict=True)])
        if self.estimator_.predict(_rows(X[:1])).ndim == 2:  # several labels
            return (values > threshold).astype(int)
        if values.ndim == 1:
            return self.classes_[(values > threshold).astype(int)]
        return self.classes_[values.argmax(axis=1)]

    @available_if(estimator_has("predict_proba"))
    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Predict probabilities, averaged over views.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_views, n_features) or (n_samples, n_features)
            Views of each sample, or one row for each.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), or list of such arrays
            In the form that the classifier returns.
        """
        return self._mean("predict_proba", X)

    @available_if(estimator_has("decision_function"))
    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Compute decision values, averaged over views.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_views, n_features) or (n_samples, n_features)
            Views of each sample, or one row for each.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
            In the form that the classifier returns.
        """
        return self._mean("decision_function", X)

    @property
    def classes_(self):
        """Class labels."""
        return self.estimator_.classes_

    def _vote(self, X):
        votes = _by_sample(self.estimator_.predict(_rows(X)), _n_views(X))
        if votes.ndim == 3:
            return (votes.mean(axis=1) > 0.5).astype(votes.dtype)
        counts = [(votes == label).sum(axis=1) for label in self.classes_]
        return self.classes_[np.argmax(counts, axis=0)]


class MultiViewRegressor(_MultiView, RegressorMixin, BaseEstimator):
    """Train a regressor on all views of each sample, and average its predictions over views.

    The same as :class:`MultiViewClassifier`, for numbers.

    Parameters
    ----------
    estimator : regressor
        Any scikit-learn regressor of rows; ``fit`` clones it.

    Attributes
    ----------
    estimator_ : regressor
        The fitted regressor.
    n_features_in_ : int
        Number of features of each view.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, if X has names that are all strings.

    See Also
    --------
    MultiViewClassifier : What to put inside and around.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import Ridge
    >>> from sktransfer import MultiViewRegressor
    >>> X = np.random.default_rng(0).normal(size=(40, 4, 8))
    >>> MultiViewRegressor(Ridge()).fit(X, X.mean(axis=(1, 2))).predict(X).shape
    (40,)
    """

    def __init__(self, estimator: BaseEstimator) -> None:
        self.estimator = estimator

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Predict numbers, averaged over views.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_views, n_features) or (n_samples, n_features)
            Views of each sample, or one row for each.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            In the form that the regressor returns.
        """
        return self._mean("predict", X)


def _n_views(X):
    """Number of views of each sample; None where X has a row for each sample."""
    return X.shape[1] if getattr(X, "ndim", 2) == 3 else None


def _rows(X):
    n_samples, n_views, n_features = X.shape
    if isinstance(X, torch.Tensor):  # NumPy has neither gradients nor bfloat16
        with usable_kernels():
            X = X.detach().cpu().to(torch.promote_types(X.dtype, torch.float32))
    return np.asarray(X).reshape(n_samples * n_views, n_features)


def _by_sample(values, n_views):
    values = np.asarray(values)
    return values.reshape(-1, n_views, *values.shape[1:])


def _flatten(X, y, params):
    """Give each view of a sample a row, also in ``X_val``."""
    params = dict(params)
    validation = {name for name in params if name.endswith(("X_val", "y_val"))}  # also step__X_val
    for name in validation:
        if (n_views := _n_views(params[name])) is not None:
            params[name], y_val = _rows(params[name]), f"{name[:-5]}y_val"
            if params.get(y_val) is not None:
                params[y_val] = np.repeat(params[y_val], n_views, axis=0)
    if _n_views(X) is None:
        return X, y, params
    check_consistent_length(X, y)
    sample_of = np.repeat(np.arange(len(X)), _n_views(X))
    for name in params.keys() - {"classes"} - validation:
        value = params[name]
        is_rows = is_arraylike(value) and not isinstance(value, (str, dict))
        if is_rows and num_samples(value) == len(X):
            params[name] = _repeat(value, sample_of)
    return _rows(X), None if y is None else _repeat(y, sample_of), params


def _repeat(values, sample_of):
    if hasattr(values, "__array__") and not hasattr(values, "iloc"):
        values = np.asarray(values)  # scikit-learn cannot index the extension arrays of pandas
    return safe_indexing(values, sample_of)


def _is_one_vs_one(estimator):
    """Whether decision values have a column for each pair of classes; three classes have three."""
    while isinstance(estimator, Pipeline):
        estimator = estimator[-1]
    is_ovo = getattr(estimator, "decision_function_shape", None) == "ovo"
    return is_ovo and len(estimator.classes_) > 2


def _groups_parameter(estimator):
    """Name under which ``fit`` takes groups of rows; None if it takes none."""
    name = "groups"
    while isinstance(estimator, Pipeline):
        step, estimator = estimator.steps[-1]
        name = name if routing_enabled() else f"{step}__{name}"
    return name if has_fit_parameter(estimator, "groups") else None
