"""Packages that only some users need."""

from importlib import import_module

from ..exceptions import MissingExtraError
from ._fork import IMPORTING
from ._warnings import quiet


def import_optional(module, extra, needed_by):
    """Import a module such as ``"matplotlib.pyplot"``, or name the extra that installs it."""
    try:
        with quiet(), IMPORTING:  # deprecations inside the package
            return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingExtraError(
            f"{needed_by} needs {package}, which is not installed. "
            f"Run: pip install 'sktransfer[{extra}]'"
        ) from error
