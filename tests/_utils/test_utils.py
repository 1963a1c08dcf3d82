"""Helpers that several subjects share."""

import copy
import os
import pickle
import threading
import warnings

import numpy as np
import pytest
import torch
from new_process import run
from torch import nn
from torchvision.transforms import v2

from sktransfer._utils._devices import resolve_device
from sktransfer._utils._files import replacing
from sktransfer._utils._hashing import hash_value
from sktransfer._utils._lru import LRU
from sktransfer._utils._optional import import_optional
from sktransfer._utils._threads import thread_share
from sktransfer._utils._warnings import quiet
from sktransfer.exceptions import MissingExtraError

# ------------------------------------------------------------------------------------- devices


def test_auto_is_a_device_of_this_machine():
    assert resolve_device("auto") == resolve_device(resolve_device("auto"))


@pytest.mark.parametrize("device", ["cpu", "cpu:0", torch.device("cpu")])
def test_the_cpu_has_one_name(device):
    assert resolve_device(device) == "cpu"


@pytest.mark.parametrize(
    ("device", "message"),
    [("cuda:77", "not available"), ("meta", "not supported"), ("gpu", "not supported")],
)
def test_a_device_that_is_not_there_is_refused(device, message):
    with pytest.raises(ValueError, match=message):
        resolve_device(device)


# --------------------------------------------------------------------------------------- files


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "fit.pt"
    with replacing(path) as file:
        file.write(b"whole")
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


# ------------------------------------------------------------------------------------- hashing


def values():
    torch.manual_seed(0)
    return {
        "numbers": [1, 2.5, True, None, "text", b"bytes", range(3)],
        "containers": {"b": (1, 2), "a": {3, 1, 2}},
        "array": np.arange(6).reshape(2, 3),
        "tensor": torch.arange(6.0).reshape(2, 3),
        "dtype": (torch.float16, np.dtype("f4"), torch.device("cpu")),
        "function": torch.relu,
        "class": nn.Linear,
        "module": nn.Sequential(nn.Linear(3, 2), nn.ReLU()),
        "transform": v2.Compose([v2.RandomCrop(8), v2.ColorJitter(0.3), v2.ColorJitter(0.3)]),
    }


@pytest.mark.parametrize("name", values())
def test_equal_values_have_equal_keys(name):
    value = values()[name]
    assert hash_value(value) == hash_value(values()[name]) == hash_value(copy.deepcopy(value))
    assert hash_value(value) == hash_value(pickle.loads(pickle.dumps(value)))


def test_keys_are_the_same_in_another_process():
    program = (
        "from _utils.test_utils import values, hash_value\n"
        "assert keys == [hash_value(value) for value in values().values()]"
    )
    run(program, keys=[hash_value(value) for value in values().values()])


def test_different_values_have_different_keys():
    keys = [hash_value(value) for value in values().values()]
    assert len(set(keys)) == len(keys)
    assert hash_value(torch.zeros(2)) != hash_value(torch.zeros(2, dtype=torch.float64))
    assert hash_value(torch.zeros(2)) != hash_value(torch.zeros(1, 2))
    assert hash_value(nn.Dropout(0.1)) != hash_value(nn.Dropout(0.2))
    assert hash_value(nn.Linear(2, 2)) != hash_value(nn.Linear(2, 2))


def test_it_is_values_that_count_not_objects():
    shared = (1, 2)
    assert hash_value([shared, shared]) == hash_value([(1, 2), tuple([1, 2])])
    tensor = torch.ones(2)
    assert hash_value([tensor, tensor]) == hash_value([tensor, tensor.clone()])


def test_the_mode_of_a_module_does_not_count():
    module = nn.Dropout(0.1)
    assert hash_value(module.train()) == hash_value(copy.deepcopy(module).eval())


def test_a_module_may_refer_to_itself():
    module = nn.Identity()
    module.holder = [module]
    assert hash_value(module) == hash_value(copy.deepcopy(module))


def test_what_has_no_stable_identity_is_refused():
    def local():
        pass

    for value in (lambda: 1, local, [threading.Lock()], v2.Lambda(lambda x: x)):
        with pytest.raises(ValueError, match="no stable key"):
            hash_value(value)


# ----------------------------------------------------------------------------------------- LRU


def test_the_least_recently_used_goes_first():
    built, cache = [], LRU(2)

    def get(key):
        return cache.get(key, lambda: built.append(key) or key)

    for key in "abacab":
        assert get(key) == key
    assert built == ["a", "b", "c", "b"]


def test_the_size_is_bounded_but_the_newest_stays():
    built, cache = [], LRU(9, max_bytes=3, size_of=len)
    for key in ("aa", "bbbb", "aa"):
        cache.get(key, lambda key=key: built.append(key) or key)
    assert built == ["aa", "bbbb", "aa"]


def test_one_thread_builds_while_the_others_wait():
    built, cache, start = [], LRU(2), threading.Barrier(4)

    def build():
        built.append(1)
        return object()

    found = []
    threads = [
        threading.Thread(target=lambda: (start.wait(), found.append(cache.get("x", build))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1 and len(set(map(id, found))) == 1


def test_a_failed_build_leaves_nothing():
    cache = LRU(2)
    with pytest.raises(ZeroDivisionError):
        cache.get("x", lambda: 1 / 0)
    assert not cache._building, "the lock of a failed build is kept"
    assert cache.get("x", lambda: 1) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_finds_free_locks():
    cache = LRU(2)
    with cache._lock:
        child = os.fork()
        if not child:
            os._exit(cache.get("x", lambda: 7))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


# ------------------------------------------------------------------------------------ warnings


@pytest.mark.parametrize("patterns", [("", ""), ("", "x"), ("x", "")], ids=str)
def test_threads_that_overlap_restore_the_warning_filters(patterns):
    """The first to enter is the first to leave, which `warnings.catch_warnings` cannot bear."""
    before, inside, leave = list(warnings.filters), threading.Event(), threading.Event()
    first, second = quiet(patterns[0]), quiet(patterns[1])
    first.__enter__()

    def overlap():
        with second:
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=overlap)
    thread.start()
    assert inside.wait(60)
    first.__exit__(None, None, None)
    still_hidden = len(warnings.filters) - len(before)
    leave.set()
    thread.join()
    assert still_hidden == 1 and warnings.filters == before


def test_only_the_named_modules_are_quiet():
    here = __name__.replace(".", r"\.")
    with quiet("PIL"), pytest.warns(UserWarning, match="seen"):
        warnings.warn("seen", stacklevel=1)
    with quiet(here):
        warnings.warn("not seen", stacklevel=1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_forked_inside_quiet_hears_warnings_again():
    before = list(warnings.filters)
    with quiet():
        child = os.fork()
    if not child:
        with quiet():
            hidden = len(warnings.filters) - len(before)
        os._exit(0 if hidden == 1 and warnings.filters == before else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# -------------------------------------------------------------------------------------- others


def test_a_missing_package_names_its_extra():
    with pytest.raises(MissingExtraError, match=r"Plots needs surely_absent.*sktransfer\[plots\]"):
        import_optional("surely_absent.module", "plots", "Plots")


def test_threads_stay_within_what_torch_was_told():
    assert 1 <= thread_share() <= max(1, torch.get_num_threads())
