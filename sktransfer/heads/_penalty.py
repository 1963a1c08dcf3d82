"""The L2 penalty of a linear head, from the rows that it is to learn on.

How strongly a linear classifier on embeddings should be penalised differs by a factor of thirty
from one set of images to the next. Training a head at each strength in each fold would find out;
so does ridge regression on the same rows, whose leave-one-out predictions have a closed form. Where
several rows are views of one image, they are left out together: with the others still there, any
image would be predicted well, and the weakest penalty would look best.
"""

import numpy as np

__all__ = ["MOST_ROWS", "ridge_of"]

#: Penalties of ridge regression that are tried, on rows with a mean squared norm of one.
STRENGTHS = 2.0 ** np.arange(-8, 6)

#: Rows that are looked at: more hardly change what is chosen, and cost their number cubed.
MOST_ROWS = 1000


def ridge_of(X, y, weight, image):
    """Choose the penalty of a linear head by leave-one-out accuracy of ridge regression [1]_.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features)
        Scaled rows; no more than `MOST_ROWS` are worth the time.
    y : ndarray of shape (n_rows,) or (n_rows, n_labels)
        Codes of classes, or indicators.
    weight : ndarray of shape (n_rows,)
        Weights, all of them positive.
    image : ndarray of shape (n_rows,)
        Numbers of the images that rows are views of; all rows of an image are left out at once.

    Returns
    -------
    float
        Factor of half the squared norm of the weights, beside the sum of the losses of all rows.

    References
    ----------
    .. [1] R. Rifkin and R. Lippert, "Notes on Regularized Least Squares", MIT-CSAIL-TR-2007-025,
       2007
    """
    share = weight / weight.sum()
    X = X.astype(np.float64)
    X -= share @ X
    norm = share @ (X**2).sum(axis=1)
    targets = y.astype(np.float64) if y.ndim == 2 else (y[:, None] == np.unique(y)).astype(float)
    if norm == 0:
        return curvature(y, targets)
    root = np.sqrt(share * len(X))[:, None]  # weighted least squares is plain on these rows
    values, vectors = np.linalg.eigh((X * root) @ (X * root).T / norm)
    centred = (targets - share @ targets) * root
    right = _right_class if np.all(targets.sum(axis=1) == 1) else _right_labels
    blocks = _blocks(image)
    hits = []
    for strength in STRENGTHS:
        kept = np.maximum(values, 0) / (np.maximum(values, 0) + strength)
        error = _left_out(kept, vectors, centred, root, blocks) / root
        hits.append(share @ right(targets - error, targets))
    return float(curvature(y, targets) * norm * _middle_of_the_best(np.array(hits)))


def curvature(y, targets):
    """Return the curvature of the loss where all classes are equally probable.

    That of the squared loss is one, so this is by what a penalty for the one becomes a penalty for
    the other.
    """
    n_classes = 2 if y.ndim == 2 else max(2, targets.shape[1])  # each label is a yes or no
    return (1 - 1 / n_classes) / n_classes


def _blocks(image):
    """Rows of each image: an array (n_samples, n_views) for each number of views there is."""
    _, group, counts = np.unique(image, return_inverse=True, return_counts=True)
    rows, views = np.argsort(group, kind="stable"), np.sort(counts[group])
    order = rows[np.argsort(counts[group][rows], kind="stable")]
    return [order[views == n].reshape(-1, n) for n in np.unique(counts)]


def _left_out(kept, vectors, centred, root, blocks):
    """Error of ridge regression on each row when its image has not been trained on."""
    error = centred - vectors @ (kept[:, None] * (vectors.T @ centred))
    for rows in blocks:
        of_rows = vectors[rows]
        influence = (of_rows * kept) @ of_rows.transpose(0, 2, 1)
        influence += root[rows] @ root[rows].transpose(0, 2, 1) / len(root)  # of the intercept
        rest = (1 + 1e-9) * np.eye(rows.shape[1]) - influence
        error[rows] = np.linalg.solve(rest, error[rows])
    return error


def _right_class(predicted, targets):
    """Whether each row's class would be predicted, 1 or 0."""
    return (predicted.argmax(axis=1) == targets.argmax(axis=1)).astype(float)


def _right_labels(predicted, targets):
    """Share of each row's labels that would be predicted right."""
    return ((predicted > 0.5) == (targets > 0.5)).mean(axis=1)


def _middle_of_the_best(hits):
    """Smooth over neighbours, and take the middle where several strengths are equally good."""
    smooth = np.convolve(np.pad(hits, 1, mode="edge"), np.ones(3) / 3, mode="valid")
    best = np.flatnonzero(smooth >= smooth.max() - 1e-9)
    return np.exp(np.log(STRENGTHS[best]).mean())
