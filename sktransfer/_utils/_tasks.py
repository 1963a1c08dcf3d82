"""The tasks of a fit, for the callbacks of scikit-learn."""

from contextlib import contextmanager

from sklearn.base import BaseEstimator

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:  # scikit-learn < 1.9
    CallbackSupportMixin = object


class ReportsTasks(CallbackSupportMixin):
    """Mixin for estimators that report the tasks of `fit` to callbacks, which are not pickled."""

    @contextmanager
    def _fit_task(self, X, y, max_subtasks=0):
        """Report a fit, which ends fitted; provide its context, None without callbacks."""
        if not hasattr(self, "_init_callback_context"):
            yield None
            return
        context = self._init_callback_context(max_subtasks=max_subtasks)
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        yield context
        context.call_on_fit_task_end(estimator=self, X=X, y=y, reconstruction_attributes=dict)

    def __getstate__(self):
        state = {**super().__getstate__()}
        state.pop("_skl_callbacks", None)
        return state

    __getstate__.__doc__ = BaseEstimator.__getstate__.__doc__


@contextmanager
def subtask(estimator, context, sub_estimator):
    """Report that an estimator fits another one, if the context is not None."""
    if context is None:
        yield
        return
    task = context.subcontext("fit estimator")
    with task.propagate_callback_context(sub_estimator):
        task.call_on_fit_task_begin(estimator=estimator)
        yield
        task.call_on_fit_task_end(estimator=estimator)
