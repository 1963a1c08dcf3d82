"""Turn a finished training into a weights file of the package, and evaluate it.

Rounds the averaged weights to half precision, writes them with their preprocessing in the file's
header, and prints the accuracy on the held-out images and on the official validation part, before
and after rounding.

    python pretraining/finish.py tiny_resnet --run runs/tiny_resnet --cache CACHE \\
        --image-size 128 --judged-at 96 --to sktransfer/backbones/weights
"""

import argparse
import hashlib
from pathlib import Path

import torch
from safetensors.torch import save_file
from train import ARCHITECTURES, MEAN, STD, accuracy, load_part

N_CLASSES = 194


def rounded(state):
    """Contiguous tensors, floating-point ones in half precision."""
    halved = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    return {name: tensor.contiguous() for name, tensor in halved.items()}


def header(args):
    """The preprocessing of the weights."""
    return {
        "image_size": str(args.image_size),
        "resize_size": str(args.resize_size or ""),
        "interpolation": "bilinear",
        "mean": " ".join(map(str, MEAN)),
        "std": " ".join(map(str, STD)),
    }


def evaluate(name, state, part, args):
    network = ARCHITECTURES[name](N_CLASSES).to(memory_format=torch.channels_last)
    network.load_state_dict(
        {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    )
    return accuracy(network, *load_part(args.cache, part), args.judged_at, torch.device("cpu"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(ARCHITECTURES))
    parser.add_argument("--run", type=Path, required=True, help="folder with checkpoint.pt")
    parser.add_argument("--cache", type=Path, required=True, help="as given to train.py")
    parser.add_argument("--image-size", type=int, required=True, help="side, for the header")
    parser.add_argument("--resize-size", type=int, help="shorter side (default: squash)")
    parser.add_argument("--judged-at", type=int, required=True, help="side for the accuracy")
    parser.add_argument("--to", type=Path, required=True, help="folder of the weights file")
    args = parser.parse_args()
    kept = torch.load(args.run / "checkpoint.pt", map_location="cpu", weights_only=True)
    full, half = kept["average"], rounded(kept["average"])
    file = args.to / f"{args.name}.safetensors"
    save_file(half, file, metadata=header(args))
    n_parameters = sum(p.numel() for p in ARCHITECTURES[args.name](N_CLASSES).parameters())
    print(f"{file}: {n_parameters:,} parameters, {file.stat().st_size:,} bytes")
    print(f"sha256 {hashlib.sha256(file.read_bytes()).hexdigest()}")
    print(f"{kept['epoch']} epochs in {kept['minutes']:.0f} minutes")
    for part in ("held_out", "official"):
        before, after = (evaluate(args.name, state, part, args) for state in (full, half))
        print(f"{part} at {args.judged_at} px: {before:.2%}, in half precision {after:.2%}")


if __name__ == "__main__":
    main()
