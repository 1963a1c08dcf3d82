"""A progress bar for `embed_images`."""

from contextlib import contextmanager

from tqdm.auto import tqdm


@contextmanager
def progress_bar(name, total, *, unit="image", verbose=True):
    """Provide the ``progress`` argument of `embed_images`; None unless ``verbose``.

    There is no bar if all rows are cached. Its rate excludes cached rows and loading the network.
    """
    bar = None

    def progress(n):
        nonlocal bar
        if bar is None:
            if n < total:
                bar = tqdm(total=total, initial=n, desc=name, unit=unit)
        elif n == 0:
            bar.unpause()  # the network is ready: time counts from now
        else:
            bar.update(n)

    try:
        yield progress if verbose else None
    finally:
        if bar is not None:
            bar.close()
