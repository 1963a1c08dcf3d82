"""Transfer learning on images for scikit-learn users.

A frozen backbone turns each image into an embedding exactly once, a head learns from embeddings in
seconds, and everything that scikit-learn does with an estimator works unchanged.

Public names are listed in ``__init__.pyi`` and imported on first use.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
