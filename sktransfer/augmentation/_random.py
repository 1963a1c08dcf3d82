"""Random numbers for one thread, independent of torch's global generator."""

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_DRAWS = {
    torch.rand,
    torch.randn,
    torch.randint,
    torch.randperm,
    torch.normal,
    torch.bernoulli,
    torch.multinomial,
    torch.poisson,
    torch._sample_dirichlet,  # AugMix
    Tensor.uniform_,
    Tensor.normal_,
    Tensor.random_,
    Tensor.bernoulli,
    Tensor.bernoulli_,
    Tensor.exponential_,
    Tensor.geometric_,
    Tensor.log_normal_,
    Tensor.cauchy_,
    Tensor.multinomial,
}
# Not every supported version of torch lets these take a generator.
_DRAWS_LIKE = {torch.rand_like: torch.rand, torch.randn_like: torch.randn}


class SeededRandomness(TorchFunctionMode):
    """A context in which the torch functions of this thread draw from a new generator."""

    def __init__(self, seed):
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in _DRAWS_LIKE:
            like, *rest = args
            kwargs.setdefault("dtype", like.dtype)
            func, args = _DRAWS_LIKE[func], (like.shape, *rest)
        if func in _DRAWS or func in _DRAWS_LIKE.values():
            kwargs.setdefault("generator", self._generator)
        return func(*args, **kwargs)
