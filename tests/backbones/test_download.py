"""Downloads, from a server on this machine."""

import hashlib
import http.server
import threading
import time

import pytest
import torch
import torchvision
from networks import SMALL, build, saved
from new_process import start

from sktransfer.backbones import _download, _loading, load_backbone, resolve_backbone
from sktransfer.backbones._download import official_file
from sktransfer.exceptions import FingerprintMismatchError, WeightsError


class Server(http.server.ThreadingHTTPServer):
    """Serves one file under any name; `cut` bytes of it are missing at the end, after a pause."""

    def __init__(self, content, cut=0, delay=0.0, pause=0.0):
        super().__init__(("127.0.0.1", 0), Answer)
        self.content, self.cut, self.delay, self.pause, self.asked = content, cut, delay, pause, 0

    def url(self, name):
        return f"http://127.0.0.1:{self.server_port}/models/{name}"


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked += 1
        time.sleep(self.server.delay)
        content = self.server.content
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) - self.server.cut])
        self.wfile.flush()
        time.sleep(self.server.pause)

    def log_message(self, *args):
        pass


@pytest.fixture
def serve():
    running = []

    def start(content, **options):
        server = Server(content, **options)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    """The folder into which torch downloads, made private."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def official(tmp_path, monkeypatch, checkpoints):
    """Content of an official file of `SMALL`, its name, and a way to say where it is served."""
    content = saved(build(SMALL), tmp_path / "official.pth").read_bytes()
    name = f"{SMALL}-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    member = torchvision.models.get_model_weights(SMALL).DEFAULT

    def at(url):
        monkeypatch.setattr(member.value, "url", url)

    return content, name, at


def left(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_download_of_the_right_file(serve, official, checkpoints):
    content, name, at = official
    server = serve(content)
    at(server.url(name))
    network = load_backbone(resolve_backbone(SMALL))
    assert left(checkpoints) == [name]
    assert (checkpoints / name).read_bytes() == content
    torch.testing.assert_close(network.conv1[0].weight, build(SMALL).conv1[0].weight)
    _loading._networks.clear()
    load_backbone(resolve_backbone(SMALL))
    assert server.asked == 1


def test_download_shows_progress(serve, official, checkpoints, capsys):
    content, name, at = official
    at(serve(content).url(name))
    load_backbone(resolve_backbone(SMALL))
    assert name in capsys.readouterr().err


def test_download_with_a_wrong_hash_leaves_nothing(serve, official, checkpoints):
    content, name, at = official
    url = serve(content[:-1] + b"!").url(name)
    at(url)
    with pytest.raises(WeightsError, match="invalid hash") as caught:
        load_backbone(resolve_backbone(SMALL))
    for part in (url, repr(name), repr(str(checkpoints))):
        assert part in str(caught.value)
    assert left(checkpoints) == []


def test_download_that_is_cut_off_leaves_nothing(serve, official, checkpoints):
    content, name, at = official
    url = serve(content, cut=1000).url(name)
    at(url)
    with pytest.raises(WeightsError, match="invalid hash") as caught:
        load_backbone(resolve_backbone(SMALL))
    assert url in str(caught.value)
    assert left(checkpoints) == []


def test_a_server_that_falls_silent_is_not_waited_for(serve, official, checkpoints, monkeypatch):
    monkeypatch.setattr(_download, "_TIMEOUT", 0.1)
    content, name, at = official
    at(serve(content, cut=1000, pause=2.0).url(name))
    start = time.monotonic()
    with pytest.raises(WeightsError, match=r"(?s)cannot be downloaded.*timed out"):
        load_backbone(resolve_backbone(SMALL))
    assert time.monotonic() - start < 1.5 and left(checkpoints) == []


def test_refused_connection_says_which_file_to_put_where(serve, official, checkpoints):
    content, name, at = official
    server = serve(content)
    server.server_close()
    at(server.url(name))
    with pytest.raises(WeightsError, match="cannot be downloaded") as caught:
        load_backbone(resolve_backbone(SMALL))
    for part in (server.url(name), repr(name), repr(str(checkpoints)), "tiny_mobilenet"):
        assert part in str(caught.value)
    assert left(checkpoints) == []


def test_file_put_by_hand_needs_no_network(official, checkpoints):
    content, name, at = official
    at(f"http://127.0.0.1:9/{name}")
    checkpoints.mkdir(parents=True)
    (checkpoints / name).write_bytes(content)
    load_backbone(resolve_backbone(SMALL))


def test_wrong_file_put_by_hand_is_found_out(official, checkpoints):
    content, name, at = official
    at(f"http://127.0.0.1:9/{name}")
    checkpoints.mkdir(parents=True)
    (checkpoints / name).write_bytes(content[:-1] + b"!")
    with pytest.raises(FingerprintMismatchError, match="not the official one"):
        load_backbone(resolve_backbone(SMALL))


def test_folder_that_cannot_be_made_is_a_weights_error(serve, official, checkpoints):
    content, name, at = official
    at(serve(content).url(name))
    checkpoints.parent.parent.write_text("a file where the folder should be")
    with pytest.raises(WeightsError, match="cannot be downloaded"):
        load_backbone(resolve_backbone(SMALL))


def test_several_processes_download_once(serve, checkpoints):
    content = b"weights" * 1000
    name = f"some-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    server = serve(content, delay=1.0)
    program = "from sktransfer.backbones._download import official_file; official_file(url, 'x')"
    processes = [start(program, url=server.url(name)) for _ in range(2)]
    for process in processes:
        process.join(timeout=100)
    assert [process.exitcode for process in processes] == [0, 0]
    assert server.asked == 1
    assert (checkpoints / name).read_bytes() == content


def test_threads_download_once(serve, checkpoints):
    content = b"weights"
    server = serve(content, delay=0.2)
    url = server.url(f"some-{hashlib.sha256(content).hexdigest()[:8]}.pth")
    threads = [threading.Thread(target=official_file, args=(url, "x")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.asked == 1
