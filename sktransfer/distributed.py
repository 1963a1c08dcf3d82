"""Embed with other engines, on other machines, and into files larger than memory."""

from __future__ import annotations

import copy
import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone
from tqdm.auto import tqdm

from ._utils._files import printable
from ._utils._optional import import_optional
from ._utils._sizes import size_text
from ._utils._sklearn import Interval, StrOptions, checked
from ._utils._typing import FilePath, Images
from .cache import EmbeddingCache, cache_info, resolve_cache_root
from .embedder import ImageEmbedder, network_of, returns_rows, run_embedder
from .exceptions import ImageReadError
from .images import check_images, digest_images, image_name, image_problems

if TYPE_CHECKING:
    import torch

__all__ = ["EmbedBatch", "write_embeddings"]


class EmbedBatch:
    """Add a column of embeddings to a batch: one callable for Ray, Dask, Spark and `datasets`.

    A batch is a dict of columns, a :class:`pandas.DataFrame`, or a table or record batch of
    pyarrow. An embedding is an array of float32 or None, or in pyarrow a list of fixed size or
    null. The object is small and can be pickled. A process loads the network when it first embeds,
    and chooses device and engine.

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
        Whether the embedding of an unreadable image is null, or an `ImageReadError` names these
        images once the others are embedded.

    See Also
    --------
    write_embeddings : Write the embeddings of many images to files, on one machine.
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
        """Embed the images of a batch.

        Parameters
        ----------
        batch : dict, pandas.DataFrame, pyarrow.Table or pyarrow.RecordBatch
            The batch, which stays as it is.

        Returns
        -------
        dict, pandas.DataFrame, pyarrow.Table or pyarrow.RecordBatch
            A copy of the batch with a column of embeddings.

        Raises
        ------
        TypeError
            If the batch is of another type.
        ValueError
            If it has no column ``column``.
        ImageReadError
            With ``on_error="raise"``, if an image cannot be read.
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
        rows, failures = run_embedder(clone(self.embedder).fit([b""]), images)
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


@checked(
    embedder=[ImageEmbedder],
    folder=[str, os.PathLike],
    rows_per_file=[Interval(Integral, 1, 10**7, closed="both")],
    dtype=[StrOptions({"float32", "float16"})],
    prefix=[str],
)
def write_embeddings(
    embedder: ImageEmbedder,
    X: Images | Iterator,
    folder: FilePath,
    *,
    rows_per_file: int = 4096,
    dtype: str = "float32",
    prefix: str = "part",
) -> int:
    """Write the embeddings of many images to a folder of Parquet files, in constant memory.

    Call it again after a kill: complete files are kept. Other embeddings are never overwritten.

    Parameters
    ----------
    embedder : ImageEmbedder
        It need not be fitted. `on_error` has no effect, and `verbose` shows a progress bar. With
        ``cache=None``, each embedding takes space only once.
    X : array-like or iterator of images
        See :func:`sktransfer.images.check_images`. Of an iterator, such as a generator, only the
        images of one file are in memory.
    folder : str or os.PathLike
        The folder, such as ``"embeddings.parquet"``. It is created if necessary.
    rows_per_file : int, default=4096
        Number of images in each file. It limits memory, and what a killed process has to repeat.
    dtype : {"float32", "float16"}, default="float32"
        Type of the numbers in the files.
    prefix : str, default="part"
        Beginning of the file names. Processes with different prefixes can write to one folder.

    Returns
    -------
    int
        Number of images that could not be read.

    Raises
    ------
    FileExistsError
        If a file in the folder has one of these names and holds other embeddings.
    OSError
        If the limit of the cache or the disk would be exceeded. If `X` has a length, this is found
        before the work begins.
    ValueError
        If `X` is empty, or the embedder returns several views.

    Notes
    -----
    Columns are ``path`` (null for an image in memory), ``digest`` (BLAKE2b of the content),
    ``embedding`` (list of fixed size) and ``error``, which is null where ``embedding`` is not. The
    order is that of `X`.

    Examples
    --------
    >>> import pyarrow.parquet
    >>> from sktransfer import ImageEmbedder
    >>> from sktransfer.datasets import make_shapes
    >>> from sktransfer.distributed import write_embeddings
    >>> images = iter(make_shapes(5, random_state=0).data)
    >>> write_embeddings(ImageEmbedder(cache=None), images, "shapes.parquet", rows_per_file=4)
    0
    >>> pyarrow.parquet.read_table("shapes.parquet").column_names
    ['path', 'digest', 'embedding', 'error']
    """
    pyarrow = import_optional("pyarrow", "parquet", "write_embeddings")
    from pyarrow.parquet import write_table

    folder = Path(folder).absolute()
    embedder = clone(check_rows(embedder)).fit([b""])
    network, root = network_of(embedder), resolve_cache_root(embedder.cache)
    n_images = None
    if not isinstance(X, Iterator):
        X = check_images(X)
        n_images = len(X)
        _check_room(folder, root, network, n_images, np.dtype(dtype).itemsize)
    folder.mkdir(parents=True, exist_ok=True)
    images, number, n_unreadable = iter(X), 0, 0
    with tqdm(desc=network.name, total=n_images, unit="image", disable=not embedder.verbose) as bar:
        while some := list(islice(images, rows_per_file)):
            some = check_images(some)
            digests = digest_images(some, root)
            file = folder / f"{prefix}-{number:06}.parquet"
            table = pyarrow.table(
                {
                    "path": _strings(map(image_name, some)),
                    "digest": pyarrow.array(
                        [digest if isinstance(digest, bytes) else None for digest in digests],
                        pyarrow.binary(20),
                    ),
                },
                metadata={"sktransfer": f"{network.key}|{dtype}"},
            )
            if (errors := _written_errors(file, table)) is None:
                rows, failures = run_embedder(embedder, some, digests=digests, progress=bar.update)
                errors = [str(failures[i]) if i in failures else None for i in range(len(some))]
                table = table.append_column("embedding", arrow_rows(rows.astype(dtype), failures))
                table = table.append_column("error", [_strings(errors)])
                part = file.with_name(f".{file.name}")  # readers of folders ignore it
                write_table(table, part, use_dictionary=False)
                part.replace(file)
            else:
                bar.update(len(some))
            n_unreadable += len(some) - errors.count(None)
            number += 1
    if not number:
        raise ValueError("X is empty: found 0 images, expected at least 1.")
    if (file := folder / f"{prefix}-{number:06}.parquet").exists():  # from a longer X
        raise _exists(file)
    return n_unreadable


def _strings(texts):
    """Return texts or None as an Arrow array; file names may contain anything."""
    import pyarrow as pa

    return pa.array(map(printable, texts), pa.string())


def _written_errors(file, table):
    """Return the errors in the file of a table; None if the file must be written."""
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(file) as written:
            found = written.read([*table.column_names, "error"])
    except (OSError, ArrowInvalid):  # missing or damaged
        return None
    same = found.schema.metadata == table.schema.metadata
    if same and found.select(table.column_names).equals(table):
        return found["error"].to_pylist()
    raise _exists(file)


def _exists(file):
    return FileExistsError(
        f"{file} holds other embeddings: it was written for other or changed images, or with "
        "another embedder, rows_per_file or dtype. Choose another folder, or delete this file or "
        "its whole folder, and call again."
    )


def _check_room(folder, root, network, n_images, itemsize):
    """Refuse to begin if the cache or the disk would certainly not suffice."""
    folder = next(path for path in (folder, *folder.parents) if path.exists())
    written = sum(file.stat().st_size for file in folder.glob("*.parquet"))
    needed = n_images * network.n_features * itemsize - written
    if needed > (free := shutil.disk_usage(folder).free):
        raise OSError(
            errno.ENOSPC,
            f"The embeddings of {n_images:,} images take {size_text(needed)} more, and the disk "
            f'has {size_text(free)} left. Choose another folder, or pass dtype="float16".',
            str(folder),
        )
    if root is not None:
        info = cache_info(root)
        path = EmbeddingCache(root, network.key, 1, network.description).path
        known = sum(file.n_rows or 0 for file in info.backbones if file.path == path)
        n_bytes = sum(file.n_bytes for file in info.backbones)
        n_bytes += max(0, n_images - known) * network.n_features * network.dtype().itemsize
        if n_bytes > info.limit:
            raise OSError(
                errno.ENOSPC,
                f"The embeddings in the cache would take {size_text(n_bytes)}, and its limit is "
                f"{size_text(info.limit)}. Pass an embedder with cache=None, or raise the limit "
                "with the environment variable SKTRANSFER_CACHE_LIMIT.",
                str(root),
            )


def check_rows(embedder):
    """Return an embedder that gives one row for each image; refuse others."""
    if not returns_rows(embedder):
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
