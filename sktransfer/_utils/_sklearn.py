"""Every private name of scikit-learn that this package uses; imported nowhere else."""

# ruff: noqa: F401

from sklearn.base import _fit_context as fit_context
from sklearn.utils import _param_validation as param_validation
from sklearn.utils import _safe_indexing as safe_indexing
from sklearn.utils._metadata_requests import UNUSED
from sklearn.utils._metadata_requests import _routing_enabled as routing_enabled
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions, validate_params
from sklearn.utils.validation import _check_sample_weight as check_sample_weight
from sklearn.utils.validation import _estimator_has as estimator_has
from sklearn.utils.validation import _is_arraylike as is_arraylike
from sklearn.utils.validation import _num_samples as num_samples


def is_for_numbers(scorer):
    """Whether a scorer compares numbers, not classes."""
    return scorer._score_func.__module__ == "sklearn.metrics._regression"


def checked(**constraints):
    """Decorate a function: its arguments are checked as those of scikit-learn's functions."""
    return validate_params(constraints, prefer_skip_nested_validation=False)
