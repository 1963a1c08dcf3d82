"""What every test gets: its own cache, no network, a fair share of the cores.

Fixtures import the libraries, because the process that distributes the tests needs none of them.
"""

import ipaddress
import os
import socket
import sys
import warnings
from functools import partial
from io import BytesIO
from types import SimpleNamespace

# Read by torch, OpenMP and matplotlib when they are first imported, here and in child processes.
# One thread: the networks of the tests are so small that threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MPLBACKEND"] = "Agg"
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest


def is_loopback(address):
    """Whether a socket address stays on this machine."""
    if not isinstance(address, tuple):  # a Unix socket's path
        return True
    host = address[0]
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return False


def refuse_strangers(method):
    """Wrap ``socket.connect`` so that it reaches nothing but this machine."""

    def connect(self, address, *args):
        if not is_loopback(address):
            raise ConnectionRefusedError(f"a test tried to reach {address!r}; tests stay offline")
        return method(self, address, *args)

    return connect


@pytest.fixture(scope="session", autouse=True)
def offline():
    """No test reaches the network, nor does a process that a test starts through a proxy."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, refuse_strangers(getattr(socket.socket, name)))
        for variable in ("http_proxy", "https_proxy"):
            for spelling in (variable, variable.upper()):
                patch.setenv(spelling, "http://127.0.0.1:9")  # the port that discards
        for spelling in ("no_proxy", "NO_PROXY"):
            patch.setenv(spelling, "localhost,127.0.0.1,::1")
        yield


@pytest.fixture(scope="session", autouse=True)
def session_home(tmp_path_factory):
    """Keep fixtures that outlive a test away from the user's own caches."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKTRANSFER_HOME", str(home / "sktransfer"))
        patch.setenv("TORCH_HOME", str(home / "torch"))
        yield home


@pytest.fixture(scope="session")
def kept_conversions(tmp_path_factory):
    """A directory for OpenVINO's conversions, which take seconds each, in all tests."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "conversions"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch, kept_conversions):
    """Give each test a cache without embeddings, and return its directory."""
    folder = tmp_path_factory.mktemp("cache")
    (folder / "openvino").symlink_to(kept_conversions, target_is_directory=True)
    monkeypatch.setenv("SKTRANSFER_HOME", str(folder))
    yield folder
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")  # it warns of many open figures
    loky = sys.modules.get("joblib.externals.loky.reusable_executor")
    if loky and loky._executor is not None:  # its workers would use this cache in later tests
        loky._executor.shutdown(wait=True)


@pytest.fixture
def quick_workers(home):
    """Let joblib workers start at once; otherwise, each imports all libraries for 10 s."""
    from new_process import quick_workers

    with quick_workers():
        yield


@pytest.fixture(scope="module")
def quick_cluster():
    """Let Dask workers start at once."""
    pytest.importorskip("distributed", reason="needs the extra dask")
    from new_process import quick_cluster

    with quick_cluster():
        yield


@pytest.fixture
def quick_backbones(monkeypatch):
    """Let documentation use small images, torch and threads: its code must run, fast or not."""
    from joblib import parallel_config

    from sktransfer._engine import _runtime
    from sktransfer.backbones import _bundled, _packaged

    def resolve_small(name, weights, image_size, pooling, *, resolve):
        return resolve(name, weights, image_size or 64, pooling)

    for source in (_bundled, _packaged):
        monkeypatch.setattr(source, "resolve", partial(resolve_small, resolve=source.resolve))
    monkeypatch.setattr(_runtime, "has_openvino", lambda: False)
    with parallel_config("threading"):
        yield


@pytest.fixture
def quick_code(quick_backbones, monkeypatch):
    """Let documentation also train for only a few epochs."""
    from sktransfer._training._net import Net

    def fit_briefly(net, X, y=None, epochs=None, *, fit=Net.fit_loop, **params):
        return fit(net, X, y, min(epochs, 8), **params)

    monkeypatch.setattr(Net, "fit_loop", fit_briefly)


@pytest.fixture(scope="session")
def quick_export():
    """Return torch's old exporter in the form of the new one; it takes 0.1 s instead of 3 s."""
    import torch

    onnx, convert = pytest.importorskip("onnx"), torch.onnx.export

    def export(module, examples, *, opset_version, **params):
        stream, options = BytesIO(), {"input_names": ["x"], "dynamic_axes": {"x": {0: "n"}}}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            convert(module, examples, stream, opset_version=opset_version, dynamo=False, **options)
        return SimpleNamespace(model_proto=onnx.load_from_string(stream.getvalue()))

    return export


@pytest.fixture
def quick_onnx(quick_export, monkeypatch):
    """Convert networks to ONNX quickly."""
    import torch

    monkeypatch.setattr(torch.onnx, "export", quick_export)


@pytest.fixture(scope="module")
def one_thread():
    """One thread also where the environment asks for more: tiny networks train faster on it."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)
