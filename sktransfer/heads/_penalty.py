"""The L2 penalty of a linear head, which differs by a factor of thirty between sets of images.

Ridge regression finds it quickly, because its leave-one-out predictions have a closed form.
"""

import numpy as np
import sklearn
from sklearn.linear_model import RidgeCV

#: Candidate penalties of ridge regression, for samples with a mean squared norm of one.
STRENGTHS = 2.0 ** np.arange(-8, 6)

#: More samples hardly change the choice, and the cost grows with the cube of their number.
MAX_SAMPLES = 1000


def choose_penalty(X, y, weight, curvature=None):
    """Choose the penalty of a linear head by leave-one-out predictions of ridge regression.

    `X` has at most `MAX_SAMPLES` scaled embeddings; `y` has codes of classes, or indicators; or
    numbers, if the `curvature` of their loss is given. Accuracy is best, or the squared error. The
    result is the factor of half the squared norm of the weights, added to the sum of the losses.
    """
    weight = weight / weight.mean()
    norm = np.average(((X - np.average(X, axis=0, weights=weight)) ** 2).sum(1), weights=weight)
    targets = y.astype(float) if y.ndim == 2 else (y[:, None] == np.unique(y)).astype(float)
    numbers, scores = curvature is not None, []
    if not numbers:
        n_classes = 2 if y.ndim == 2 else max(2, targets.shape[1])  # each label is binary
        # Curvature of the head's loss where all classes are equally probable. That of the squared
        # loss is one, so this factor converts the penalty of ridge regression into the head's.
        curvature = (1 - 1 / n_classes) / n_classes

    def score(_, predicted, given, **kwargs):
        """Record how good the predictions are at the next strength."""
        if numbers:
            right = -((predicted.reshape(targets.shape) - targets) ** 2).mean(axis=1)
        elif y.ndim == 2:
            right = ((predicted > 0.5) == (targets > 0.5)).mean(axis=1)
        else:
            right = predicted.argmax(axis=1) == targets.argmax(axis=1)
        scores.append(np.average(right, weights=weight))
        return scores[-1]

    if len(X) < 2 or norm == 0 or (targets.shape[1] < 2 and not numbers):
        scores = np.zeros(len(STRENGTHS))
    else:
        # RidgeClassifierCV(scoring="accuracy") is wrong for two classes and for several labels.
        with sklearn.config_context(enable_metadata_routing=False):
            RidgeCV(STRENGTHS * norm, scoring=score).fit(X, targets, sample_weight=weight)
    # Smooth over neighbors, and take the middle where several strengths are equally good.
    smooth = np.convolve(np.pad(scores, 1, mode="edge"), np.ones(3) / 3, mode="valid")
    best = STRENGTHS[smooth >= smooth.max() - 1e-9]
    return float(curvature * (norm or 1.0) * np.exp(np.log(best).mean()))
