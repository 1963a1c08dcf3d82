"""The training of a head and the upper part of a backbone together."""

import torch

from .._training._net import make_net, train
from .._training._random import seeded
from ..backbones import shared_network, split_backbone
from ._features import TrainedPart


class JointTraining:
    """Trains a fitted head together with a copy of the last stages of a backbone.

    `params` is the estimator. After the training, ``mix`` averages the weights before and after it.
    """

    def __init__(self, params, spec, n_stages, head, targets):
        self.params, self.spec, self.head, self.targets = params, spec, head, targets
        _, self.upper = split_backbone(shared_network(spec), n_stages)

    def train(self, data, data_valid, *, seed, runtime, what="fine-tuning", **options):
        """Train on a `FeatureDataset`, and note the number of the epoch whose weights are kept."""
        params = self.params
        dtype = getattr(torch, runtime.precision)
        module = TrainedPart(
            self.upper, self.head.net_.module_, self.spec.preprocessing, params.update_batch_norm
        )
        self._before = _copy(module)
        with seeded(seed, runtime.device):
            self.net = make_net(
                module.to(memory_format=torch.channels_last),
                targets=self.targets,
                seed=seed,
                criterion=self.head._loss(),
                autocast=None if dtype is torch.float32 else dtype,
                start_at_zero=True,
                rates=module.rates(params.lr, params.backbone_lr_factor, params.layer_decay),
                optimizer=torch.optim.AdamW,
                optimizer__weight_decay=params.weight_decay,
                lr=params.lr,
                batch_size=params.batch_size,
                iterator_valid__batch_size=64,
                device=runtime.device,
            ).initialize()
            self.best_epoch = train(
                self.net,
                data,
                data_valid,
                params,
                epochs=params.max_epochs,
                rates=f"the learning rates lr={params.lr:g} for the head and "
                f"{params.lr * params.backbone_lr_factor:g} (lr times backbone_lr_factor="
                f"{params.backbone_lr_factor:g}) for the backbone",
                description=f"{self.spec.name}: {what}",
                lr_schedule="warmup_cosine",
                **options,
            )
        self.net.optimizer_.zero_grad()  # or the gradients would live as long as the model
        self._after = _copy(module.eval())

    def mix(self, fraction):
        """Average the weights: a fraction of the trained ones, and the rest of those before."""
        for name, value in self.net.module_.state_dict().items():
            after = self._after[name]
            if value.is_floating_point():
                after = self._before[name].to(value).lerp(after, fraction)
            value.copy_(after)


def _copy(module):
    return {name: value.clone() for name, value in module.state_dict().items()}
