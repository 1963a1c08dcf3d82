"""A progress bar for `embed_images`."""

from contextlib import contextmanager

from tqdm.auto import tqdm


@contextmanager
def progress_bar(name, total, *, unit="image", verbose=True):
    """Provide the ``progress`` argument of `embed_images`; None unless ``verbose``.

    The bar of ``total`` rows does not appear if all of them are in the cache. Its rate excludes
    cached rows and the time that loading or converting the network takes.
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
