"""One fit of a `FineTuneClassifier`: the head alone, then head and backbone together."""

from pathlib import Path

import numpy as np
import torch
from sklearn.base import clone

from .._engine import TORCH_DTYPES, resolve_runtime
from .._training._random import seeded
from .._training._samples import class_factors, relative_weight, split_groups
from .._utils._hashing import hash_value
from .._utils._sizes import parse_size
from .._utils._threads import thread_share, usable_kernels
from ..augmentation import Views, check_augmentation, resolve_augmentation
from ..backbones import backbone_stages, shared_network, split_backbone
from ..cache import resolve_cache_root
from ..embedder import ImageEmbedder, resolve_spec
from ..heads import HeadClassifier
from ..images import digest_images
from ._features import FeatureDataset, TrainedPart, frozen_part
from ._tuned_backbone import TunedBackbone, with_advice

#: Parameters that change nothing about the result, or are in the name of a checkpoint already.
_NOT_IN_CHECKPOINT = {
    "augmentation",
    "backbone",
    "cache",
    "callbacks",
    "checkpoint_dir",
    "device",
    "head",
    "memory_limit",
    "random_state",
    "verbose",
    "weights",
}


def embedding_precision(precision):
    """Return the precision of embeddings, frozen or tuned."""
    return "float32" if precision == "auto" else precision


def fit_classifier(params, images, y, weight, n_train, targets, seed, tasks):
    """Fit, and return what the estimator keeps, by name of the attribute without underscore.

    The first ``n_train`` images are for training, the others for validation.
    """
    limit = params.memory_limit
    limit = parse_size(limit) if isinstance(limit, str) else limit
    embedder = ImageEmbedder(
        params.backbone,
        weights=params.weights,
        image_size=params.image_size,
        pooling=params.pooling,
        resize=params.resize,
        device=params.device,
        precision=embedding_precision(params.precision),
        engine=params.engine,
        cache=params.cache,
        max_pixels=params.max_pixels,
        verbose=params.verbose,
    )
    spec = resolve_spec(embedder)
    n_stages = _count_stages(spec, params.trainable_stages)
    augmentation = None
    if params.augmentation is not None:
        augmentation = resolve_augmentation(params.augmentation)
        check_augmentation(augmentation, images, params.max_pixels)
    embedder.fit(images)
    with with_advice():
        rows = np.asarray(embedder.transform(images), dtype=np.float32)
    train, valid = np.arange(n_train), np.arange(n_train, len(images))
    codes = targets.encode(y)
    fitted = {"embedder": embedder, "backbone": None, "history": [], "feature_cache": None}
    if n_stages == 0:
        head = _fit_head(params, rows, y, weight, train, valid, params.random_state)
        return fitted | {"head": head, "best_epoch": 0}

    from .._training._callbacks import Checkpoint
    from .._training._net import make_net
    from .._training._net import train as train_net

    root = resolve_cache_root(params.cache)
    digests = digest_images(images, root, thread_share())
    checkpoint = None
    if params.checkpoint_dir is not None:
        path = _checkpoint_path(params, spec, augmentation, digests, y, weight, n_train)
        checkpoint = Checkpoint(path, seed)
        seed = checkpoint.seed
    train = train[weight[:n_train] > 0]
    if not len(valid) and params.early_stopping:
        # Equal images stay on one side.
        keys = np.array([digests[index] for index in train], dtype="S20")
        parts = split_groups(keys, targets.strata(codes[train]), params.validation_fraction, seed)
        train, valid = (train[part] for part in parts)
    # Without a seed of its own, a fit that resumes still needs the same head.
    head_seed = seed if params.random_state is None else params.random_state
    head = _fit_head(params, rows, y, weight, train, valid, head_seed)

    runtime = resolve_runtime(params.device, "float32", "torch")
    precision = params.precision
    if precision == "auto" and runtime.device.startswith("cuda"):
        precision = "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    precision = embedding_precision(precision)
    runtime = resolve_runtime(params.device, precision, "torch")
    frozen_runtime = resolve_runtime(
        params.device, precision, params.engine, custom_module=spec.module is not None
    )
    with usable_kernels():
        lower, upper = split_backbone(shared_network(spec), n_stages)
        network, shape = frozen_part(lower, spec, frozen_runtime, n_stages, root)
    model = TrainedPart(upper, head.net_.module_, spec.preprocessing, params.update_batch_norm)
    if head.class_weight is not None:
        factors = class_factors(head.class_weight, targets.classes, codes[train], weight[train])
        weight = weight * factors[codes]

    def dataset(indices, room, **views):
        return FeatureDataset(
            [images[index] for index in indices],
            [digests[index] for index in indices],
            network,
            shape,
            codes[indices],
            relative_weight(weight[indices]),
            memory_limit=room,
            device=runtime.device,
            max_pixels=params.max_pixels,
            verbose=params.verbose,
            **views,
        )

    views, new_views = None, False
    if augmentation is not None:
        n_views = params.n_views
        if augmentation.transform is None:  # mirroring makes one other view
            n_views = min(n_views or 2, 2)
        views, new_views = Views(augmentation, n_views or 1, seed), n_views is None
    dataset_train = dataset(train, limit, views=views, new_views=new_views)
    dataset_valid = dataset(valid, limit - dataset_train.n_bytes) if len(valid) else None
    dtype = TORCH_DTYPES[runtime.precision]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with seeded(seed, runtime.device), usable_kernels():
        net = make_net(
            model.to(memory_format=torch.channels_last),
            targets=targets,
            seed=seed,
            criterion=head._loss(),
            autocast=None if dtype is torch.float32 else dtype,
            start_at_zero=True,
            rates=model.rates(params.lr, params.backbone_lr_factor, params.layer_decay),
            optimizer=torch.optim.AdamW,
            optimizer__weight_decay=params.weight_decay,
            lr=params.lr,
            batch_size=params.batch_size,
            valid_batch_size=64,
            device=runtime.device,
        ).initialize()
        best_epoch = train_net(
            net,
            dataset_train,
            dataset_valid,
            epochs=params.max_epochs,
            rates=f"the learning rates lr={params.lr:g} for the head and "
            f"{params.lr * params.backbone_lr_factor:g} (lr times backbone_lr_factor="
            f"{params.backbone_lr_factor:g}) for the backbone",
            description=f"{spec.name}: fine-tuning",
            patience=params.n_iter_no_change if params.early_stopping else None,
            scoring=params.scoring,
            tol=params.tol,
            lr_schedule="warmup_cosine",
            callbacks=params.callbacks,
            checkpoint=checkpoint,
            tasks=tasks,
            verbose=params.verbose,
        )
    net.optimizer_.zero_grad()  # or the gradients would live as long as the model
    model.eval()
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            value.copy_(before[name].to(value).lerp(value, params.tuned_fraction))
    head.net_.module_.to(head.net_.device)
    upper = upper.cpu().requires_grad_(False)
    kept = "pixels" if network.dtype == np.uint8 else "features"
    return fitted | {
        "head": head,
        "backbone": TunedBackbone(embedder, n_stages, upper),
        "history": net.rows(),
        "best_epoch": best_epoch,
        "feature_cache": "nothing" if dataset_train.rows is None else kept,
    }


def _count_stages(spec, trainable_stages):
    if trainable_stages == 0:
        return 0
    stages = [name for name, _ in backbone_stages(shared_network(spec))]
    if trainable_stages == "all":
        return len(stages)
    if trainable_stages > len(stages):
        raise ValueError(
            f"trainable_stages={trainable_stages} is more than {spec.name!r} has: "
            f'{len(stages)} stages, {stages}. Pass 0 to {len(stages)}, or "all".'
        )
    return int(trainable_stages)


def _fit_head(params, rows, y, weight, train, valid, seed):
    """Return a head trained on embeddings."""
    head = HeadClassifier() if params.head is None else clone(params.head)
    unset = {"random_state": None, "class_weight": None, "device": "auto", "verbose": 0}
    ours = {**params.get_params(deep=False), "random_state": seed}
    head.set_params(**{name: ours[name] for name in unset if getattr(head, name) == unset[name]})
    validation = {}
    if len(valid) and head.early_stopping:
        validation = {"X_val": rows[valid], "y_val": y[valid]}
    # The classes of images without weight are known, though nothing is learned from them.
    train = np.union1d(train, np.setdiff1d(np.flatnonzero(weight == 0), valid))
    return head.fit(rows[train], y[train], sample_weight=weight[train], **validation)


def _checkpoint_path(params, spec, augmentation, digests, y, weight, n_train):
    """Return the file of a checkpoint: one for each set of images and parameters."""
    try:
        directory = Path(params.checkpoint_dir)
        directory.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"checkpoint_dir={params.checkpoint_dir!r} is no directory to write to: {error}."
        ) from error
    own = params.get_params(deep=False)
    values = {name: own[name] for name in sorted(own) if name not in _NOT_IN_CHECKPOINT}
    head = None if params.head is None else params.head.get_params(deep=False)
    seeds = [own["random_state"], head and head["random_state"]]
    if head is not None:
        head = {name: head[name] for name in sorted(head) if name not in _NOT_IN_CHECKPOINT}
    try:
        key = hash_value(
            [
                values,
                head,
                [seed if isinstance(seed, (int, np.integer)) else None for seed in seeds],
                None if augmentation is None else augmentation.key,
                spec.fingerprint,
                digests,
                [str(label) for label in y],
                weight,
                n_train,
            ]
        )
    except ValueError as error:
        raise ValueError(
            f"A checkpoint is named after everything that a fit depends on, but {error}. Use "
            "classes and functions from the top level of a module, or set checkpoint_dir=None."
        ) from error
    return directory / f"finetune-{key}.pt"
