"""Embed images from the command line: ``python -m sktransfer embed FOLDER out.parquet``."""

import argparse
import re
import sys
from pathlib import Path


def parse_shard(text):
    """Return (i, n) for ``"i/n"``."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    shard = tuple(map(int, match.groups())) if match else (0, 0)
    if not 1 <= shard[0] <= shard[1]:
        raise argparse.ArgumentTypeError(f"{text!r} is not i/n with 1 <= i <= n, such as 3/64")
    return shard


def make_parser():
    parser = argparse.ArgumentParser(prog="python -m sktransfer")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    embed = commands.add_parser(
        "embed",
        help="write the embeddings of images to Parquet files",
        description="Write the embeddings of images to a folder of Parquet files. Run it again "
        "after a kill: complete files are kept. If a file holds other embeddings, an error names "
        "it.",
        epilog="Exit status: 0 if all images are embedded, 1 after an error, 2 for wrong "
        "arguments, 3 if some images cannot be read (the column 'error' says why).",
    )
    embed.add_argument(
        "images", type=Path, help="folder, searched with its subfolders, or text file of paths"
    )
    embed.add_argument("output", type=Path, help="folder for the files, such as out.parquet")
    embed.add_argument("--backbone", default="tiny_mobilenet", help="default: %(default)s")
    embed.add_argument("--weights", default="DEFAULT", help="name or file; default: the best")
    embed.add_argument("--image-size", type=int, metavar="PIXELS")
    embed.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    embed.add_argument("--precision", default="float32", help="float32, bfloat16, float16")
    embed.add_argument("--batch-size", type=int, metavar="N")
    embed.add_argument("--cache", metavar="FOLDER", help="cache of embeddings; default: none")
    embed.add_argument("--rows-per-file", type=int, default=4096, metavar="N")
    embed.add_argument("--dtype", default="float32", help="float32 or float16, of the files")
    embed.add_argument(
        "--shard", type=parse_shard, default=(1, 1), metavar="i/n", help="embed one of n parts"
    )
    embed.add_argument("--quiet", action="store_false", dest="verbose", help="show no progress")
    return parser


def main(arguments=None):
    """Run the command line; return the exit status."""
    options = vars(make_parser().parse_args(arguments))
    from .datasets import IMAGE_EXTENSIONS, images_below
    from .distributed import write_embeddings
    from .embedder import ImageEmbedder

    images, folder, (i, n) = (options.pop(name) for name in ("images", "output", "shard"))
    files = {name: options.pop(name) for name in ("rows_per_file", "dtype")}
    files["prefix"] = "part" if n == 1 else f"shard-{i}-of-{n}"
    try:
        if images.is_dir():
            paths = images_below(images, IMAGE_EXTENSIONS)
        elif images.suffix.lower() in IMAGE_EXTENSIONS:
            raise ValueError(f"{images} is an image; pass a folder, or a text file of paths.")
        else:
            paths = list(filter(None, images.read_text("utf-8", "surrogateescape").split("\n")))
        paths = paths[i - 1 :: n]
        n_unreadable = paths and write_embeddings(ImageEmbedder(**options), paths, folder, **files)
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    why = " (the column 'error' says why)" if n_unreadable else ""
    print(f"{folder}: {len(paths)} images, {n_unreadable or 0} of them unreadable{why}")
    return 3 if n_unreadable else 0


if __name__ == "__main__":
    sys.exit(main())
