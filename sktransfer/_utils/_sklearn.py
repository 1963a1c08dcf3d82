"""Every private name of scikit-learn that this package uses; imported nowhere else."""

from sklearn.base import _fit_context
from sklearn.utils import _safe_indexing
from sklearn.utils._metadata_requests import UNUSED, _routing_enabled
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions, validate_params
from sklearn.utils.multiclass import _check_partial_fit_first_call
from sklearn.utils.validation import _check_sample_weight, _is_arraylike, _num_samples

check_partial_fit_first_call = _check_partial_fit_first_call
check_sample_weight = _check_sample_weight
fit_context = _fit_context
is_arraylike = _is_arraylike
num_samples = _num_samples
routing_enabled = _routing_enabled
safe_indexing = _safe_indexing

__all__ = [
    "UNUSED",
    "HasMethods",
    "Interval",
    "StrOptions",
    "check_partial_fit_first_call",
    "check_sample_weight",
    "fit_context",
    "is_arraylike",
    "num_samples",
    "routing_enabled",
    "safe_indexing",
    "validate_params",
]
