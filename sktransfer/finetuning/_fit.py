"""One fit of a `FineTuneClassifier`, from images to what the fitted estimator keeps."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from sklearn.base import clone
from tqdm.auto import tqdm

from .._engine import TORCH_DTYPES, resolve_runtime
from .._training._samples import class_factors, digest_rows, split_share
from .._utils._sizes import parse_size
from ..augmentation import check_augmentation, resolve_augmentation
from ..backbones import backbone_stages, resolve_backbone, shared_network, split_backbone
from ..embedder import ImageEmbedder
from ..heads import HeadClassifier
from ..heads._building import NOT_IN_DIGEST, described
from ..heads._modules import HeadLoss
from ._features import FrozenPart, ViewReader, Views
from ._prediction import TunedNetwork, advised, read_digests
from ._training import Tuned, TuningData, TuningSettings, tune

__all__ = ["FineTuneFit", "Fitted", "embedding_precision"]

#: Parameters that do not change what is learned, and therefore not the name of a checkpoint.
_NOT_IN_CHECKPOINT_NAME = {
    "backbone",
    "cache",
    "callbacks",
    "checkpoint_dir",
    "device",
    "head",
    "memory_limit",
    "augmentation",
    "random_state",
    "verbose",
    "weights",
}


@dataclass
class Fitted:
    """What a fit has come to; the names are those of the estimator's attributes.

    Parameters
    ----------
    embedder : ImageEmbedder
        Gives the embeddings of the frozen backbone.
    head : HeadClassifier
        The trained head.
    tuned : TunedNetwork or None
        The tuned part of the backbone; None where nothing of it was trained.
    history : list of dict
        A row for each epoch of the training together.
    best_epoch : int
        Epoch whose weights are kept.
    kept : str or None
        What was kept in memory.
    """

    embedder: object
    head: object
    tuned: object = None
    history: list = field(default_factory=list)
    best_epoch: int = 0
    kept: str | None = None


class FineTuneFit:
    """One fit: checks first, then the head alone, then head and backbone together.

    Nothing of the estimator changes meanwhile, so that a fit that fails leaves what there was.

    Parameters
    ----------
    estimator : FineTuneClassifier
        Its parameters say how.
    images : list
        Images of any kind.
    y : ndarray of shape (n_samples,)
        Class labels.
    weight : ndarray of shape (n_samples,)
        Weights, not all of them zero.
    seed : int
        Of the training together.
    """

    def __init__(self, estimator, images, y, weight, seed):
        self.params, self.seed = estimator, seed
        self.images, self.y, self.weight = images, y, weight
        self.spec = resolve_backbone(estimator.backbone, estimator.weights, estimator.image_size)
        self.n_unfrozen = self.number_of_stages()
        limit = estimator.memory_limit
        self.room = parse_size(limit) if isinstance(limit, str) else limit
        self.augmentation = estimator.augmentation
        if self.augmentation is not None:
            self.augmentation = resolve_augmentation(self.augmentation)
            check_augmentation(self.augmentation, images, estimator.max_pixels)

    def run(self):
        """Return a `Fitted`."""
        embedder = self.make_embedder().fit(self.images)
        with advised():
            rows = np.asarray(embedder.transform(self.images), dtype=np.float32)
        if self.n_unfrozen == 0 and self.augmentation is None:
            everything = np.arange(len(rows))
            return Fitted(embedder, self.fit_head(rows, everything, None))
        return self.fit_together(embedder, rows)

    # ---------------------------------------------------------------------------------- before

    def number_of_stages(self):
        """Return how many stages are trained."""
        trainable_stages = self.params.trainable_stages
        if trainable_stages == 0:
            return 0
        stages = [name for name, _ in backbone_stages(shared_network(self.spec))]
        if trainable_stages == "all":
            return len(stages)
        if trainable_stages > len(stages):
            raise ValueError(
                f"trainable_stages={trainable_stages} asks for more stages than {self.spec.name!r} has: "
                f'{len(stages)}, which are {stages}. Pass 0 to {len(stages)}, or "all".'
            )
        return int(trainable_stages)

    def make_embedder(self):
        p = self.params
        return ImageEmbedder(
            p.backbone,
            weights=p.weights,
            image_size=p.image_size,
            device=p.device,
            precision=embedding_precision(p.precision),
            engine=p.engine,
            cache=p.cache,
            max_pixels=p.max_pixels,
            verbose=p.verbose,
        )

    def split(self, digests):
        """Return positions to train on and, with early stopping, to validate on."""
        counted = np.flatnonzero(self.weight > 0)
        if not self.params.early_stopping:
            return counted, None
        keys = np.array([digests[p] for p in counted], dtype="S20")
        _, first, group = np.unique(keys, return_index=True, return_inverse=True)
        labels = self.y[counted][first]
        parts = split_share(labels, self.params.validation_fraction, self.seed)
        return tuple(counted[np.isin(group, part)] for part in parts)

    def checkpoint_path(self, digests):
        """Return the file of a checkpoint: one for each set of images and parameters."""
        p = self.params
        if p.checkpoint_dir is None:
            return None
        directory = Path(p.checkpoint_dir)
        directory.mkdir(parents=True, exist_ok=True)
        ours = described(p, _NOT_IN_CHECKPOINT_NAME)
        head = None if p.head is None else described(p.head, NOT_IN_DIGEST)
        text = repr(
            [ours, head, self.augmentation and self.augmentation.key, self.spec.fingerprint]
        )
        labels = np.array([str(label) for label in self.y])
        keys = np.frombuffer(b"".join(digests), dtype=np.uint8)
        return directory / f"finetune-{digest_rows([keys, labels, self.weight], text)}.pt"

    # -------------------------------------------------------------------------------- training

    def fit_head(self, rows, train, valid):
        """Return a head trained on embeddings, on all of them or with some to validate on."""
        p = self.params
        head = HeadClassifier() if p.head is None else clone(p.head)
        ours = {"random_state": p.random_state, "class_weight": p.class_weight}
        own = {name: value for name, value in ours.items() if getattr(head, name) is None}
        head.set_params(**own)
        if head.device == "auto":
            head.set_params(device=str(p.device))
        validation = {}
        if valid is not None and head.early_stopping:
            validation = {"X_val": rows[valid], "y_val": self.y[valid]}
        # Images of weight zero are not learned from, but their classes are known.
        train = np.union1d(train, np.flatnonzero(self.weight == 0))
        return head.fit(rows[train], self.y[train], sample_weight=self.weight[train], **validation)

    def fit_together(self, embedder, rows):
        """Train the head alone, then with the upper part of the backbone."""
        from .._training._net import read_checkpoint

        digests = read_digests(self.images, self.params.cache)
        path = self.checkpoint_path(digests)
        # A fit without a fixed seed goes on with the seed that it began with.
        self.seed = (read_checkpoint(path) or {"seed": self.seed})["seed"]
        train, valid = self.split(digests)
        head = self.fit_head(rows, train, valid)
        runtime = self.training_runtime()
        lower, upper = split_backbone(shared_network(self.spec), self.n_unfrozen)
        frozen = FrozenPart(
            lower, self.spec.preprocessing, runtime, custom_module=self.spec.module is not None
        )
        model = Tuned(upper, head.net_.module_).to(
            runtime.device, memory_format=torch.channels_last
        )
        data, checked = self.data(head, frozen, digests, train, valid)
        with _Progress(self.params) as on_epoch:
            history, best_epoch = tune(
                model,
                HeadLoss(multilabel=False, label_smoothing=head.label_smoothing),
                data,
                checked,
                self.settings(runtime),
                path,
                on_epoch,
            )
        model.eval()
        head.net_.module_.to(head.net_.device)  # where the head was told to be
        tuned = None
        if self.n_unfrozen:
            is_whole = lower is None or not any(True for _ in lower.parameters())
            upper = upper.cpu().requires_grad_(False)
            tuned = TunedNetwork(self.spec, self.n_unfrozen, upper, is_whole)
        return Fitted(embedder, head, tuned, history, best_epoch, data.views.kept)

    def training_runtime(self):
        """Where and in what precision the frozen part runs during training."""
        device, precision = self.params.device, self.params.precision
        if precision == "auto":
            precision = _mixed_precision(resolve_runtime(device, "float32", "torch").device)
        return resolve_runtime(device, precision, "torch")

    def data(self, head, frozen, digests, train, valid):
        """Return what is trained on and, with early stopping, what is validated on."""
        codes = np.searchsorted(head.classes_, self.y)
        factors = class_factors(head.class_weight, head.classes_, codes[train], self.weight[train])
        weight = self.weight * factors[codes]
        data = self.views(frozen, digests, codes, weight, train, self.room, self.augmentation)
        if valid is None:
            return data, None
        room = self.room - data.views.n_bytes
        return data, self.views(frozen, digests, codes, factors[codes], valid, room)

    def views(self, frozen, digests, codes, weight, rows, room, augmentation=None):
        """Return what a training or a validation on some of the images needs."""
        reader = ViewReader(
            [self.images[p] for p in rows],
            [digests[p] for p in rows],
            self.spec.preprocessing,
            augmentation,
            self.seed,
            self.params.max_pixels,
        )
        n_views = self.number_of_views(augmentation)
        with tqdm(
            total=len(rows) * (n_views or 0),
            desc="frozen part",
            unit="view",
            leave=False,
            disable=not self.params.verbose,
        ) as bar:
            views = Views(reader, len(rows), n_views, frozen, room, bar.update)
        device = frozen.runtime.device
        weight = (weight[rows] / weight[rows].mean()).astype(np.float32)
        return TuningData(
            views, torch.from_numpy(codes[rows]).to(device), torch.from_numpy(weight).to(device)
        )

    def number_of_views(self, augmentation):
        """Return how many different views there are of each image; None for ever new ones."""
        if augmentation is None:
            return 1
        # Of an augmentation that only mirrors there are two.
        n_views = self.params.n_views
        most = n_views if augmentation.transform is not None else 2
        return most if n_views is None else min(n_views, most)

    def settings(self, runtime):
        p, dtype = self.params, TORCH_DTYPES[runtime.precision]
        return TuningSettings(
            lr=p.lr,
            backbone_lr_factor=p.backbone_lr_factor,
            layer_decay=p.layer_decay,
            weight_decay=p.weight_decay,
            max_epochs=p.max_epochs,
            batch_size=p.batch_size,
            update_batch_norm=p.update_batch_norm,
            patience=p.n_iter_no_change if p.early_stopping else None,
            scoring=p.scoring,
            tol=p.tol,
            seed=self.seed,
            device=runtime.device,
            autocast=None if dtype is torch.float32 else dtype,
        )


def embedding_precision(precision):
    """Return the precision in which embeddings are computed, frozen or tuned."""
    return "float32" if precision == "auto" else precision


class _Progress:
    """What is shown, and who is called, after each epoch."""

    def __init__(self, estimator):
        self.callbacks = estimator.callbacks or []
        self.verbose = estimator.verbose
        self.bar = tqdm(
            total=estimator.max_epochs,
            desc="Fine-tuning",
            unit="epoch",
            disable=self.verbose != 1,
        )

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.bar.close()

    def __call__(self, row):
        shown = {name: f"{value:.4g}" for name, value in row.items() if name != "epoch"}
        if self.verbose >= 2:
            print(f"epoch {row['epoch']:3d}  " + "  ".join(f"{n} {v}" for n, v in shown.items()))
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update(row["epoch"] > 0)
        for callback in self.callbacks:
            callback(row)


def _mixed_precision(device):
    if not device.startswith("cuda"):
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
