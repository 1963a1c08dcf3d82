"""`write_embeddings` and the command line: Parquet files, written once, whatever is killed."""

import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from counting import CountingBackbone, n_seen
from new_process import start

from sktransfer import ImageEmbedder
from sktransfer.__main__ import main
from sktransfer.distributed import write_embeddings
from sktransfer.images import digest_images


def counting(log, **parameters):
    return ImageEmbedder(CountingBackbone(log), **{"cache": None, **parameters})


def read(folder):
    table = pq.read_table(folder)
    return table.to_pydict() | {"type": table.schema.field("embedding").type}


def test_columns(files, tmp_path):
    paths = [*files[:5], "missing.png", *files[5:9]]
    assert write_embeddings(counting(tmp_path / "log"), paths, tmp_path / "out") == 1
    found = read(tmp_path / "out")
    expected = counting(tmp_path / "other").fit_transform(files[:9])
    assert found["path"] == paths
    assert found["digest"].pop(5) is found["embedding"].pop(5) is None
    assert found["digest"] == digest_images(files[:9])
    assert found["error"].pop(5).startswith("no such file") and set(found["error"]) == {None}
    np.testing.assert_array_equal(np.array(found["embedding"], dtype=np.float32), expected)
    assert found["type"] == pa.list_(pa.float32(), expected.shape[1])


def test_a_generator_of_images_in_memory(tmp_path):
    most = 0

    def images():
        nonlocal most
        for number in range(10):
            most = max(most, number - n_seen(tmp_path / "log"))
            yield np.full((9, 9), number + 1, dtype=np.uint8)

    written = {"rows_per_file": 4, "dtype": "float16", "prefix": "mine"}
    assert write_embeddings(counting(tmp_path / "log"), images(), tmp_path / "out", **written) == 0
    names = ["mine-000000.parquet", "mine-000001.parquet", "mine-000002.parquet"]
    assert sorted(os.listdir(tmp_path / "out")) == names
    assert most == 3  # those of one file
    assert read(tmp_path / "out")["type"].value_type == pa.float16()
    assert read(tmp_path / "out")["path"] == [None] * 10


@pytest.mark.parametrize(("change", "n_repeated"), [("nothing", 0), ("damage", 4)])
def test_what_is_written_is_not_embedded_again(change, n_repeated, files, tmp_path):
    log, out, paths = tmp_path / "log", tmp_path / "out", [*files[:10], "missing.png"]
    write_embeddings(counting(log), paths, out, rows_per_file=4)
    if change == "damage":
        (out / "part-000001.parquet").write_bytes(b"PAR1")
    assert write_embeddings(counting(log), paths, out, rows_per_file=4) == 1
    assert n_seen(log) == 10 + n_repeated


@pytest.mark.parametrize("change", ["image", "order", "dtype", "embedder", "rows", "fewer"])
def test_other_embeddings_are_not_replaced(change, files, tmp_path):
    paths = [shutil.copy(path, tmp_path) for path in files[:10]]
    log, out, embedder = tmp_path / "log", tmp_path / "out", counting(tmp_path / "log")
    options, file = {"rows_per_file": 4, "dtype": "float32"}, "part-000000.parquet"
    write_embeddings(embedder, paths, out, **options)
    before = {path: path.read_bytes() for path in out.iterdir()}
    if change == "image":
        shutil.copy(files[20], paths[5])
        file = "part-000001.parquet"
    elif change == "order":
        paths.reverse()
    elif change == "dtype":
        options["dtype"] = "float16"
    elif change == "embedder":
        embedder = counting(log, image_size=12)
    elif change == "rows":
        options["rows_per_file"] = 5
    elif change == "fewer":
        paths, file = paths[:4], "part-000001.parquet"
    with pytest.raises(FileExistsError, match=f"{file} holds other embeddings.*another folder"):
        write_embeddings(embedder, paths, out, **options)
    assert {path: path.read_bytes() for path in out.iterdir()} == before and n_seen(log) == 10
    (out / file).unlink()
    if change == "image":
        assert write_embeddings(embedder, paths, out, **options) == 0
        assert n_seen(log) == 14 and read(out)["digest"] == digest_images(paths)


KILLED = """
import os, signal
from counting import CountingBackbone, n_seen
from sktransfer import ImageEmbedder
from sktransfer.distributed import write_embeddings

class Dying(CountingBackbone):
    def forward(self, pixels):
        rows = super().forward(pixels)
        if last and n_seen(log) >= last:
            os.kill(os.getpid(), signal.SIGKILL)
        return rows

write_embeddings(ImageEmbedder(Dying(log), cache=None), files, out, rows_per_file=6)
"""


def test_killed_runs_are_continued(files, tmp_path):
    log, out = str(tmp_path / "log"), str(tmp_path / "out")
    for kill in (True, True, True, False):
        last = n_seen(log) + 9 if kill else None  # in the second file of each run
        child = start(KILLED, files=files, log=log, out=out, last=last)
        child.join(timeout=60)
        assert child.exitcode == (-signal.SIGKILL if kill else 0)
    expected = counting(tmp_path / "other").fit_transform(files)
    np.testing.assert_array_equal(np.array(read(out)["embedding"], dtype=np.float32), expected)
    assert len(files) < n_seen(log) <= len(files) + 3 * 8


def test_too_little_room_is_found_before_the_work(files, tmp_path, monkeypatch):
    log, out = tmp_path / "log", tmp_path / "out"
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", "8300")
    embedder = counting(log, cache=tmp_path / "cache").fit(files)
    with pytest.raises(OSError, match=r"would take .*, and its limit is 8.3 KB. .*cache=None"):
        write_embeddings(embedder, files * 50, out)
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", "1GB")
    embedder.transform(files)
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", str(10**5))
    assert write_embeddings(embedder, files, out) == 0  # all of them are in the cache
    usage = namedtuple("usage", "free")(5000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"2,000 images take .* and the disk has 5 KB left"):
        write_embeddings(counting(log), files * 50, tmp_path / "other")
    assert not (tmp_path / "other").exists() and n_seen(log) == len(files)


def test_wrong_arguments(files, tmp_path):
    for X in ([], iter([])):
        with pytest.raises(ValueError, match="X is empty"):
            write_embeddings(counting(tmp_path / "log"), X, tmp_path / "out")
    with pytest.raises(ValueError, match="n_views=2"):
        write_embeddings(ImageEmbedder(augmentation="flip", n_views=2), files, tmp_path / "out")
    with pytest.raises(ValueError, match="'dtype' parameter of write_embeddings must be"):
        write_embeddings(ImageEmbedder(), files, tmp_path / "out", dtype="int8")


def test_shards_of_the_command_line_form_one_table(files, tmp_path, capsys):
    folder, out = os.path.dirname(files[0]), str(tmp_path / "out.parquet")
    options = ["--image-size", "32", "--rows-per-file", "9", "--quiet"]
    for shard in ("1/3", "2/3", "3/3"):
        assert main(["embed", folder, out, *options, "--shard", shard]) == 0
    assert "14 images, 0 of them unreadable" in capsys.readouterr().out
    found = read(out)
    order = np.argsort(found["path"])
    assert [found["path"][i] for i in order] == files
    rows = np.array(found["embedding"], dtype=np.float32)[order]
    embedder = ImageEmbedder(image_size=32, cache=None)
    np.testing.assert_array_equal(rows, embedder.fit_transform(files))


def test_exit_status_of_the_command_line(files, tmp_path, capsys):
    paths, out = tmp_path / "paths.txt", str(tmp_path / "out.parquet")
    paths.write_text(f"{files[0]}\n{tmp_path}/missing.png\n")
    assert main(["embed", str(paths), out, "--image-size", "32"]) == 3
    printed = capsys.readouterr()
    assert "2 images, 1 of them unreadable (the column 'error' says why)" in printed.out
    assert "tiny_mobilenet" in printed.err  # the progress
    assert main(["embed", str(paths), out, "--shard", "3/3"]) == 0  # an empty shard
    assert main(["embed", str(paths), out, "--backbone", "resnet05"]) == 1
    assert "error: " in capsys.readouterr().err
    assert main(["embed", str(tmp_path / "nothing"), out]) == 1
    assert main(["embed", files[0], out]) == 1
    assert "is an image; pass a folder, or a text file of paths" in capsys.readouterr().err
    command = [sys.executable, "-m", "sktransfer", "embed", "--help"]
    assert "Exit status" in subprocess.check_output(command, text=True)
    for shard in ("0/3", "4/3", "1", "a/b"):
        with pytest.raises(SystemExit) as caught:
            main(["embed", str(paths), out, "--shard", shard])
        assert caught.value.code == 2
