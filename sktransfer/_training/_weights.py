"""Weights of networks as arrays: the state of fitted estimators."""

import numpy as np
import torch

from ..exceptions import WeightsError


def to_arrays(module):
    """Return the parameters and buffers of a module, by name, as arrays of their own."""
    return {name: tensor.cpu().numpy().copy() for name, tensor in module.state_dict().items()}


def load_arrays(module, arrays, version):
    """Fill a module with arrays; ``version`` is that of torch when they were made."""
    # Copied, since a memory map of joblib may be read-only and not aligned.
    weights = {name: torch.tensor(np.array(array)) for name, array in arrays.items()}
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise WeightsError(
            f"The trained weights do not fit the network: {error}\nHint: torch {version} made "
            f"them, and this is torch {torch.__version__}. Install that version, or bring back the "
            "code of the custom module."
        ) from error
