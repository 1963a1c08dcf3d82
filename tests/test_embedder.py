"""`ImageEmbedder`: right numbers, bits that depend on the image alone, errors that help."""

import os
import pickle
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import sklearn
import torch
from counting import CountingBackbone, n_seen
from image_data import encode, smooth_pixels
from new_process import run
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from torch import nn
from torchvision.models import get_model, get_model_weights
from torchvision.transforms.v2 import Normalize

from sktransfer import ImageEmbedder, make_transfer_stack
from sktransfer._engine import _networks, has_bfloat16, has_openvino
from sktransfer._utils._lru import LRU
from sktransfer._utils._threads import thread_share
from sktransfer.backbones import Preprocessing, load_backbone, resolve_backbone
from sktransfer.datasets import make_shapes
from sktransfer.exceptions import (
    FingerprintMismatchError,
    ImageReadError,
    ImageReadWarning,
    RandomWeightsWarning,
    UnknownBackboneError,
)
from sktransfer.images import decode_image, fit_to_network

needs_openvino = pytest.mark.skipif(not has_openvino(), reason="needs openvino")
ENGINES = ["torch", pytest.param("openvino", marks=needs_openvino)]
needs_bfloat16 = pytest.mark.skipif(not has_bfloat16(), reason="this CPU has no bfloat16")


@pytest.fixture(scope="module")
def images():
    return make_shapes(n_samples=21, image_size=40, random_state=0).data


@pytest.fixture
def files(images, tmp_path):
    paths = [tmp_path / f"{position:02}.png" for position in range(len(images))]
    for path, pixels in zip(paths, images, strict=True):
        Image.fromarray(pixels).save(path)
    return [str(path) for path in paths]


def relative_difference(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


# -------------------------------------------------------------------------------- right numbers


@pytest.fixture(scope="module")
def saved_network(request, images, tmp_path_factory):
    """(name, weights file, the same network with its last layer removed)."""
    torch.manual_seed(0)
    network = get_model(request.param, weights=None)
    tensors = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    network.train()(tensors)  # batch-norm statistics that keep activations at a normal size
    file = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(network.state_dict(), file)
    if hasattr(network, "fc"):
        network.fc = nn.Identity()
    else:
        network.classifier[-1] = nn.Identity()
    return request.param, file, network.eval()


@pytest.mark.parametrize(
    ("saved_network", "engine"),
    [
        ("mobilenet_v3_small", "torch"),
        ("shufflenet_v2_x0_5", "torch"),
        pytest.param("shufflenet_v2_x0_5", "openvino", marks=needs_openvino),
    ],
    indirect=["saved_network"],
)
def test_equals_torchvisions_network_given_the_same_pixels(saved_network, engine, images):
    name, file, network = saved_network
    embedder = ImageEmbedder(name, weights=file, engine=engine)
    found = embedder.fit_transform(images[:5])

    preprocessing = embedder.preprocessing_
    pixels = [fit_to_network(decode_image(p), preprocessing) for p in images[:5]]
    normalize = Normalize(preprocessing.mean, preprocessing.std)
    with torch.inference_mode():
        expected = network(normalize(torch.stack(pixels) / 255)).numpy()
    assert found.dtype == np.float32
    assert relative_difference(found, expected) < 1e-4


@pytest.mark.parametrize("saved_network", ["mobilenet_v3_small"], indirect=True)
def test_close_to_torchvisions_whole_preset(saved_network, images):
    name, file, network = saved_network
    preset = get_model_weights(name).DEFAULT.transforms()
    with torch.inference_mode():
        expected = network(torch.stack([preset(Image.fromarray(p)) for p in images[:5]])).numpy()
    found = ImageEmbedder(name, weights=file, engine="torch").fit_transform(images[:5])
    # Pillow and torch round some resized pixels to neighbouring values.
    assert relative_difference(found, expected) < 3e-3


@pytest.mark.parametrize("backbone", ["tiny_mobilenet", "tiny_resnet"])
@pytest.mark.parametrize("engine", ENGINES)
def test_engines_agree_with_eager_torch(backbone, engine, images):
    spec = resolve_backbone(backbone, image_size=64)
    pixels = torch.stack([fit_to_network(decode_image(p), spec.preprocessing) for p in images])
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in (spec.preprocessing.mean, spec.preprocessing.std)
    )
    with torch.inference_mode():
        expected = load_backbone(spec)((pixels / 255 - mean) / std).numpy()
    embedder = ImageEmbedder(backbone, image_size=64, engine=engine)
    assert relative_difference(embedder.fit_transform(images), expected) < 1e-4


@needs_bfloat16
@pytest.mark.parametrize("engine", ENGINES)
def test_bfloat16_is_close_and_kept_apart(engine, images):
    exact = ImageEmbedder(image_size=64, engine=engine).fit_transform(images)
    rounded = ImageEmbedder(image_size=64, engine=engine, precision="bfloat16")
    rounded = rounded.fit_transform(images)
    assert 0 < relative_difference(rounded, exact) < 0.05


# ------------------------------------------------------------------- a row depends on its image


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("backbone", ["tiny_mobilenet", "tiny_resnet"])
def test_a_rows_bits_depend_on_its_image_alone(backbone, engine, images):
    def embed(positions, **parameters):
        embedder = ImageEmbedder(backbone, image_size=64, engine=engine, cache=None, **parameters)
        return embedder.fit_transform(images[positions])

    everything = np.arange(len(images))
    rows = embed(everything)
    order = np.random.default_rng(0).permutation(len(images))
    assert (embed(order) == rows[order]).all()
    assert (embed([7]) == rows[7]).all()
    assert (embed([3, 7, 7, 1]) == rows[[3, 7, 7, 1]]).all()
    assert (embed(everything, batch_size=1) == rows).all()


def test_exact_decoding_is_kept_apart_and_changes_large_jpegs_only():
    large = smooth_pixels(600, 800)
    images = [encode(Image.fromarray(p), "JPEG", quality=90) for p in (large, large[::6, ::6])]
    embedder = ImageEmbedder(image_size=32, engine="torch")
    fast = embedder.fit_transform(images)
    exact = clone(embedder).set_params(decoding="exact").fit_transform(images)
    assert (fast[1] == exact[1]).all()
    assert (fast[0] != exact[0]).any()
    assert np.corrcoef(fast[0], exact[0])[0, 1] > 0.99
    assert (embedder.set_params(cache=None).fit_transform(images) == fast).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_rows_bits_do_not_depend_on_threads(engine, images):
    embedder = ImageEmbedder("tiny_resnet", image_size=64, engine=engine, cache=None).fit(images)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = embedder.transform(images)
        torch.set_num_threads(2)
        together = embedder.transform(images)
    finally:
        torch.set_num_threads(before)
    assert (alone == together).all()


def test_networks_that_are_built_and_run_in_threads_do_not_disturb_each_other(images):
    """Building one network must leave alone those that other threads run meanwhile."""

    def embed(setting):
        backbone, size = setting
        embedder = ImageEmbedder(backbone, image_size=size, engine="torch", cache=None)
        return embedder.fit_transform(images[:8])

    settings = [(name, size) for size in (48, 64, 80) for name in ("tiny_resnet", "tiny_mobilenet")]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(embed, settings))
    for setting, rows in zip(settings, together, strict=True):
        assert (rows == embed(setting)).all()


def test_cached_rows_equal_fresh_ones(files):
    embedder = ImageEmbedder(image_size=64).fit(files)
    first = embedder.transform(files)
    assert (embedder.transform(files[::-1]) == first[::-1]).all()
    assert (ImageEmbedder(image_size=64, cache=None).fit_transform(files) == first).all()


# ------------------------------------------------------------------------------- once, and errors


def test_each_image_goes_through_the_network_once(files, tmp_path):
    log = tmp_path / "log"
    embedder = ImageEmbedder(CountingBackbone(log)).fit(files)
    embedder.transform(files[:15])
    assert n_seen(log) == 15
    clone(embedder).fit_transform(files[::-1])
    assert n_seen(log) == len(files)


def test_without_cache_duplicates_are_still_embedded_once(files, tmp_path):
    log = tmp_path / "log"
    rows = ImageEmbedder(CountingBackbone(log), cache=None).fit_transform([files[0]] * 9)
    assert n_seen(log) == 1
    assert (rows == rows[0]).all()


@pytest.mark.parametrize("cache", [None, True])
def test_bad_images_do_not_stop_the_rest(files, tmp_path, cache):
    log = tmp_path / "log"
    (tmp_path / "broken.jpg").write_text("not an image")
    mixed = [*files[:4], str(tmp_path / "broken.jpg"), *files[4:8], str(tmp_path / "missing.png")]
    embedder = ImageEmbedder(CountingBackbone(log), cache=cache)

    with pytest.raises(ImageReadError, match="2 image") as caught:
        embedder.fit_transform(mixed)
    assert [error.index for error in caught.value.errors] == [4, 9]
    assert caught.value.errors[1].path.endswith("missing.png")
    assert "no such file" in str(caught.value)
    assert "All other images were embedded" in str(caught.value)
    assert n_seen(log) == 8

    embedder.set_params(on_error="nan")
    with pytest.warns(ImageReadWarning, match="2 of 10"):
        rows = embedder.fit_transform(mixed)
    assert np.isnan(rows).all(axis=1).nonzero()[0].tolist() == [4, 9]
    assert (
        rows[[0, 5]] == ImageEmbedder(CountingBackbone(log)).fit_transform([files[0], files[4]])
    ).all()
    assert [error.index for error in embedder.errors_] == [4, 9]
    if cache:
        assert n_seen(log) == 8


def test_a_set_with_only_bad_images(tmp_path):
    with pytest.warns(ImageReadWarning, match="1 of 1"):
        rows = ImageEmbedder(on_error="nan").fit_transform([str(tmp_path / "missing.png")])
    assert np.isnan(rows).all()
    with pytest.raises(ImageReadError) as caught:
        ImageEmbedder().fit_transform([str(tmp_path / "missing.png")])
    assert "All other images" not in str(caught.value)


def test_warnings_point_at_the_line_that_led_to_them(tmp_path):
    pipeline = make_pipeline(ImageEmbedder(on_error="nan"), FunctionTransformer())
    with pytest.warns(ImageReadWarning) as caught:
        pipeline.fit_transform([str(tmp_path / "missing.png")])
    assert [warning.filename for warning in caught] == [__file__]


def test_the_error_pickles():
    error = ImageReadError([(3, "a.jpg", "no such file")], "remove it")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_too_many_pixels_are_refused(images):
    with pytest.raises(ImageReadError, match="max_pixels"):
        ImageEmbedder(max_pixels=100, engine="torch", cache=None).fit_transform(images[:1])


# ---------------------------------------------------------------------------- fit and parameters


def test_fit_opens_no_image_and_loads_no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("loaded")

    monkeypatch.setattr("sktransfer._engine._networks.shared_network", refuse)
    embedder = ImageEmbedder("resnet50").fit(["nowhere.jpg"])
    assert embedder.n_features_out_ == 2048
    assert embedder.get_feature_names_out()[[0, -1]].tolist() == ["resnet50_0", "resnet50_2047"]


def test_what_is_cached_needs_no_network(files, monkeypatch):
    first = ImageEmbedder(image_size=64, engine="torch").fit_transform(files)

    def refuse(*args, **kwargs):
        raise AssertionError("loaded")

    monkeypatch.setattr("sktransfer._engine._networks.Network.runner", refuse)
    again = ImageEmbedder(image_size=64, engine="torch").fit_transform(files)
    assert (again == first).all()


def test_a_pickle_is_small_and_predicts_the_same(images):
    embedder = ImageEmbedder("tiny_resnet", image_size=64).fit(images)
    rows = embedder.transform(images)
    data = pickle.dumps(embedder)
    assert len(data) < 5_000
    assert (pickle.loads(data).transform(images) == rows).all()


def test_other_weights_after_fit_are_refused(images, tmp_path):
    file = tmp_path / "weights.pth"
    network = get_model("shufflenet_v2_x0_5", weights=None)
    torch.save(network.state_dict(), file)
    embedder = ImageEmbedder("shufflenet_v2_x0_5", weights=file, image_size=64).fit(images)
    expected = embedder.fingerprint_
    network.fc.bias.data += 1
    torch.save(network.state_dict(), file)
    with pytest.raises(FingerprintMismatchError, match=expected):
        embedder.transform(images)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image_size": 96}, "fitted with .*image_size=64.*now mean .*image_size=96.* fit again"),
        ({"resize": "squash"}, "fitted with .*resize='squash'.* fit again"),
        ({"decoding": "exact"}, "fitted with .*decoding='exact'.* fit again"),
        ({"on_error": "ignore"}, "'on_error' parameter of ImageEmbedder must be"),
        ({"n_test_views": 0}, "'n_test_views' parameter of ImageEmbedder must be"),
        ({"precision": "float23"}, "'precision' parameter of ImageEmbedder must be"),
    ],
)
def test_changes_after_fit_are_refused_or_checked(changed, message, images):
    embedder = ImageEmbedder(image_size=64, engine="torch").fit(images)
    with pytest.raises(ValueError, match=message):
        embedder.set_params(**changed).transform(images)


def test_another_backbone_after_fit_is_named(images):
    embedder = ImageEmbedder(cache=None).fit(images).set_params(backbone="tiny_resnet")
    expected = "(?s)'tiny_resnet'.*expected: .*tiny_mobilenet.*Hint: restore `backbone`"
    with pytest.raises(FingerprintMismatchError, match=expected):
        embedder.transform(images)


def test_changes_to_the_network_do_not_affect_the_embedder(images):
    embedder = ImageEmbedder(image_size=64, engine="torch", cache=None).fit(images)
    before = embedder.transform(images)
    network = embedder.network_()
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    for parameter in network.parameters():
        parameter.data.zero_()
    assert any(parameter.any() for parameter in embedder.network_().parameters())
    np.testing.assert_array_equal(embedder.transform(images), before)
    with pytest.raises(NotFittedError):
        ImageEmbedder().network_()


def test_random_weights_warn_every_time_and_are_the_same_every_time(images):
    params = {"weights": None, "image_size": 64, "engine": "torch", "cache": None}
    embedder = ImageEmbedder("shufflenet_v2_x0_5", **params).fit(images)
    rows = []
    for _ in range(2):
        with pytest.warns(RandomWeightsWarning) as caught:
            rows.append(embedder.transform(images))
        assert len(caught) == 1
    assert (rows[0] == rows[1]).all()


@pytest.mark.parametrize(
    ("parameters", "error", "hint"),
    [
        ({"backbone": "resnet5O"}, UnknownBackboneError, "resnet50"),
        ({"backbone": 3}, ValueError, "backbone"),
        ({"precision": "float16", "device": "cpu"}, ValueError, "needs a GPU"),
        ({"precision": "half"}, ValueError, "precision"),
        ({"device": "tpu"}, ValueError, "device"),
        ({"device": "cuda:93"}, ValueError, "not available"),
        ({"on_error": "ignore"}, ValueError, "on_error"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"image_size": 0}, ValueError, "image_size"),
    ],
)
def test_bad_parameters_are_named_by_fit(parameters, error, hint, images):
    with pytest.raises(error, match=hint):
        ImageEmbedder(**parameters).fit(images)


def test_a_custom_module_that_changes_its_width_is_reported(images):
    class Fickle(nn.Module):
        def forward(self, pixels):
            return pixels.flatten(1)[:, : 5 if len(pixels) == 1 else 7]

    with pytest.raises(ValueError, match=r"expected \(4, 5\)"):
        ImageEmbedder(Fickle(), cache=None).fit_transform(images)


def test_numbers_that_are_not_finite_are_reported(images):
    class Lost(nn.Module):
        def forward(self, pixels):
            return pixels.mean((2, 3)).log()  # of a negative number

    lost = Lost()
    lost.preprocessing = Preprocessing(8, None, mean=(9.0, 9.0, 9.0))
    with pytest.raises(ValueError, match=r"Lost' gave numbers that are not finite, in float32"):
        ImageEmbedder(lost, cache=None).fit_transform(images)


class Undigested(nn.Module):
    """Nobody can say in which order its pairs are, so that each instance has its own rows."""

    def __init__(self):
        super().__init__()
        self.pairs = {("a", 1), ("b", 2)}

    def forward(self, pixels):
        return pixels.mean((2, 3))


def test_a_fitted_embedder_with_any_module_can_be_pickled(images):
    embedder = ImageEmbedder(Undigested(), cache=None).fit(images)
    again = pickle.loads(pickle.dumps(embedder))
    np.testing.assert_array_equal(again.transform(images), embedder.transform(images))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_everything_that_trains_works_in_a_forked_child():
    program = """
import os, signal
import numpy as np, torch
from torchvision.transforms import v2
from sktransfer import FineTuneClassifier, HeadClassifier, ImageEmbedder, MultiViewClassifier
from sktransfer.datasets import make_shapes
from sktransfer.images import decode_image
torch.set_num_threads(2)
torch.nn.Conv2d(3, 32, 7)(torch.randn(4, 3, 224, 224))  # the threads of the kernels are there
network = torch.nn.Sequential(
    torch.nn.Conv2d(3, 300, 16, 16), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
)
shapes = make_shapes(40, random_state=0)
pixels, blur = torch.full((3, 500, 500), 0.5, dtype=torch.half), v2.GaussianBlur(5)
views = torch.zeros(40, 4, 512, dtype=torch.bfloat16)
child = os.fork()
if child == 0:
    signal.alarm(60)
    decode_image(pixels)
    ImageEmbedder(augmentation=blur, n_views=2).fit([np.full((500, 500), 0.5)])
    MultiViewClassifier(HeadClassifier(max_epochs=1)).fit(views, shapes.target)
    rows = ImageEmbedder(network, cache=None).fit_transform(shapes.data)
    wide = np.tile(rows, (10, 5))
    HeadClassifier((256,), max_epochs=2).fit(wide, np.tile(shapes.target, 10)).predict(wide)
    tuner = FineTuneClassifier(trainable_stages=1, max_epochs=1, image_size=64, engine="torch")
    tuner.fit(shapes.data, shapes.target)
    os._exit(0)
done = os.waitpid(child, 0)[1]
assert done == 0, done
"""
    run(program)


def test_an_error_inside_the_network_is_not_swallowed(images):
    class Broken(nn.Module):
        def forward(self, pixels):
            if pixels.max() > 5:  # the probe with black pixels passes
                raise ZeroDivisionError("in the network")
            return pixels.mean((2, 3)) + 0 * pixels.amax((2, 3)).clamp(max=-1)

    broken = Broken()
    broken.preprocessing = Preprocessing(8, None, std=(0.01, 0.01, 0.01))
    with pytest.raises(ZeroDivisionError, match="in the network"):
        ImageEmbedder(broken, cache=None).fit_transform(images)
    assert thread_share() >= 1  # and the next call finds the threads in order


def test_progress_counts_images_and_nothing_else(images, capsys, monkeypatch):
    """One bar with a name; neither loading a network nor what is in the cache has a rate."""
    build = _networks.Network._build
    monkeypatch.setattr(_networks, "_runners", LRU(4))
    monkeypatch.setattr(_networks.Network, "_build", lambda *args: time.sleep(2) or build(*args))
    embedder = ImageEmbedder(image_size=64, engine="torch", verbose=1)
    embedder.fit(images).transform(images[:1])
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    last = captured.err.rsplit("\r", 1)[-1]
    assert "1/1" in last and "[00:0" in last
    seconds = float(re.search(r"\[00:0(\d)", last)[1])
    assert seconds < 2

    embedder.transform(images)  # one of them is in the cache
    assert "5%" in (shown := capsys.readouterr().err) and "21/21" in shown
    embedder.transform(images)
    assert capsys.readouterr().err == ""

    embedder.set_params(augmentation="flip", n_views=2).fit_transform(images[:3])
    last = capsys.readouterr().err.rsplit("\r", 1)[-1]
    assert "6/6" in last and "view" in last  # not images


# scikit-learn's stack fits its last step on arrays and gives it frames.
@pytest.mark.filterwarnings("ignore:X has feature names, but LogisticRegression was fitted")
@pytest.mark.parametrize("output", ["pandas", "polars"])
def test_frames_that_scikit_learn_is_told_to_give(images, output):
    pytest.importorskip(output)
    with sklearn.config_context(transform_output=output):
        embedder = ImageEmbedder(image_size=64, engine="torch")
        frame = embedder.fit_transform(images)
        assert list(frame.columns) == list(embedder.get_feature_names_out())
        target = np.arange(len(images)) % 2
        backbones = ["tiny_mobilenet", ("again", "tiny_mobilenet")]
        stack = make_transfer_stack(
            backbones, LogisticRegression(), cv=2, image_size=64, engine="torch"
        )
        assert stack.fit(images, target).predict(images).shape == (21,)
        assert len(stack.get_feature_names_out()) == 2
        assert stack.transform(images).shape == (21, 2)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_embeds_too(engine, images):
    embedder = ImageEmbedder("tiny_resnet", image_size=64, engine=engine).fit(images)
    rows = embedder.transform(images[:10])
    child = os.fork()
    if child == 0:
        status = 1
        try:
            embedder.set_params(cache=None)
            status = int(not (embedder.transform(images)[:10] == rows).all())
        finally:
            os._exit(status)
    deadline = time.monotonic() + 120
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.05)
    if ended == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ended == (child, 0)


class BrokenPath:
    """A path that cannot even say where it leads."""

    def __fspath__(self):
        raise RuntimeError("the share is not mounted")


def test_odd_elements_are_bad_rows_and_end_nothing(tmp_path, images):
    released = memoryview(b"\xff\xd8")
    released.release()
    odd = [BrokenPath(), released, memoryview(bytes(9))[::2], torch.ones(3, 4, 4).to_sparse()]
    embedder = ImageEmbedder(image_size=32, engine="torch", on_error="nan", cache=tmp_path)
    with pytest.warns(ImageReadWarning, match="4 of 6 images"):
        rows = embedder.fit_transform([images[0], *odd, images[1]])
    assert np.isfinite(rows[[0, 5]]).all()
    assert np.isnan(rows[1:5]).all()
    assert [(index, path) for index, path, _ in embedder.errors_] == [
        (i, None) for i in range(1, 5)
    ]
