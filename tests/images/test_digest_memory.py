"""Files that have not changed are not read again; the others are."""

import os
import time
import warnings
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from tqdm import tqdm

from sktransfer._utils import _stamps
from sktransfer.cache import _database, clear_cache, known_files
from sktransfer.exceptions import CacheWarning, UnreadableImageError
from sktransfer.images import _digest_memory, digest_images


class Reader:
    """Digests files, and counts which; digests any other image by what it prints."""

    def __init__(self):
        self.read = []

    def __call__(self, image):
        if not isinstance(image, str | os.PathLike):
            return digest(repr(image).encode())
        self.read.append(Path(image).name)
        try:
            return digest(Path(image).read_bytes())
        except (OSError, ValueError) as error:
            raise UnreadableImageError("missing") from error


def digest(data):
    return blake2b(data, digest_size=20).digest()


@pytest.fixture
def reader(monkeypatch):
    reader = Reader()
    monkeypatch.setattr(_digest_memory, "digest_image", reader)
    return reader


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Five files, old enough to be remembered."""
    monkeypatch.setattr(_stamps, "RACY_SECONDS", 0.0)
    paths = [tmp_path / f"{number}.jpg" for number in range(5)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 10)
    return paths


@pytest.fixture(params=["memory", "disk"])
def where(request, root):
    """Where the second call finds what the first has remembered."""

    def prepare():
        if request.param == "disk":
            known_files.clear()

    return prepare


def test_unchanged_files_are_read_once(files, root, reader, where):
    first = digest_images(files, root)
    assert first == [digest(path.read_bytes()) for path in files]
    assert sorted(reader.read) == [path.name for path in files]
    where()
    assert digest_images(files[::-1], root) == first[::-1]
    assert len(reader.read) == 5


def test_the_bar_counts_only_files_that_are_read(files, root, monkeypatch, capsys):
    at_once = lambda **options: tqdm(**options | {"delay": 0})  # noqa: E731
    monkeypatch.setattr(_digest_memory, "tqdm", at_once)
    digest_images(files[:2], root)
    assert capsys.readouterr().err == ""
    digest_images(files, root, verbose=True)
    shown = capsys.readouterr().err
    assert "reading: 100%" in shown and "3/3" in shown


def test_a_path_may_be_text_or_relative(files, root, reader, tmp_path, monkeypatch):
    digest_images(files, root)
    monkeypatch.chdir(tmp_path)
    for paths in ([str(path) for path in files], [path.name for path in files]):
        assert digest_images(paths, root)[0] == digest(files[0].read_bytes())
    assert len(reader.read) == 5


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"another size"),
        lambda path: path.write_bytes(b"\x09" * 10),
        lambda path: restore_time(path, lambda: path.write_bytes(b"\x09" * 10)),
        lambda path: replace(path, b"\x09" * 10),
    ],
    ids=["size", "mtime", "ctime", "inode"],
)
def test_changed_files_are_read_again(files, root, reader, where, change):
    digest_images(files, root)
    time.sleep(0.02)  # more than one tick of the file system's clock
    change(files[2])
    where()
    digests = digest_images(files, root)
    assert reader.read[5:] == ["2.jpg"]
    assert digests[2] == digest(files[2].read_bytes())


def restore_time(path, action):
    before = path.stat()
    action()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def replace(path, content):
    other = path.with_suffix(".new")
    other.write_bytes(content)
    restore_time(path, lambda: other.replace(path))


def test_recently_changed_files_are_not_remembered(files, root, reader, monkeypatch):
    monkeypatch.setattr(_stamps, "RACY_SECONDS", 2.0)
    os.utime(files[0], (0, 0))  # an old file by its modification time, but not by its change time
    for _ in range(2):
        digest_images(files, root)
    assert len(reader.read) == 10


def test_a_file_that_changes_while_it_is_read_is_not_remembered(files, root, monkeypatch):
    def reader(path):
        content = path.read_bytes()
        path.write_bytes(content + b"more")
        return digest(content)

    with monkeypatch.context() as patch:
        patch.setattr(_digest_memory, "digest_image", reader)
        digest_images(files[:1], root)
    assert digest_images(files[:1], root) == [digest(files[0].read_bytes())]


def test_without_a_root_every_file_is_read(files, reader):
    for _ in range(2):
        digest_images(files)
    assert len(reader.read) == 10


def test_distrust_reads_again_and_puts_right(files, root, reader, where, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(_digest_memory, "digest_image", lambda path: digest(b"a lie"))
        digest_images(files, root)
    where()
    assert digest_images(files[:1], root) == [digest(b"a lie")]
    monkeypatch.setenv("SKTRANSFER_TRUST_PATHS", "0")
    right = digest_images(files, root)
    assert right == [digest(path.read_bytes()) for path in files]
    monkeypatch.delenv("SKTRANSFER_TRUST_PATHS")
    where()
    assert digest_images(files, root) == right
    assert len(reader.read) == 5


def test_clear_cache_forgets_paths(files, root, reader):
    digest_images(files, root)
    assert clear_cache(cache=root, paths_only=True) > 0
    digest_images(files, root)
    assert len(reader.read) == 10


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps a directory that is in use")
def test_the_working_directory_has_been_deleted(files, root, reader, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    digests = digest_images([str(files[0]), "relative.png"], root)
    assert digests[0] == digest(files[0].read_bytes())
    assert isinstance(digests[1], UnreadableImageError)


def test_bad_files_are_reported_and_tried_again(files, root, reader, tmp_path):
    missing = tmp_path / "missing.jpg"
    digests = digest_images([files[0], missing, "nul\0character"], root)[:2]
    assert isinstance(digests[1], UnreadableImageError)
    missing.write_bytes(b"there now")
    assert digest_images([missing], root) == [digest(b"there now")]


def test_other_images_are_digested_each_time(files, root, reader):
    images = [np.zeros((2, 2)), files[0], b"encoded"]
    digests = digest_images(images, root)
    assert digests == [
        digest(repr(images[0]).encode()),
        digest(files[0].read_bytes()),
        digest(b"b'encoded'"),
    ]


def test_names_of_files_are_not_written_to_disk(files, root, reader):
    digest_images(files, root)
    assert b"jpg" not in (root / "files.sqlite").read_bytes()


def test_a_damaged_entry_is_not_believed(files, root, reader):
    digest_images(files, root)
    memory_file = root / "files.sqlite"
    content = memory_file.read_bytes()
    wanted = digest(files[3].read_bytes())
    memory_file.write_bytes(content.replace(wanted, bytes([wanted[0] ^ 1]) + wanted[1:]))
    known_files.clear()
    assert digest_images(files, root)[3] == wanted
    assert reader.read[5:] == ["3.jpg"]


def test_a_broken_memory_costs_one_warning(files, root, reader):
    root.mkdir()
    (root / "files.sqlite").write_bytes(b"this is no database" * 500)
    with pytest.warns(CacheWarning, match="files.sqlite cannot be used .it is damaged") as caught:
        digests = digest_images(files, root)
    assert len(caught) == 1
    assert f"clear_cache(cache={str(root)!r})" in str(caught[0].message)
    assert digests == [digest(path.read_bytes()) for path in files]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert digest_images(files, root) == digests


def test_memory_is_bounded(files, root, reader, monkeypatch):
    monkeypatch.setattr(_digest_memory, "_MAX_IN_MEMORY", 2)
    monkeypatch.setattr(_digest_memory, "_SLICE", 2)
    monkeypatch.setattr(_database, "CHUNK", 2)
    for _ in range(2):
        digests = digest_images(files, root)
        assert digests == [digest(path.read_bytes()) for path in files]
    assert len(known_files[str(root)]) == 2
    assert len(reader.read) == 5
