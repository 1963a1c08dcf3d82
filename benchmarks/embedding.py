"""Images per second from JPEG files to embeddings, next to other packages and their limit.

Every contender runs in its own process. Each round runs all contenders in turn, and the least time
of each counts, so other work on the machine affects the ratios little. Networks have random
weights, which cost the same as trained weights.

    python benchmarks/embedding.py FOLDER [--networks resnet50,mobilenet_v2]
    python benchmarks/embedding.py FOLDER --memory     # memory for 2,000 and 20,000 images
    python benchmarks/embedding.py FOLDER --start      # time to import and to load
    python benchmarks/embedding.py FOLDER --profile    # where the CPU time of an image goes
    python benchmarks/embedding.py FOLDER --make OUTPUT --number 2000 --size 768x512

FOLDER is a folder with JPEG files, searched recursively. ``--make`` writes a folder of
different JPEG files of one size, made of random crops of FOLDER.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from _machine import machine
from PIL import Image

warnings.simplefilter("ignore")
NETWORKS = ("resnet50", "mobilenet_v2", "efficientnet_lite0", "tiny_resnet", "tiny_mobilenet")
TIMM_NAMES = {"resnet50": "resnet50", "mobilenet_v2": "mobilenetv2_100"}
OURS = ("torch float32", "torch bfloat16", "openvino float32", "openvino bfloat16")


def image_files(folder, number):
    """``number`` JPEG files, evenly spread over a folder."""
    files = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    if not files:
        raise SystemExit(f"{folder} contains no JPEG file")
    return [str(files[i]) for i in np.linspace(0, len(files) - 1, number).astype(int)]


def make(source, folder, number, size):
    """Write different images of one size, made of random crops of the source images."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for position, file in enumerate(image_files(source, number)):
        image = Image.open(file).convert("RGB")
        box = (*(rng.uniform(0, 0.2, 2) * image.size), *(rng.uniform(0.8, 1, 2) * image.size))
        image.resize(size, Image.LANCZOS, box=box).save(folder / f"{position:06}.jpg", quality=90)


# --------------------------------------------------------------------------------- contenders


def spec_of(network):
    from sktransfer.backbones import resolve_backbone

    return resolve_backbone(network, None if network in TIMM_NAMES else "DEFAULT")


def ours(network, engine, precision, device):
    """ImageEmbedder without a cache."""
    from sktransfer import ImageEmbedder

    embedder = ImageEmbedder(
        network,
        weights=None if network in TIMM_NAMES else "DEFAULT",
        engine=engine,
        precision=precision,
        device=device,
        cache=None,
    )
    return lambda files: embedder.fit_transform(files)


def tutorial(network, device):
    """The loop of most tutorials: DataLoader with workers, preset transform, eager, no_grad."""
    from torch.utils.data import DataLoader, Dataset
    from torchvision.transforms import v2

    from sktransfer.backbones import load_backbone

    spec = spec_of(network)
    how = spec.preprocessing
    resize = how.resize_size or (how.image_size, how.image_size)
    transform = v2.Compose(
        [
            v2.Resize(resize),
            v2.CenterCrop(how.image_size),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(how.mean, how.std),
        ]
    )

    class Images(Dataset):
        def __init__(self, files):
            self.files = files

        def __len__(self):
            return len(self.files)

        def __getitem__(self, position):
            return transform(Image.open(self.files[position]).convert("RGB"))

    model = load_backbone(spec).to(device)

    def run(files):
        workers = len(os.sched_getaffinity(0))
        with torch.no_grad():
            batches = DataLoader(Images(files), batch_size=32, num_workers=workers)
            return torch.cat([model(batch.to(device)).cpu() for batch in batches])

    return run


def embetter(network):
    """The pipeline of embetter with default settings and random weights."""
    import timm
    from embetter.vision import ImageLoader, TimmEncoder
    from sklearn.pipeline import make_pipeline

    # Its constructor downloads weights, so timm is patched while it runs.
    create = timm.create_model
    timm.create_model = lambda *args, **kwargs: create(*args, **{**kwargs, "pretrained": False})
    try:
        pipeline = make_pipeline(ImageLoader(), TimmEncoder(TIMM_NAMES[network]))
    finally:
        timm.create_model = create
    return lambda files: pipeline.fit_transform(files)


def decoding(network):
    """Limit: reading, decoding and resizing alone, with all threads."""
    from sktransfer._utils._threads import shared_pool, single_threaded_kernels
    from sktransfer.images import decode_image, fit_to_network

    how = spec_of(network).preprocessing

    def read(group):
        for file in group:
            fit_to_network(decode_image(file), how)

    def run(files):
        with single_threaded_kernels():
            groups = [files[start : start + 4] for start in range(0, len(files), 4)]
            list(shared_pool().map(read, groups))

    return run


def bare_openvino(network, precision, batch):
    """Limit: OpenVINO's asynchronous queue with its throughput settings, on ready tensors."""
    import openvino

    from sktransfer.backbones import load_backbone

    spec = spec_of(network)
    shape = (batch, 3, spec.preprocessing.image_size, spec.preprocessing.image_size)
    traced = torch.jit.trace(load_backbone(spec), torch.zeros(shape), check_trace=False)
    model = openvino.convert_model(traced, input=[(shape, openvino.Type.f32)])
    hint = "bf16" if precision == "bfloat16" else "f32"
    compiled = openvino.Core().compile_model(
        model, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": hint}
    )
    pixels = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)

    def run(files):
        requests = openvino.AsyncInferQueue(compiled)
        for _ in range(0, len(files), batch):
            requests.start_async([pixels], share_inputs=True)
        requests.wait_all()

    return run


def bare_cuda(network, precision):
    """Limit: the network on CUDA at one precision, on ready tensors."""
    from sktransfer._engine import resolve_runtime
    from sktransfer._engine._torch import TorchRunner
    from sktransfer.backbones import load_backbone

    spec = spec_of(network)
    runtime = resolve_runtime("cuda", precision, "torch")
    runner = TorchRunner(load_backbone(spec), spec.preprocessing, runtime)
    size = spec.preprocessing.image_size
    pixels = torch.zeros(runtime.rows, 3, size, size, dtype=torch.uint8, device="cuda")

    def run(files):
        for _ in range(0, len(files), runtime.rows):
            runner(pixels)
        torch.cuda.synchronize()

    return run


def build(name, network):
    """The function of a contender, by its name in the table."""
    words = name.split()
    if name == "tutorial loop":
        return tutorial(network, "cpu")
    if name == "tutorial loop on cuda":
        return tutorial(network, "cuda")
    if name == "embetter":
        return embetter(network)
    if name == "limit: decoding":
        return decoding(network)
    if name.startswith("limit: openvino"):
        return bare_openvino(network, words[2], int(words[4]))
    if name.startswith("limit: cuda"):
        return bare_cuda(network, words[2])
    if words[0] == "cuda":
        return ours(network, "torch", words[1], "cuda")
    return ours(network, words[0], words[1], "cpu")


def contenders(network):
    """Names of all contenders for a network on this machine."""
    from sktransfer._engine import has_bfloat16

    names = [*OURS, "tutorial loop"]
    if network in TIMM_NAMES:
        names.append("embetter")
    names.append("limit: decoding")
    for precision in ("float32", "bfloat16"):
        names += [f"limit: openvino {precision} batch {batch}" for batch in (1, 8)]
    if not has_bfloat16():
        names = [name for name in names if "bfloat16" not in name]
    if torch.cuda.is_available():
        names.append("tutorial loop on cuda")
        for precision in ("float32", "bfloat16"):
            names += [f"cuda {precision}", f"limit: cuda {precision}"]
    return names


# ----------------------------------------------------------------------------------- processes


class Contender:
    """A process that runs a contender on request."""

    def __init__(self, name, network, files):
        self.name, self.n_files, self.seconds, self.peak = name, len(files), [], 0
        command = [sys.executable, __file__, "-", "--contender", name, "--networks", network]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.say(files)

    def say(self, what):
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.name} failed")
        return json.loads(answer)

    def go(self):
        answer = self.say("go")
        self.seconds.append(answer["seconds"])
        self.peak = answer["peak"]

    def stop(self):
        self.process.stdin.close()
        self.process.wait()

    @property
    def rate(self):
        return self.n_files / min(self.seconds)


def contend(name, network):
    """Body of a contender's process: build, warm up, then run on request."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of libraries goes to stderr
    files = json.loads(sys.stdin.readline())
    run = build(name, network)
    run(files[:32])
    print(json.dumps("ready"), file=answers, flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        run(files)
        seconds = time.perf_counter() - begun
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "peak": peak}), file=answers, flush=True)


def race(network, files, rounds):
    """Run all contenders in turn, ``rounds`` times. Return them by name."""
    running = [Contender(name, network, files) for name in contenders(network)]
    for _ in range(rounds):
        for contender in running:
            contender.go()
    for contender in running:
        contender.stop()
    return {contender.name: contender for contender in running}


def limit_of(name, results):
    """The rate of decoding and the bare forward pass at the same precision, one after the other.

    On a CPU they share the cores. Beside a GPU they overlap, and the slower one is the limit.
    """
    precision, decoding = name.split()[1], results["limit: decoding"].rate
    where = "limit: cuda" if name.startswith("cuda") else "limit: openvino"
    bare = max(c.rate for n, c in results.items() if n.startswith(f"{where} {precision}"))
    return min(bare, decoding) if name.startswith("cuda") else 1 / (1 / bare + 1 / decoding)


def report(network, results):
    print(f"\n{network}\n")
    print("| | images/s | of its limit | × tutorial loop | × embetter | peak MB |")
    print("|---|---|---|---|---|---|")
    for name, contender in results.items():
        is_ours = not name.startswith(("limit", "tutorial", "embetter"))
        cells = [name, f"{contender.rate:.0f}"]
        cells.append(f"{contender.rate / limit_of(name, results):.2f}" if is_ours else "")
        for peer in ("tutorial loop", "embetter"):
            there = peer in results and not name.startswith("limit")
            cells.append(f"{contender.rate / results[peer].rate:.1f}" if there else "")
        cells.append(f"{contender.peak:.0f}")
        print("| " + " | ".join(cells) + " |", flush=True)


def memory(folder, network):
    """Print peak memory beyond the output for 2,000 and 20,000 images, each in a new process."""
    print(f"\n{network}: peak memory beyond the output array\n\n| images | MB |\n|---|---|")
    for number in (2_000, 20_000):
        contender = Contender("torch float32", network, image_files(folder, number))
        contender.go()
        contender.stop()
        output = number * spec_of(network).n_features * 4 / 2**20
        print(f"| {number:,} | {contender.peak - output:.0f} |", flush=True)


START = """
import time, torch, torchvision, sklearn
begun = time.perf_counter()
import sktransfer
everything = [getattr(sktransfer, name) for name in sktransfer.__all__]  # they are lazy
imported = time.perf_counter()
sktransfer.backbones.load_backbone(sktransfer.backbones.resolve_backbone("{network}"))
print(imported - begun, time.perf_counter() - imported)
"""


def start(networks, rounds=5):
    """Print the time to import (beyond torch, torchvision, scikit-learn) and to load a network."""
    print("\n| | import sktransfer, s | load the network, s |\n|---|---|---|")
    for network in networks:
        if network not in TIMM_NAMES:  # the others need a download
            program = START.format(network=network)
            command = [sys.executable, "-c", program]
            runs = [subprocess.check_output(command, text=True).split() for _ in range(rounds)]
            imported, loaded = np.array(runs, dtype=float).min(axis=0)
            print(f"| {network} | {imported:.2f} | {loaded:.2f} |", flush=True)


def profile(folder, network, number, rounds):
    """Print the CPU time of each step on one thread, the least of some rounds."""
    from sktransfer._engine import frozen_network, resolve_runtime
    from sktransfer.images import decode_image, fit_to_network

    torch.set_num_threads(1)
    files, spec = image_files(folder, number), spec_of(network)
    how, handfuls = spec.preprocessing, [files[i : i + 8] for i in range(0, number, 8)]
    run = frozen_network(spec, resolve_runtime("cpu", "float32", "openvino")).runner()
    embed = ours(network, "openvino", "float32", "cpu")

    def decode(file):
        return fit_to_network(decode_image(file, min_side=how.min_decoded_side), how)[None]

    decoded = [decode(file) for file in files]
    steps = {
        "decoding and resizing": lambda: [decode(file) for file in files],
        "network, images one by one": lambda: [run(pixels) for pixels in decoded],
        "both, eight images each in turn": lambda: [
            [run(pixels) for pixels in [decode(file) for file in some]] for some in handfuls
        ],
        "ImageEmbedder": lambda: embed(files),
    }
    least = dict.fromkeys(steps, np.inf)
    for _ in range(rounds + 1):  # the first one warms up
        for name, step in steps.items():
            begun = time.process_time()
            step()
            least[name] = min(least[name], time.process_time() - begun)
    print(f"\n{network}\n\n| | CPU microseconds per image |\n|---|---:|")
    for name, seconds in least.items():
        print(f"| {name} | {1e6 * seconds / number:.0f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--number", type=int, default=400, help="images per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--start", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--make", type=Path)
    parser.add_argument("--size", default="768x512")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contender:
        return contend(args.contender, args.networks)
    if args.make:
        return make(args.folder, args.make, args.number, tuple(map(int, args.size.split("x"))))
    print(machine("torchvision", "openvino", "embetter"))
    if args.start:
        return start(args.networks.split(","))
    for network in args.networks.split(","):
        if args.memory:
            memory(args.folder, network)
        elif args.profile:
            profile(args.folder, network, args.number, args.rounds)
        else:
            report(network, race(network, image_files(args.folder, args.number), args.rounds))


if __name__ == "__main__":
    main()
