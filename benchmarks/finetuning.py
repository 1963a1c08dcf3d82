"""Speed of fine-tuning next to a plain torch loop, and what keeping frozen outputs saves.

    python benchmarks/finetuning.py [--backbone resnet18] [--trainable-stages 1] [--images 256]

Images come from `make_shapes`. `--weights none` avoids a download. Neither affects the time. The
plain loop does the same work as in a tutorial: channels_last, autocast on a GPU, the frozen part
without gradients, images in memory. It runs the whole network in each epoch.
"""

import argparse
import time
import warnings

import torch
from torch import nn

from sktransfer import FineTuneClassifier
from sktransfer.backbones import backbone_stages, load_backbone, resolve_backbone, split_backbone
from sktransfer.datasets import make_shapes
from sktransfer.exceptions import RandomWeightsWarning

BATCH_SIZE = 32


def plain_loop(spec, n_unfrozen, pixels, codes, n_classes, device, epochs):
    """Seconds of each epoch of the plain loop, with autocast on a GPU."""
    lower, upper = split_backbone(load_backbone(spec), n_unfrozen)
    model = nn.Sequential(upper.train(), nn.Linear(spec.n_features, n_classes))
    lower, model = (m.to(device, memory_format=torch.channels_last) for m in (lower, model))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    mean, std = (
        torch.tensor(v, device=device).view(1, 3, 1, 1) * 255
        for v in (spec.preprocessing.mean, spec.preprocessing.std)
    )
    pixels, codes = pixels.to(device), codes.to(device)
    seconds = []
    for _ in range(epochs):
        start = time.perf_counter()
        total = torch.zeros((), device=device)
        for rows in torch.randperm(len(pixels), device=device).split(BATCH_SIZE):
            x = ((pixels[rows] - mean) / std).contiguous(memory_format=torch.channels_last)
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                with torch.no_grad():
                    features = lower(x)
                logits = model(features)
            loss = nn.functional.cross_entropy(logits.float(), codes[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        float(total)  # wait for the device
        seconds.append(time.perf_counter() - start)
    return seconds


def ours(arguments, data, target, epochs, **params):
    """Fit and return the classifier, and the seconds of the whole fit."""
    model = FineTuneClassifier(
        arguments.backbone,
        weights=arguments.weights,
        trainable_stages=arguments.trainable_stages,
        tuned_fraction=1,
        image_size=arguments.image_size,
        max_epochs=epochs,
        batch_size=BATCH_SIZE,
        engine="torch",
        random_state=0,
        **params,
    )
    start = time.perf_counter()
    model.fit(data, target)
    return model, time.perf_counter() - start


def line(name, seconds, n_samples, extra=""):
    best = min(seconds)
    print(f"{name:42s} {best:8.2f} s/epoch {n_samples / best:9.0f} images/s  {extra}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="tiny_mobilenet")
    parser.add_argument("--weights", default="DEFAULT", help='"none" for random weights')
    parser.add_argument("--trainable-stages", default="1", help='a number of stages, or "all"')
    parser.add_argument("--image-size", type=int, default=None)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    arguments.weights = None if arguments.weights == "none" else arguments.weights
    if arguments.trainable_stages != "all":
        arguments.trainable_stages = int(arguments.trainable_stages)
    warnings.simplefilter("ignore", RandomWeightsWarning)
    compare(arguments)


def compare(arguments):
    spec = resolve_backbone(arguments.backbone, arguments.weights, arguments.image_size)
    size = spec.preprocessing.image_size
    shapes = make_shapes(n_samples=arguments.images, image_size=size, random_state=0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    where = f"{torch.get_num_threads()} CPU thread(s)"
    if device == "cuda":
        where = torch.cuda.get_device_name()
    print(f"{spec.name}, trainable_stages={arguments.trainable_stages}, {size} px, {where}")
    n_unfrozen = arguments.trainable_stages
    if n_unfrozen == "all":
        n_unfrozen = len(backbone_stages(load_backbone(spec)))
    names = sorted(set(shapes.target))
    codes = torch.tensor([names.index(label) for label in shapes.target])
    pixels = torch.from_numpy(shapes.data).permute(0, 3, 1, 2)
    n, epochs = arguments.images, arguments.epochs
    hand = plain_loop(spec, n_unfrozen, pixels, codes, len(names), device, epochs)
    line("plain torch loop, whole network", hand, n)
    for name, limit in (("kept in memory", "8GB"), ("nothing kept", 0)):
        model, total = ours(arguments, shapes.data, shapes.target, epochs, memory_limit=limit)
        seconds = [row["seconds"] for row in model.history_]
        extra = (
            f"{min(hand) / min(seconds):5.2f} x, whole fit {total:.1f} s ({model.feature_cache_})"
        )
        line(f"FineTuneClassifier, {name}", seconds, n, extra)


if __name__ == "__main__":
    main()
