"""Train a bundled backbone from scratch on Tiny ImageNet.

Runs in one process, or in several that share the work (``torchrun``), on CUDA if available and on
CPU cores otherwise. It writes a checkpoint after every epoch, and the same command resumes from it.
README.md next to this file has the commands, the data and the recipe.
"""

import argparse
import csv
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from torchvision.models import mobilenet_v3_small
from torchvision.models.resnet import BasicBlock, ResNet
from tqdm import tqdm

# Transfer is measured on these dog breeds, so the network must not train on them.
LEFT_OUT = {"n02085620", "n02094433", "n02099601", "n02099712", "n02106662", "n02113799"}
HELD_OUT_PER_CLASS = 15
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ARCHITECTURES = {
    "tiny_resnet": lambda n: ResNet(BasicBlock, [1, 2, 2, 1], num_classes=n),
    "tiny_mobilenet": lambda n: mobilenet_v3_small(num_classes=n),
}


# --------------------------------------------------------------------------------------- data


def read_images(paths):
    """Decode 64x64 images into one uint8 array (n, 3, 64, 64)."""
    pixels = np.empty((len(paths), 3, 64, 64), np.uint8)
    for row, path in enumerate(tqdm(paths, desc="decoding")):
        pixels[row] = np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1)
    return pixels


def prepare(root, out):
    """Decode the three parts once into ``.npy`` files; the last file marks completion."""
    if (out / "official.npy").exists():
        return
    out.mkdir(parents=True, exist_ok=True)
    classes = sorted(set((root / "wnids.txt").read_text().split()) - LEFT_OUT)
    code = {name: index for index, name in enumerate(classes)}
    parts = {"train": [], "held_out": [], "official": []}
    for name in classes:
        files = sorted((root / "train" / name / "images").glob("*.JPEG"))
        order = np.random.default_rng(code[name]).permutation(len(files))
        for rank, position in enumerate(order):
            part = "held_out" if rank < HELD_OUT_PER_CLASS else "train"
            parts[part].append((files[position], code[name]))
    with open(root / "val" / "val_annotations.txt", newline="") as file:
        for name, label, *_ in csv.reader(file, delimiter="\t"):
            if label in code:
                parts["official"].append((root / "val" / "images" / name, code[label]))
    (out / "classes.json").write_text(json.dumps(classes))
    for part, rows in parts.items():
        np.save(out / f"{part}_labels.npy", np.array([label for _, label in rows]))
        np.save(out / f"{part}.npy", read_images([path for path, _ in rows]))


def load_part(out, part):
    """Images (memory-mapped, so that several processes share them) and labels."""
    pixels = np.load(out / f"{part}.npy", mmap_mode="r")
    return pixels, torch.from_numpy(np.load(out / f"{part}_labels.npy"))


def normalize(pixels):
    """Normalize uint8 or float pixels in 0..255."""
    mean = torch.tensor(MEAN, device=pixels.device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=pixels.device).view(1, 3, 1, 1)
    return (pixels / 255 - mean) / std


def augment(pixels, size, generator):
    """Random resized crop, flip and color, on a whole batch with one ``grid_sample``."""
    n, device = len(pixels), pixels.device

    def uniform(low, high):
        return torch.empty(n).uniform_(low, high, generator=generator).to(device)

    area, ratio = uniform(0.25, 1).sqrt(), uniform(math.log(3 / 4), math.log(4 / 3)).exp().sqrt()
    width, height = (area * ratio).clamp(max=1), (area / ratio).clamp(max=1)
    flip = uniform(0, 1).lt(0.5).float() * 2 - 1
    theta = torch.zeros(n, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 1, 1] = width * flip, height
    theta[:, 0, 2], theta[:, 1, 2] = uniform(-1, 1) * (1 - width), uniform(-1, 1) * (1 - height)
    grid = F.affine_grid(theta, (n, 3, size, size), align_corners=False)
    views = F.grid_sample(pixels.float(), grid, padding_mode="reflection", align_corners=False)

    def blend(views, base, amount):
        factor = uniform(1 - amount, 1 + amount).view(n, 1, 1, 1)
        return base + factor * (views - base)

    views = blend(views, views.mean(1, keepdim=True), 0.4)  # saturation
    views = blend(views, views.mean((1, 2, 3), keepdim=True), 0.4)  # contrast
    views = blend(views, torch.zeros((), device=device), 0.4)  # brightness
    return normalize(views.clamp(0, 255))


# ------------------------------------------------------------------------------------ network


def start_from(network, file):
    """Copy every tensor that fits from the weights of an earlier, smaller network.

    New blocks start as the identity: the last batch norm of their residual branch is zero. So the
    network computes the same as before.
    """
    earlier = {name: tensor.float() for name, tensor in load_file(file).items()}
    own = network.state_dict()
    fitting = {k: v for k, v in earlier.items() if k in own and v.shape == own[k].shape}
    network.load_state_dict(fitting, strict=False)
    for name, module in network.named_modules():
        if isinstance(module, BasicBlock) and f"{name}.bn2.weight" not in fitting:
            nn.init.zeros_(module.bn2.weight)
    return len(fitting), len(own)


def parameter_groups(network, weight_decay):
    """Weight decay on weights only, none on biases and batch norm."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]


class Average:
    """Exponential average of all floating-point state, batch-norm statistics included."""

    def __init__(self, network):
        self.state = {k: v.detach().clone() for k, v in network.state_dict().items()}
        self.steps = 0

    @torch.no_grad()
    def update(self, network):
        self.steps += 1
        decay = min(0.998, (1 + self.steps) / (10 + self.steps))
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, 1 - decay)
            else:
                self.state[name].copy_(value)


@torch.inference_mode()
def accuracy(network, pixels, labels, size, device):
    """Top-1 accuracy of ``network`` on whole images scaled to ``size``."""
    network.eval()
    hits = 0
    for start in range(0, len(labels), 256):
        batch = torch.from_numpy(np.array(pixels[start : start + 256])).to(device).float()
        batch = F.interpolate(batch, (size, size), mode="bilinear", antialias=True)
        batch = normalize(batch).contiguous(memory_format=torch.channels_last)
        hits += (network(batch).argmax(1).cpu() == labels[start : start + 256]).sum().item()
    return hits / len(labels)


# ----------------------------------------------------------------------------------- training


def learning_rate(progress, peak, warmup=0.1):
    """One cycle: a linear rise, then half a cosine to zero; ``progress`` runs from 0 to 1."""
    if progress < warmup:
        return peak * (0.04 + 0.96 * progress / warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def image_size(epoch, args):
    """Small images first, larger images in the last epochs (progressive resizing)."""
    return args.final_size if epoch >= args.epochs - args.final_epochs else args.size


class Teacher:
    """A trained network whose predictions are targets for another network.

    Both get the same images, mixup included; the teacher gets them at its best size (Beyer et al.,
    "Knowledge distillation: a good teacher is patient and consistent", CVPR 2022). It runs in
    bfloat16, which is precise enough for a target.
    """

    def __init__(self, name, file, size, n_classes, device):
        self.network, self.size = ARCHITECTURES[name](n_classes), int(size)
        self.network.load_state_dict({k: v.float() for k, v in load_file(file).items()})
        self.network = self.network.to(device, memory_format=torch.channels_last).eval()

    @torch.no_grad()
    def __call__(self, batch):
        """Probabilities, (n, classes)."""
        shape = (self.size, self.size)
        batch = F.interpolate(batch, shape, mode="bilinear", align_corners=False, antialias=True)
        batch = batch.contiguous(memory_format=torch.channels_last)
        with torch.autocast(batch.device.type, torch.bfloat16):
            return self.network(batch).float().softmax(1)


def mixed_loss(network, teachers, batch, target, mixup, generator):
    """Cross-entropy, after mixup if ``mixup`` is not 0.

    With teachers, half of the target is the label and half is their mean prediction. Without, the
    target is the smoothed label.
    """
    if mixup != 0:
        share = np.random.default_rng(generator.initial_seed()).beta(mixup, mixup)
        order = torch.randperm(len(batch), generator=generator).to(batch.device)
        batch = share * batch + (1 - share) * batch[order]
        target = share * target + (1 - share) * target[order]
    logits = network(batch).float()
    if not teachers:
        return F.cross_entropy(logits, target, label_smoothing=0.1)
    told = sum(teacher(batch) for teacher in teachers) / len(teachers)
    return F.cross_entropy(logits, (target + told) / 2)


def train_epoch(training, network, teachers, data, args, world):
    """Pass once over this process's fraction of the training images; return the mean loss."""
    rank, ranks, device = world
    epoch, optimizer = training.epoch, training.optimizer
    pixels, labels = data
    order = np.random.default_rng([args.seed, epoch]).permutation(len(labels))
    share = args.batch_size // ranks
    steps = len(labels) // args.batch_size
    network.train()
    losses = []
    for step in tqdm(range(steps), desc=f"epoch {epoch}", disable=rank > 0, mininterval=10):
        # One generator per step and process, so a resumed run draws the same numbers.
        seed = ((args.seed * 1000 + epoch) * 100_000 + step) * 64 + rank
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)  # for dropout
        for group in optimizer.param_groups:
            group["lr"] = learning_rate((epoch + step / steps) / args.epochs, args.lr)
        first = step * args.batch_size + rank * share
        rows = np.sort(order[first : first + share])
        batch = torch.from_numpy(pixels[rows]).to(device)
        batch = augment(batch, image_size(epoch, args), generator)
        batch = batch.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=args.bfloat16):
            target = F.one_hot(labels[rows], training.n_classes).to(device).float()
            loss = mixed_loss(network, teachers, batch, target, args.mixup, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        training.average.update(training.network)
        losses.append(loss.item())
    return sum(losses) / len(losses)


def save_atomically(save, path):
    """Write next to ``path`` and move into place: a kill leaves the old or the new file."""
    temporary = path.with_suffix(".part")
    save(temporary)
    os.replace(temporary, path)


def join_world():
    """(rank, number of processes, device) of this process; one process without ``torchrun``."""
    cuda = torch.cuda.is_available()
    rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if ranks > 1:
        dist.init_process_group("nccl" if cuda else "gloo")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else "cpu"
    return rank, ranks, torch.device(device)


class Training:
    """The content of a checkpoint: network, average, optimizer and progress."""

    def __init__(self, args, n_classes, device):
        self.n_classes = n_classes
        self.network = ARCHITECTURES[args.name](n_classes)
        if args.init:
            taken, total = start_from(self.network, args.init)
            print(f"copied {taken} of {total} tensors from {args.init}")
        self.network = self.network.to(device, memory_format=torch.channels_last)
        self.average = Average(self.network)
        self.optimizer = torch.optim.SGD(
            parameter_groups(self.network, args.weight_decay), args.lr, momentum=0.9, nesterov=True
        )
        self.epoch, self.minutes = 0, 0.0

    def save(self, path):
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state,
            "steps": self.average.steps,
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "minutes": self.minutes,
        }
        save_atomically(lambda part: torch.save(state, part), path)

    def resume(self, path, device):
        state = torch.load(path, map_location=device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.state, self.average.steps = state["average"], state["steps"]
        self.epoch, self.minutes = state["epoch"], state["minutes"]


def train(args):
    """Train to the end, starting from the newest checkpoint if there is one."""
    rank, ranks, device = world = join_world()
    torch.manual_seed(args.seed)
    if rank == 0:
        prepare(args.data, args.cache)
        args.out.mkdir(parents=True, exist_ok=True)
    if ranks > 1:
        dist.barrier()
    data = load_part(args.cache, "train")
    n_classes = len(json.loads((args.cache / "classes.json").read_text()))
    training = Training(args, n_classes, device)
    if (args.out / "checkpoint.pt").exists():
        training.resume(args.out / "checkpoint.pt", device)
    teachers = [Teacher(*given, n_classes, device) for given in args.teacher]
    network = training.network
    if ranks > 1:
        network = nn.parallel.DistributedDataParallel(network, broadcast_buffers=False)
    while training.epoch < args.epochs:
        begun = time.time()
        loss = train_epoch(training, network, teachers, data, args, world)
        training.epoch += 1
        training.minutes += (time.time() - begun) / 60
        if rank == 0:
            report(training, loss, n_classes, args, device)
            training.save(args.out / "checkpoint.pt")
    if ranks > 1:
        dist.destroy_process_group()


def report(training, loss, n_classes, args, device):
    """Evaluate the averaged network on the held-out images, and write a line of history."""
    judge = ARCHITECTURES[args.name](n_classes).to(device, memory_format=torch.channels_last)
    judge.load_state_dict(training.average.state)
    size = image_size(training.epoch - 1, args)
    held_out = load_part(args.cache, "held_out")
    line = json.dumps(
        {
            "epoch": training.epoch,
            "size": size,
            "loss": round(loss, 4),
            "held_out": round(accuracy(judge, *held_out, size, device), 4),
            "minutes": round(training.minutes, 1),
        }
    )
    print(line, flush=True)
    with open(args.out / "history.jsonl", "a") as file:
        file.write(line + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(ARCHITECTURES))
    parser.add_argument("--data", type=Path, required=True, help="the folder tiny-imagenet-200")
    parser.add_argument("--cache", type=Path, required=True, help="where decoded images are kept")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint, history and weights")
    parser.add_argument("--init", type=Path, help="weights of an earlier training to start from")
    parser.add_argument(
        "--teacher",
        nargs=3,
        action="append",
        default=[],
        metavar=("NAME", "WEIGHTS", "SIZE"),
        help="a trained network to learn from, and the image size it sees; may be repeated",
    )
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--size", type=int, default=64, help="training image size, pixels")
    parser.add_argument("--final-size", type=int, default=96, help="size in the last epochs")
    parser.add_argument("--final-epochs", type=int, default=25)
    parser.add_argument("--batch-size", type=int, default=256, help="of all processes together")
    parser.add_argument("--lr", type=float, default=0.5, help="peak learning rate")
    parser.add_argument("--weight-decay", type=float, default=5e-5)
    parser.add_argument("--mixup", type=float, default=0.0, help="mixup's alpha; 0 for none")
    parser.add_argument("--bfloat16", action="store_true", help="mixed precision")
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
