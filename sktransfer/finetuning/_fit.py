"""One fit of a `FineTuneClassifier`: the head alone, then head and backbone together."""

from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from sklearn.base import clone

from .._engine import resolve_runtime
from .._training._samples import class_factors, relative_weight, split_groups
from .._utils._devices import resolve_device
from .._utils._hashing import hash_value
from .._utils._sizes import parse_size
from .._utils._threads import usable_kernels
from .._utils._warnings import warn_user
from ..augmentation import Views, check_augmentation, resolve_augmentation
from ..backbones import backbone_stages, shared_network, split_backbone
from ..cache import resolve_cache_root
from ..embedder import ImageEmbedder, resolve_spec
from ..exceptions import ImageReadError
from ..heads import HeadClassifier
from ..images import digest_images
from ._features import FeatureDataset, frozen_part
from ._fraction import N_TRIALS, choose_fraction, right_of_each, run_trials, trial_parts
from ._tuned_backbone import ADVICE, TunedBackbone

#: Parameters with the same meaning in `ImageEmbedder`.
SHARED = ("backbone", "weights", "image_size", "pooling", "resize", "augmentation")
SHARED += ("engine", "cache", "max_pixels", "device", "verbose")

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
    "n_test_views",
    "random_state",
    "verbose",
    "weights",
}


@usable_kernels()
def fit_classifier(params, images, y, weight, n_train, targets, seed, tasks):
    """Fit, and return what the estimator keeps, by name of the attribute without underscore.

    The first ``n_train`` images are for training, the others for validation.
    """
    limit = params.memory_limit
    limit = parse_size(limit, "memory_limit") if isinstance(limit, str) else limit
    precision = params.precision.replace("auto", "float32")
    shared = {name: getattr(params, name) for name in SHARED}
    embedder = ImageEmbedder(**shared, precision=precision, random_state=seed)
    spec = resolve_spec(embedder)
    n_stages, lower = params.trainable_stages, None
    if n_stages != 0:
        whole = shared_network(spec)
        n_stages = len(backbone_stages(whole)) if n_stages == "all" else int(n_stages)
        lower = split_backbone(whole, n_stages)[0]  # refuses too many
    augmentation = None
    if params.augmentation is not None:
        augmentation = resolve_augmentation(params.augmentation)
        check_augmentation(augmentation, images, params.max_pixels)
    embedder.fit(images)
    if params.n_test_views > 1:
        embedder._views(params.n_test_views)  # refuses augmentation=None now
    try:
        rows = embedder._embedded(images, 1, ADVICE)
    except ImageReadError as error:
        problems = [
            (i, path, why) if i < n_train else (i - n_train, path, f"in X_val: {why}")
            for i, path, why in error.errors
        ]
        raise ImageReadError(problems, ADVICE) from None
    train, valid = np.arange(n_train), np.arange(n_train, len(images))
    codes = targets.encode(y)
    fitted = {"embedder": embedder, "backbone": None, "history": [], "feature_cache": None}
    fitted |= {"best_epoch": 0, "tuned_fraction": 0.0, "fraction_scores": None}
    if n_stages == 0 or params.tuned_fraction == 0:
        head = _fit_head(params, rows, y, weight, train, valid, params.random_state)
        return fitted | {"head": head}

    from .._training._callbacks import Checkpoint, check_callbacks
    from ._joint_training import JointTraining

    check_callbacks(params.callbacks, validates=len(valid) or params.early_stopping)
    root = resolve_cache_root(params.cache)
    digests = digest_images(images, root)
    train = train[weight[:n_train] > 0]
    fraction = params.tuned_fraction
    with_trial = fraction == "auto" and not len(valid) and not params.early_stopping
    checkpoint, trial_paths = None, [None] * N_TRIALS
    if params.checkpoint_dir is not None:
        labels = [[str(label) for label in targets.classes], codes]
        path = _checkpoint_path(params, spec, augmentation, digests, labels, weight, n_train)
        checkpoint = Checkpoint(path, seed)
        if with_trial:
            trial_paths = [path.with_suffix(f".trial{i}.pt") for i in range(1, N_TRIALS + 1)]
            seed = Checkpoint(trial_paths[0], checkpoint.seed, reuse=True).seed
        else:
            seed = checkpoint.seed
    # Equal images stay on one side of a split.
    groups = np.array([digests[index] for index in train], dtype="S20")
    strata = targets.strata(codes[train])
    if not len(valid) and params.early_stopping:
        parts = split_groups(groups, strata, params.validation_fraction, seed)
        train, valid = (train[part] for part in parts)

    device = resolve_device(params.device)
    if params.precision == "auto" and device.startswith("cuda"):
        precision = "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    frozen_runtime = resolve_runtime(device, precision, params.engine, spec)
    network, shape = frozen_part(lower, spec, frozen_runtime, n_stages, root)
    runtime = resolve_runtime(device, precision, "torch")

    def dataset(indices, room, **views):
        return FeatureDataset(
            params,
            network,
            shape,
            [images[index] for index in indices],
            [digests[index] for index in indices],
            codes[indices],
            device=runtime.device,
            room=room,
            **views,
        )

    views, n_views = {}, params.n_views
    if augmentation is not None:
        if augmentation.transform is None:  # mirroring makes one other view
            n_views = min(n_views or 2, 2)
        views = {"views": Views(augmentation, n_views or 1, seed), "new_views": n_views is None}
    data = dataset(train, limit, **views)
    data_valid = dataset(valid, limit - data.n_bytes) if len(valid) else None

    # A fit that resumes needs the same head. With an int, it is that of a frozen pipeline.
    head_seed = params.random_state if isinstance(params.random_state, Integral) else seed

    def joint_training(part=slice(None), held_out=valid, **options):
        """Train a head on a part of the training images, then head and upper stages together."""
        chosen = train[part]
        smoothing = {"label_smoothing": params.label_smoothing}
        head = _fit_head(params, rows, y, weight, chosen, held_out, head_seed, **smoothing)
        weights = weight
        if head.class_weight is not None:
            given = head.class_weight, targets.classes, codes[chosen], weight[chosen]
            weights = weight * class_factors(*given)[codes]
        training = JointTraining(params, spec, n_stages, head, targets)
        training.train(
            data.part(part, relative_weight(weights[chosen])),
            data_valid and data_valid.part(slice(None), relative_weight(weights[valid])),
            seed=seed,
            runtime=runtime,
            **options,
        )
        return training

    def try_out(number, part, held_out):
        """Train on a part, and judge each fraction by the images held out."""
        path = trial_paths[number - 1]
        saved = path and Checkpoint(path, seed, reuse=True, same_seed=True)
        # A head that validates takes these images: too few may be left for a split of its own.
        options = {"held_out": train[held_out], "checkpoint": saved}
        training = joint_training(part, what=f"trial {number}", **options)
        if training.net.interrupted_:
            raise KeyboardInterrupt
        return training, right_of_each(training, data.part(held_out), codes[train[held_out]])

    training = scores = None
    if with_trial:
        parts = trial_parts(groups, strata, seed)
        fraction, scores, training = run_trials(try_out, parts, weight[train], params.verbose)
        if fraction > 0:
            training = None  # all images are trained on
    if training is None:
        training = joint_training(callbacks=params.callbacks, checkpoint=checkpoint, tasks=tasks)
    if fraction == "auto":
        right = right_of_each(training, data_valid, codes[valid])
        fraction, scores = choose_fraction(right, weight[valid], n_errors=0)
    if training.net.interrupted_:
        warn_user(
            "Training interrupted by the user. The model has the weights of epoch "
            f"{training.best_epoch} of {params.max_epochs}.",
            UserWarning,
        )
        if training.best_epoch == 0:
            fraction = 0.0  # no epoch is complete
    elif checkpoint:
        for path in filter(None, trial_paths):
            path.unlink(missing_ok=True)
    fitted |= {
        "history": training.net.rows(),
        "best_epoch": training.best_epoch,
        "feature_cache": data.kept,
        "tuned_fraction": fraction,
        "fraction_scores": scores,
    }
    if fraction == 0:
        head = _fit_head(params, rows, y, weight, train, valid, head_seed)
        return fitted | {"head": head, "best_epoch": 0}
    training.mix(fraction)
    training.head.net_.module_.to(training.head.net_.device)
    upper = training.upper.cpu().requires_grad_(False)
    return fitted | {"head": training.head, "backbone": TunedBackbone(embedder, n_stages, upper)}


def _fit_head(params, rows, y, weight, train, valid, seed, label_smoothing=0.0):
    """Return a head trained on embeddings."""
    head = HeadClassifier() if params.head is None else clone(params.head)
    ours = {
        "random_state": (None, seed),
        "class_weight": (None, params.class_weight),
        "label_smoothing": (0.0, label_smoothing),
        "device": ("auto", params.device),
        "verbose": (0, params.verbose),
    }
    for name, (unset, value) in ours.items():
        if getattr(head, name) == unset:
            head.set_params(**{name: value})
    validation = {}
    if len(valid) and head.early_stopping:
        validation = {"X_val": rows[valid], "y_val": y[valid]}
    # The classes of images without weight are known, though nothing is learned from them.
    train = np.union1d(train, np.setdiff1d(np.flatnonzero(weight == 0), valid))
    return head.fit(rows[train], y[train], sample_weight=weight[train], **validation)


def _checkpoint_path(params, spec, augmentation, digests, labels, weight, n_train):
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
    seeds = [seed if isinstance(seed, (int, np.integer)) else None for seed in seeds]
    key = augmentation and augmentation.key
    data = [spec.fingerprint, digests, labels, weight, n_train]
    try:
        key = hash_value([values, head, seeds, key, *data])
    except ValueError as error:
        raise ValueError(
            f"A checkpoint is named after everything that a fit depends on, but {error}. Use "
            "classes and functions from the top level of a module, or set checkpoint_dir=None."
        ) from error
    return directory / f"finetune-{key}.pt"
