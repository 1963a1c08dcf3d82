"""Types in the signatures of public functions."""

import os
from collections.abc import Sequence
from typing import Any, TypeAlias

from numpy.typing import ArrayLike as ArrayLike

#: Whatever `sktransfer.images.check_images` accepts: a sequence, an array, a column of a frame.
Images: TypeAlias = Sequence[Any] | ArrayLike

FilePath: TypeAlias = str | os.PathLike

#: An int, a `numpy.random.RandomState` or None, see `sklearn.utils.check_random_state`.
Seed: TypeAlias = Any
