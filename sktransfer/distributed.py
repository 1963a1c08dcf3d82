"""Embed with other engines, on other machines, and into files larger than memory."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone

from .embedder import ImageEmbedder, run_embedder
from .exceptions import ImageReadError
from .images import check_images, image_problems

if TYPE_CHECKING:
    import torch

__all__ = ["EmbedBatch"]


class EmbedBatch:
    """Add a column of embeddings to a batch: one callable for Ray, Dask, Spark and `datasets`.

    The object is small and can be pickled. A process loads the network when it has to embed, and
    keeps it for later batches. Device and engine are chosen there.

    Parameters
    ----------
    backbone : str, torch.nn.Module or ImageEmbedder, default="tiny_mobilenet"
        What embeds: a backbone as in `ImageEmbedder`, or an embedder with other parameters, such
        as ``ImageEmbedder("resnet50", device="cuda", cache=None)``.
    column : str, default="path"
        Column with the images: paths, encoded bytes, or others that `ImageEmbedder` takes.
    output : str, default="embedding"
        Column for the embeddings; one of this name is replaced.
    on_error : {"null", "raise"}, default="null"
        Whether the embedding of an unreadable image is null, or an error names these images once
        the others are embedded.

    See Also
    --------
    sktransfer.merge_caches : Join the caches of several machines.

    Examples
    --------
    >>> from sktransfer.datasets import make_shapes
    >>> from sktransfer.distributed import EmbedBatch
    >>> batch = {"image": make_shapes(2, random_state=0).data, "id": [7, 8]}
    >>> embedded = EmbedBatch("tiny_mobilenet", column="image")(batch)
    >>> embedded["id"], embedded["embedding"][0].shape
    ([7, 8], (576,))
    """

    def __init__(
        self,
        backbone: str | torch.nn.Module | ImageEmbedder = "tiny_mobilenet",
        *,
        column: str = "path",
        output: str = "embedding",
        on_error: str = "null",
    ) -> None:
        if on_error not in ("null", "raise"):
            raise ValueError(f'on_error={on_error!r}: expected "null" or "raise".')
        self.embedder = check_rows(
            backbone if isinstance(backbone, ImageEmbedder) else ImageEmbedder(backbone)
        )
        self.column, self.output, self.on_error = column, output, on_error

    def __call__(self, batch: Any) -> Any:
        """Return the batch with a column of embeddings.

        Parameters
        ----------
        batch : dict of columns, pandas.DataFrame, pyarrow.Table or pyarrow.RecordBatch
            The batch; it stays as it is.

        Returns
        -------
        dict, pandas.DataFrame, pyarrow.Table or pyarrow.RecordBatch
            Of the same kind. In a dict and a frame, an embedding is an array of float32 or None; in
            a table, a list of fixed size or null.

        Raises
        ------
        ImageReadError
            If images cannot be read and `on_error` is ``"raise"``.
        """
        is_mapping, is_arrow = isinstance(batch, Mapping), hasattr(batch, "append_column")
        if not (is_mapping or is_arrow or hasattr(batch, "assign")):
            raise TypeError(
                f"The batch is a {type(batch).__name__}; expected a dict of columns, a pandas "
                "DataFrame, or a table or record batch of pyarrow."
            )
        columns = list(batch if is_mapping else getattr(batch, "column_names", batch.columns))
        if self.column not in columns:
            raise ValueError(
                f"The batch has no column {self.column!r}; it has {columns}. Pass "
                "EmbedBatch(column=...)."
            )
        images = batch[self.column]
        images = check_images(images) if len(images) else []
        embedder = clone(self.embedder).fit(images or [b""])
        rows, failures = np.empty((0, embedder.n_features_out_), np.float32), {}
        if images:
            rows, failures = run_embedder(embedder, images)
        if failures and self.on_error == "raise":
            advice = 'remove these images, or pass EmbedBatch(on_error="null").'
            raise ImageReadError(image_problems(images, failures), advice)
        if is_arrow:
            if self.output in columns:
                batch = batch.drop_columns([self.output])
            return batch.append_column(self.output, arrow_rows(rows, failures))
        rows = [None if index in failures else row for index, row in enumerate(rows)]
        if not is_mapping:
            return batch.assign(**{self.output: rows})
        batch = copy.copy(batch)  # not dict(batch): `datasets` decodes columns that are read
        batch[self.output] = rows
        return batch


def check_rows(embedder):
    """Return an embedder that gives one row for each image; refuse others."""
    if embedder.n_views != 1 or embedder.n_test_views not in (None, 1):
        raise ValueError(
            f"The embedder has n_views={embedder.n_views} and n_test_views="
            f"{embedder.n_test_views}; expected 1, for one embedding per image."
        )
    return embedder


def arrow_rows(rows, failures):
    """Return rows as an Arrow array of lists of one size, null where an image failed."""
    import pyarrow as pa

    mask = np.zeros(len(rows), dtype=bool)
    mask[list(failures)] = True
    return pa.FixedSizeListArray.from_arrays(
        pa.array(rows.reshape(-1)), rows.shape[1], mask=pa.array(mask)
    )
