"""Images of a PyTorch dataset with their labels."""

from typing import Any

from sklearn.utils import Bunch

from ._bunch import make_bunch


def load_image_dataset(dataset: Any) -> Bunch:
    """List the images and labels of a PyTorch dataset of pairs ``(image, label)``.

    An ``ImageFolder`` gives its paths, and nothing is decoded. Any other dataset is read once, and
    its images are kept in memory. Create it without ``transform``.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        Such as a dataset of torchvision, or a ``Subset`` of one. An image is of any kind, see
        :func:`~sktransfer.images.check_images`.

    Returns
    -------
    Bunch
        As from :func:`load_image_folder`. `data` has the images, or the paths of an
        ``ImageFolder``. Numbers of classes are replaced by the names in ``dataset.classes``.

    Raises
    ------
    TypeError
        If the dataset has no length or cannot be indexed, or an element is no pair.

    Examples
    --------
    >>> from sktransfer.datasets import load_image_dataset, make_shapes
    >>> shapes = make_shapes(n_samples=12, random_state=0)
    >>> pairs = list(zip(shapes.data, shapes.target))
    >>> load_image_dataset(pairs).target_names.tolist()
    ['circle', 'cross', 'square', 'triangle']
    """
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise TypeError(
            f"dataset={dataset!r} has no length or cannot be indexed; pass a PyTorch dataset. "
            "Hint: if it can only be iterated, pass list(dataset). For a DataLoader, pass "
            "loader.dataset."
        )
    source, rows = dataset, None
    while hasattr(source, "indices") and hasattr(source, "dataset"):  # a Subset
        rows = [source.indices[row] for row in (range(len(source)) if rows is None else rows)]
        source = source.dataset
    pairs = source
    if hasattr(source, "samples") and getattr(source, "target_transform", None) is None:
        pairs = source.samples  # (path, label) of an ImageFolder
    images, labels, classes = [], [], getattr(source, "classes", None)
    for row in range(len(pairs)) if rows is None else rows:
        pair = pairs[row]
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(
                f"dataset[{row}] is a {type(pair).__name__}; expected a pair (image, label). For a "
                'dataset of Hugging Face, pass dataset["image"] and dataset["label"] to fit.'
            )
        label = pair[1].item() if hasattr(pair[1], "item") else pair[1]
        images.append(pair[0])
        labels.append(classes[label] if classes is not None and isinstance(label, int) else label)
    return make_bunch(f"Images of the dataset {type(source).__name__}", images, labels)
