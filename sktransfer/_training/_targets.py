"""What is predicted: from targets to the numbers of a loss, and back from the outputs of a net."""

import numpy as np
import torch
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from torch import nn
from torch.nn import functional


class WeightedLoss(nn.Module):
    """Weighted mean of ``losses(outputs, target, reduction=...)``."""

    def forward(self, outputs, target, weight=None):
        if weight is None:
            return self.losses(outputs, target, reduction="mean")
        losses = self.losses(outputs, target, reduction="none")
        return (losses.reshape(len(weight), -1).mean(dim=1) * weight).mean()


class ClassificationLoss(WeightedLoss):
    """Cross entropy of logits; label smoothing only in training, to compare validation losses."""

    def __init__(self, multilabel, label_smoothing):
        super().__init__()
        self.multilabel, self.label_smoothing = multilabel, label_smoothing

    def losses(self, logits, target, reduction):
        smoothing = self.label_smoothing if self.training else 0.0
        if not self.multilabel:
            return functional.cross_entropy(
                logits, target, reduction=reduction, label_smoothing=smoothing
            )
        target = target * (1.0 - smoothing) + 0.5 * smoothing
        return functional.binary_cross_entropy_with_logits(logits, target, reduction=reduction)


class RegressionLoss(WeightedLoss):
    """Squared error, or the Huber loss with a threshold of one standard deviation."""

    def __init__(self, loss):
        super().__init__()
        self.losses = functional.huber_loss if loss == "huber" else functional.mse_loss


class ClassTargets:
    """One class or several labels per sample; ``kind`` is that of `type_of_target`."""

    def __init__(self, kind, classes):
        self.kind, self.classes = kind, classes
        self.multilabel = kind == "multilabel-indicator"

    @classmethod
    def learn(cls, y, weight):
        """Find the classes in training targets; samples without weight count as known classes."""
        check_classification_targets(y)
        kind = type_of_target(y)
        if kind == "multilabel-indicator":
            return cls(kind, np.arange(y.shape[1]))
        if kind not in ("binary", "multiclass"):
            raise ValueError(
                f"Unknown label type: y is {kind!r}. Pass one class per sample, or an indicator "
                "matrix of zeros and ones with one column per label."
            )
        classes = np.unique(y[weight > 0])
        if len(classes) < 2:
            where = "" if (weight > 0).all() else " where weights are positive"
            raise ValueError(
                "A classifier needs samples of at least two classes, but y has only one class"
                f"{where}: {classes.tolist()[0]!r}. Check the labels, or add samples of another "
                "class. For cross-validation and stacks (which number the classes), use stratified "
                "folds, and no more folds than the smallest class has samples."
            )
        return cls(kind, np.unique(y))

    @property
    def n_outputs(self):
        return len(self.classes)

    def strata(self, codes):
        """Return the class of each sample, by which splits are stratified; None for no strata."""
        return None if self.multilabel else codes

    def encode(self, y, name="y"):
        """Return codes of classes (int64), or indicators (float32)."""
        if (y.ndim == 2) != self.multilabel or (y.ndim == 2 and y.shape[1] != len(self.classes)):
            raise ValueError(
                f"{name} has shape {y.shape}, but the classifier knows {len(self.classes)} "
                f"{'labels per sample' if self.multilabel else 'classes, one per sample'}."
            )
        if self.multilabel:
            if not np.isin(y, (0, 1)).all():
                raise ValueError(
                    f"{name} marks the labels of each sample by 0 and 1, but it contains "
                    f"{np.setdiff1d(y, (0, 1))[:10].tolist()}."
                )
            return y.astype(np.float32)
        try:
            unknown = np.setdiff1d(y, self.classes)
        except TypeError:  # strings and numbers cannot be compared
            unknown = np.unique(y)
        if len(unknown):
            raise ValueError(
                f"{name} has classes that the classifier does not know: {unknown[:10].tolist()}. "
                f"It knows {self.classes[:10].tolist()}{'...' if len(self.classes) > 10 else ''}. "
                "Fit with all classes; for partial_fit, name them all in the first call."
            )
        return np.searchsorted(self.classes, y)

    def probabilities(self, logits):
        """Turn a tensor of logits into probabilities."""
        return torch.sigmoid(logits) if self.multilabel else torch.softmax(logits, dim=1)

    def codes(self, logits):
        """Turn an array of logits into codes of classes, or indicators."""
        return (logits > 0).astype(int) if self.multilabel else logits.argmax(axis=1)

    def decide(self, logits):
        """Turn an array of logits into labels."""
        return self.codes(logits) if self.multilabel else self.classes[self.codes(logits)]

    def decode(self, y):
        """Return encoded targets in the form of `codes`."""
        return y

    def n_right(self, logits, target):
        """Count the samples of a batch that are classified correctly, with all their labels."""
        target = target.to(logits.device)
        if self.multilabel:
            return ((logits > 0) == (target > 0.5)).all(dim=1).sum()
        return (logits.argmax(dim=1) == target).sum()


class NumberTargets:
    """One or several numbers per sample, which a net sees with mean 0 and variance 1."""

    classes = probabilities = None  # outputs are predictions

    def __init__(self, mean, scale, ndim):
        self.mean, self.scale, self.ndim, self.n_outputs = mean, scale, ndim, len(mean)

    @classmethod
    def learn(cls, y, weight):
        """Find mean and standard deviation of training targets."""
        rows = y.reshape(len(y), -1)
        mean = np.average(rows, axis=0, weights=weight)
        scale = np.sqrt(np.average((rows - mean) ** 2, axis=0, weights=weight))
        if not np.isfinite(scale).all():
            raise ValueError("y has values that are too large. Divide them by a constant.")
        return cls(mean, np.where(scale > 1e-12 * np.abs(mean), scale, 1.0), y.ndim)

    def strata(self, y):
        return None

    def encode(self, y, name="y"):
        """Return scaled targets of shape (n_samples, n_outputs), float32."""
        if y.ndim != self.ndim or y[0].size != self.n_outputs:
            expected = "one number" if self.ndim == 1 else f"a row of {self.n_outputs} numbers"
            raise ValueError(
                f"{name} has shape {y.shape}, but the head was fitted to {expected} per sample."
            )
        return ((y.reshape(len(y), -1) - self.mean) / self.scale).astype(np.float32)

    def decide(self, outputs):
        """Turn outputs into predictions."""
        values = outputs * self.scale + self.mean
        return values[:, 0] if self.ndim == 1 else values

    codes = decode = decide


def clean_labels(y, name="y"):
    """Return labels as an array of one type; `name` is what an error calls them."""
    if y is None:
        return None  # scikit-learn has a message for that
    if isinstance(y, torch.Tensor):
        y = y.detach().cpu().numpy()
    if hasattr(y, "toarray"):
        y = y.toarray()
    if not isinstance(y, (list, tuple)):
        # An array of pandas turns pandas.NA into NaN, which is no class.
        has_missing = hasattr(y, "isna") and np.any(y.isna())
        y = np.asarray(y)
        if y.dtype != object and not has_missing:
            return y
    # NumPy silently turns the list [1, "a"] into strings.
    elements = np.asarray(y, dtype=object)
    kinds = {type(element) for element in elements.ravel()}
    if any(map(_is_missing, elements.ravel())):
        raise ValueError(
            f"{name} has missing values (None or NaN). Give every sample a label, or leave such "
            "samples out."
        )
    numbers = {kind for kind in kinds if issubclass(kind, (bool, int, float, np.number, np.bool_))}
    texts = {kind for kind in kinds if issubclass(kind, str)}
    if (numbers and kinds - numbers) or (texts and kinds - texts):
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise ValueError(
            f"{name} mixes labels of different types: {names}. Use one type, for example "
            f"{name}=[str(label) for label in {name}]."
        )
    if kinds - numbers - texts:
        raise ValueError(
            f"{name} has labels of the type {kinds.pop().__name__}. Pass strings, integers or "
            "booleans."
        )
    return y if texts and isinstance(y, np.ndarray) else np.asarray(elements.tolist())


def _is_missing(label):
    if label is None:
        return True
    try:
        return bool(label != label)
    except TypeError:  # pandas.NA
        return True
