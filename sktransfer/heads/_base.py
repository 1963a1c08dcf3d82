"""What heads have in common: an estimator around one net that trains on embeddings."""

from dataclasses import dataclass, field
from numbers import Integral, Real
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.model_selection import check_cv
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch.nn.modules.batchnorm import _BatchNorm

from .._training._parameters import (
    CONSTRAINTS,
    LARGEST,
    check_no_images,
    check_readable,
    check_validation,
    check_weight,
)
from .._training._random import seeded
from .._training._samples import (
    PREDICTION_BATCH,
    EmbeddingDataset,
    Samples,
    class_factors,
    moments,
    relative_weight,
    split_groups,
)
from .._training._targets import clean_labels
from .._training._weights import load_arrays, to_arrays
from .._utils._devices import resolve_device
from .._utils._sklearn import HasMethods, Interval, StrOptions, fit_context
from .._utils._tasks import ReportsTasks
from .._utils._typing import ArrayLike, Seed
from ..images import holds_images
from ._building import (
    OPTIMIZERS,
    STRUCTURE,
    build_module,
    build_net,
    check_structure,
    kernels_for,
    resolve_lr,
    resolve_weight_decay,
)
from ._modules import ACTIVATIONS

#: Embeddings that take no more than this are moved to the device once, and not batch by batch.
RESIDENT_BYTES = 2 * 1024**3


@dataclass(kw_only=True, repr=False, eq=False)
class BaseHead(ReportsTasks, BaseEstimator):
    """Base of the heads.

    A subclass has the methods ``_clean(y, name)``, ``_learn(y, weight)``, which keeps and returns
    the targets, ``_targets()`` of a fitted head, and ``_loss()``.
    """

    hidden_units: int | tuple[int, ...] | None = field(default=(), kw_only=False)
    dropout: float = 0.0
    batch_norm: bool = False
    activation: str = "relu"
    scaling: str | None = "global"
    module: Any = None
    module_params: dict | None = None
    optimizer: Any = "adam"
    optimizer_params: dict | None = None
    lr: float | str = "auto"
    weight_decay: float | str = "auto"
    lr_schedule: Any = "cosine"
    lr_schedule_params: dict | None = None
    max_epochs: int = 50
    batch_size: int = 128
    early_stopping: bool = False
    validation_fraction: float = 0.1
    validation_splitter: Any = None
    scoring: str = "loss"
    n_iter_no_change: int = 10
    tol: float = 1e-4
    callbacks: list | None = None
    device: str | torch.device = "auto"
    random_state: Seed = None
    verbose: int = 0

    # As group splitters do: MultiViewClassifier passes groups, also through a pipeline.
    __metadata_request__fit: ClassVar[dict] = {"groups": True}

    _parameter_constraints: ClassVar[dict] = {
        **CONSTRAINTS,
        "hidden_units": [Integral, tuple, list, None],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "batch_norm": ["boolean"],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "scaling": [StrOptions({"global", "feature"}), None],
        "module": [callable, None],
        "module_params": [dict, None],
        "optimizer": [StrOptions(set(OPTIMIZERS)), callable],
        "optimizer_params": [dict, None],
        "lr": [Interval(Real, 0, LARGEST, closed="neither"), StrOptions({"auto"})],
        "weight_decay": [Interval(Real, 0, LARGEST, closed="left"), StrOptions({"auto"})],
        "lr_schedule": [
            StrOptions({"cosine", "warmup_cosine", "one_cycle", "step", "exponential", "plateau"}),
            callable,
            None,
        ],
        "lr_schedule_params": [dict, None],
        "validation_splitter": [HasMethods("split"), "array-like", HasMethods("__iter__"), None],
    }

    #: Whether targets are numbers to predict.
    _y_numeric = False

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        groups: ArrayLike | None = None,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
    ) -> Self:
        """Train for up to ``max_epochs`` epochs.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings; used as float32.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets: class labels of any type or an indicator matrix of zeros and ones for a
            classifier, numbers for a regressor.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights. Samples of weight zero are left out.
        groups : array-like of shape (n_samples,), default=None
            Group of each sample, such as the image that samples are views of. A group stays on
            one side of the validation split, and ``weight_decay="auto"`` uses one sample of it.
        X_val : array-like of shape (n_val, n_features), default=None
            Embeddings to validate on after each epoch.
        y_val : array-like of shape (n_val,) or (n_val, n_outputs), default=None
            Their targets.

        Returns
        -------
        object
            The fitted head itself.

        Raises
        ------
        ValueError
            If ``X`` has NaN or infinity, there is only one class, or there are too few samples
            for a validation fraction.
        TrainingDivergedError
            If the loss is no longer a finite number.
        """
        X, y, weight = self._check_data(X, y, sample_weight, reset=True)
        targets = self._learn(y, weight)
        for name in ("_net", "_module", "_weights"):
            vars(self).pop(name, None)  # they would not fit the new targets if this fit failed
        self._seed = check_random_state(self.random_state).randint(2**31 - 1)
        group = np.arange(len(X))
        if groups is not None:
            check_consistent_length(X, groups)
            group = np.unique(clean_labels(groups, "groups"), return_inverse=True)[1]
        train, valid = Samples(X, targets.encode(y), weight, group), None
        check_validation(X_val, y_val)
        if X_val is not None:
            if holds_images(X_val):
                raise TypeError(
                    "X_val holds images, but a pipeline embeds only X for its last step. Set "
                    "early_stopping=True with validation_fraction or with validation_splitter, "
                    "which split X by index. Or pass embeddings: "
                    "head__X_val=pipeline[:-1].fit(X).transform(X_val)."
                )
            X_val, y_val, even = self._check_data(X_val, y_val, None, reset=False, name="y_val")
            valid = Samples(X_val, targets.encode(y_val, "y_val"), even, np.arange(len(X_val)))
        elif self.validation_splitter is not None:
            first, second = self._first_split(X, y, groups)
            if np.intersect1d(group[first], group[second]).size:
                raise ValueError(
                    f"validation_splitter={self.validation_splitter!r} puts samples of one group, "
                    "such as views of one image, on both sides. Pass a splitter that keeps groups "
                    "together, such as GroupShuffleSplit, or use early_stopping=True with "
                    "validation_fraction."
                )
            train, valid = train.take(first), train.take(second)
        train, valid = self._weighted(train, valid, targets)
        if valid is None and self.early_stopping:
            strata = targets.strata(train.y)
            parts = split_groups(train.group, strata, self.validation_fraction, self._seed)
            train, valid = map(train.take, parts)
        net = self._new_net(train, targets)

        def fitted(net):
            """Return the attributes of a head that predicts with a net in training."""
            return {"_module": net.module_.eval(), "_net": net}

        with self._fit_task(X, y, self.max_epochs) as context:
            self._train(
                net,
                train,
                valid,
                epochs=self.max_epochs,
                lr_schedule=self.lr_schedule,
                lr_schedule_params=self.lr_schedule_params,
                tasks=context and (self, context, X, y, fitted),
            )
        net.optimizer_.state.clear()  # twice the size of the weights with Adam
        return self

    def _partial_fit(self, X, y, sample_weight, learn):
        """Train for an epoch; in the first call, ``learn(y, weight)`` returns the targets."""
        unfit = {
            "early_stopping": self.early_stopping,
            "validation_splitter": self.validation_splitter is not None,
            'class_weight="balanced"': getattr(self, "class_weight", None) == "balanced",
        }
        if any(unfit.values()):
            names = ", ".join(name for name, is_set in unfit.items() if is_set)
            raise ValueError(
                f"partial_fit sees only some of the samples at a time and cannot use {names}. "
                "Reset these parameters, or use fit."
            )
        first = not self.__sklearn_is_fitted__()
        X, y, weight = self._check_data(X, y, sample_weight, reset=first)
        targets = learn(y, weight) if first else self._targets()
        samples = Samples(X, targets.encode(y), weight, np.arange(len(X)))
        samples, _ = self._weighted(samples, None, targets)
        if first:
            self._seed = check_random_state(self.random_state).randint(2**31 - 1)
            net = self._new_net(samples, targets)
        else:
            check_structure(self, self._structure)
            net = self.net_
            net.lr = self.lr_ = resolve_lr(self, self.n_features_in_)
            net.batch_size = self.batch_size
            net.criterion_ = self._loss()
            for group in net.optimizer_.param_groups:
                group["lr"] = self.lr_
                if self.weight_decay != "auto" and any(p.ndim > 1 for p in group["params"]):
                    group["weight_decay"] = self.weight_decay_ = self.weight_decay
        self._train(net, samples, None, epochs=1)
        return self

    def __sklearn_is_fitted__(self):
        return "_module" in vars(self) or "_weights" in vars(self)  # no fit that failed leaves them

    @property
    def net_(self):
        """The trained skorch net, built again after loading."""
        check_is_fitted(self)
        if "_net" not in vars(self):
            module = self._live_module()
            net = build_net(self._as_built(), module, self._targets(), self._device())
            net.history.extend({"batches": [], **row} for row in self.history_)
            self._net = net
        return self._net

    def __getstate__(self):
        """Return parameters without callbacks, arrays, and values that JSON has."""
        state = {**super().__getstate__()}
        state.pop("_net", None)
        module = state.pop("_module", None)
        if module is not None:
            state["_weights"] = to_arrays(module)
        if "_weights" in state:
            state |= {"callbacks": None, "device": str(self.device), "history_": [*self.history_]}
        return state

    def _as_built(self):
        """Return the parameters with which the weights were made; others may be set by now."""
        resolved = {"lr": "auto", "weight_decay": "auto"}  # lr_ and weight_decay_ hold the values
        return SimpleNamespace(**{**vars(self), **self._structure, **resolved, "_loss": self._loss})

    def _device(self):
        try:
            return resolve_device(self.device)
        except ValueError:  # trained on a GPU, loaded on a machine without one
            return "cpu"

    def _live_module(self):
        """Return the network on its device; after loading, it is built from the arrays."""
        weights = vars(self).get("_weights")  # read first: another thread may build it, too
        module = vars(self).get("_module")
        if module is not None:
            return module
        scaling = [weights.get(f"scaling.{name}") for name in ("mean", "factor")]
        n_outputs = self._targets().n_outputs
        with torch.inference_mode(False):
            module = build_module(self._as_built(), self.n_features_in_, n_outputs, *scaling)
            load_arrays(module, weights, self._torch_version)
            self._module = module.to(self._device()).eval()
        vars(self).pop("_weights", None)
        return module

    def _logits(self, X):
        check_is_fitted(self)
        X = self._check_features(X, reset=False)
        X = torch.from_numpy(np.require(X, requirements=["C", "W"]))  # not read-only, for torch
        module = self._live_module()
        device = next((parameter.device for parameter in module.parameters()), "cpu")
        with kernels_for(len(X), module), torch.inference_mode():
            batches = X.split(PREDICTION_BATCH)
            return torch.cat([module(batch.to(device)).float().cpu() for batch in batches]).numpy()

    def _check_features(self, X, reset, **check):
        check_no_images(X, type(self).__name__)
        if isinstance(X, torch.Tensor):
            X = X.detach().cpu().float().numpy()
        if getattr(X, "ndim", 2) == 3:
            raise ValueError(
                f"X has shape {X.shape}; a head expects (n_samples, n_features). If the second "
                "axis holds views of each image, use MultiViewClassifier(HeadClassifier()) or "
                "MultiViewRegressor(HeadRegressor()), as make_transfer_pipeline(..., "
                f"n_views={X.shape[1]}) does."
            )
        checked = validate_data(
            self, X, reset=reset, dtype=np.float32, ensure_all_finite=False, **check
        )
        rows = checked[0] if check else checked
        if np.isfinite(rows).all():
            return checked
        check_readable(rows)
        raise ValueError("Input X contains infinity or a value too large for dtype('float32').")

    def _check_data(self, X, y, sample_weight, reset, name="y"):
        """Return features as float32, targets as an array, and weights."""
        y = self._clean(y, name)
        X, y = self._check_features(X, reset, y=y, multi_output=True, y_numeric=self._y_numeric)
        return X, y, check_weight(sample_weight, len(X))

    def _first_split(self, X, y, groups):
        """Return the indices of training and validation samples, as a splitter chooses them."""
        splitter = self.validation_splitter
        try:
            parts = next(iter(check_cv(splitter).split(X, y, groups)))
            first, second = (np.atleast_1d(np.arange(len(X))[part]) for part in parts)
            if not (first.size and second.size):
                raise ValueError("a side is empty")
            return first, second
        except (TypeError, ValueError, IndexError, OverflowError) as error:
            raise ValueError(
                f"validation_splitter={splitter!r} makes no split: {error}. Pass a splitter of "
                "scikit-learn, or a list of pairs of index arrays (train, validation)."
            ) from error
        except StopIteration:
            raise ValueError(
                f"validation_splitter={splitter!r} yields no split. A generator yields its splits "
                "only once: pass a splitter, or a list of (train, validation) pairs."
            ) from None

    def _weighted(self, train, valid, targets):
        """Drop samples of weight zero, and multiply weights by those of the classes."""
        train = train.take(train.weight > 0)
        if valid is not None:
            valid = valid.take(valid.weight > 0)
            if not len(valid.X):
                raise ValueError("No validation sample has a positive weight.")
        class_weight = getattr(self, "class_weight", None)  # regressors have none
        if class_weight is None:
            return train, valid
        factors = class_factors(class_weight, targets.classes, train.y, train.weight)
        return tuple(
            part and part._replace(weight=part.weight * factors[part.y]) for part in (train, valid)
        )

    def _new_net(self, samples, targets):
        """Return a net with new weights."""
        self._structure = {name: getattr(self, name) for name in STRUCTURE}
        mean = scale = None
        if self.scaling is not None:
            mean, variance = moments(samples.X, samples.weight)
            scale = np.sqrt(variance.mean() if self.scaling == "global" else variance)
            scale = np.where(scale > 0, scale, 1.0)
        n_features = samples.X.shape[1]
        module = build_module(self, n_features, targets.n_outputs, mean, scale)
        if samples.y.ndim == 2 and targets.classes is not None and self.module is None:
            # A rare label would take longer than the training to move away from one half.
            share = np.average(samples.y, axis=0, weights=samples.weight).clip(0.001, 0.999)
            module.network[-1].bias.data = torch.tensor(np.log(share / (1 - share))).float()
        self.lr_ = resolve_lr(self, n_features)
        self.weight_decay_ = resolve_weight_decay(self, samples, targets, mean, scale)
        return build_net(self, module, targets, resolve_device(self.device))

    def _train(self, net, train, valid, **params):
        """Train a net and keep it."""
        from .._training._net import train as train_net

        has_batch_norm = any(isinstance(m, _BatchNorm) for m in net.module_.modules())
        if has_batch_norm and min(self.batch_size, len(train.X)) == 1:
            raise ValueError(
                "Batch normalization needs two samples in every training batch; there are "
                f"{len(train.X)} samples and batch_size={self.batch_size}. Give more samples at a "
                "time, raise batch_size, or set batch_norm=False."
            )
        n_together = min(self.batch_size, len(train.X))
        with seeded(self._seed, net.device), kernels_for(n_together, net.module_):
            self.best_epoch_ = train_net(
                net,
                _dataset(train, net),
                valid and _dataset(valid, net),
                self,
                rates=f"the learning rate lr={self.lr_:g}",
                description=f"Head of {train.X.shape[1]} features, {len(train.X)} samples",
                callbacks=self.callbacks,
                **params,
            )
        net.module_.eval()
        if net.interrupted_:
            raise KeyboardInterrupt
        if not self.__sklearn_is_fitted__():
            self.history_ = []
        self.history_ += net.rows(len(self.history_))  # copying all would slow down partial_fit
        self._net, self._module = net, net.module_
        self.n_epochs_, self._torch_version = len(self.history_), str(torch.__version__)


def _dataset(samples, net):
    """Return samples as tensors, scaled once, and on the device if they fit there with ease."""
    X = net.module_.scale_(torch.tensor(samples.X))
    weight = relative_weight(samples.weight)
    tensors = [X, torch.from_numpy(samples.y), weight if weight is None else torch.tensor(weight)]
    if X.nbytes <= RESIDENT_BYTES:
        tensors = [t if t is None else t.to(net.device) for t in tensors]
    return EmbeddingDataset(*tensors, is_scaled=True)
