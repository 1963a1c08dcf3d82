"""How much of the tuned weights is kept: chosen by trials on images that they hold out."""

import numpy as np
from sklearn.model_selection import KFold, StratifiedKFold

#: What ``tuned_fraction="auto"`` chooses from, the most cautious first.
FRACTIONS = (0.0, 0.25, 0.5, 0.75, 1.0)

#: Each trial holds out another third of the images ...
N_TRIALS = 3

#: ... until so many images have been held out.
ENOUGH_IMAGES = 500

#: The fraction where fewer than two classes have enough images to hold some out.
FEW_IMAGES_FRACTION = 0.5

#: A fraction other than 0 must gain more standard errors in the trials. It is the best of four, so
#: it gains two by chance alone too often.
N_ERRORS = 3


def trial_parts(groups, strata, seed):
    """Yield the indices of the images that each trial trains on and holds out, if there are enough.

    Groups of equal images stay together, and each class is in all parts. Classes with too few
    images for that are never held out.
    """
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    splitter, common = KFold, np.arange(len(first))
    if strata is not None:
        splitter, strata = StratifiedKFold, strata[first]
        _, codes, sizes = np.unique(strata, return_inverse=True, return_counts=True)
        common = np.flatnonzero((sizes >= N_TRIALS)[codes])
        if np.sum(sizes >= N_TRIALS) < 2:
            return
        strata = strata[common]
    if len(common) < N_TRIALS:
        return
    folds = splitter(N_TRIALS, shuffle=True, random_state=seed)
    for _, held_out in folds.split(common, strata):
        mask = np.isin(group, common[held_out])
        yield np.flatnonzero(~mask), np.flatnonzero(mask)


def run_trials(try_out, parts, weight, verbose):
    """Return the best fraction, the accuracy of each one, and the training of the last trial.

    ``try_out(number, part, held_out)`` returns a `JointTraining` on a part of the images, and what
    `right_of_each` says about those held out.
    """
    training, right, judged = None, [], np.empty(0, dtype=int)
    for number, (part, held_out) in enumerate(parts, start=1):
        training = None  # frees memory
        training, shares = try_out(number, part, held_out)
        right.append(shares)
        judged = np.append(judged, held_out)
        if len(judged) >= ENOUGH_IMAGES:
            break
    fraction, scores = FEW_IMAGES_FRACTION, None
    if right:
        fraction, scores = choose_fraction(np.concatenate(right, axis=1), weight[judged], N_ERRORS)
    if verbose >= 2:
        print(f"tuned_fraction={fraction:g}, judged by {len(judged)} images")
    return fraction, scores, training


def right_of_each(training, data, y):
    """Return what share of the labels of each image a training predicts, for each fraction.

    The result has shape (n_fractions, n_samples); `y` has the encoded targets of the dataset.
    """
    right = []
    for fraction in FRACTIONS:
        training.mix(fraction)
        right.append((training.net.predict(data) == y).reshape(len(data), -1).mean(axis=1))
    return np.array(right)


def choose_fraction(right, weight, n_errors):
    """Return the best fraction, and the accuracy of each one on weighted samples.

    It is 0 unless the best one gains more than a number of standard errors over 0.
    """
    scores = right @ weight / weight.sum()
    best = int(scores.argmax())
    gains, gain = right[best] - right[0], scores[best] - scores[0]
    if gain <= n_errors * np.linalg.norm(weight * (gains - gain)) / weight.sum():
        best = 0
    return FRACTIONS[best], dict(zip(FRACTIONS, scores.tolist(), strict=True))
