"""Views are the same everywhere, and embedded once."""

import pickle
import random
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
import torch
from counting import CountingBackbone, n_seen
from new_process import run
from PIL import Image
from sklearn import config_context
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from torchvision.transforms import v2

from sktransfer import ImageEmbedder, make_transfer_pipeline, make_transfer_stack
from sktransfer.augmentation import Views, resolve_augmentation
from sktransfer.augmentation._random import SeededRandomness
from sktransfer.datasets import make_shapes
from sktransfer.exceptions import ImageReadError, ImageReadWarning, UnreadableImageError
from sktransfer.images import decode_image, digest_image

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ["flip", "crop", "color", "auto"]


@pytest.fixture(scope="module")
def shapes():
    return make_shapes(n_samples=24, random_state=0)


@pytest.fixture
def paths(shapes, tmp_path):
    """The shapes as PNG files."""
    paths = [tmp_path / f"{number}.png" for number in range(len(shapes.data))]
    for path, pixels in zip(paths, shapes.data, strict=True):
        Image.fromarray(pixels).save(path)
    return list(map(str, paths))


def views_of(augmentation="crop", n_views=4, seed=0):
    return Views(resolve_augmentation(augmentation), n_views, seed)


def make(views, image, number):
    """Pixels of one view."""
    return views.apply(decode_image(image), digest_image(image), number)


def embedder(augmentation="crop", n_views=3, **parameters):
    return ImageEmbedder(
        augmentation=augmentation, n_views=n_views, image_size=32, engine="torch", **parameters
    )


# --------------------------------------------------------------------------------------------
# What a view is
# --------------------------------------------------------------------------------------------


def test_view_0_is_the_image(shapes):
    views, image = views_of(), shapes.data[0]
    assert len(views) == 4
    assert views.digest(digest_image(image), 0) == digest_image(image)
    assert torch.equal(make(views, image, 0), decode_image(image))


def test_flip_mirrors_every_second_view(shapes):
    views, image = views_of("flip", 8), shapes.data[0]
    assert torch.equal(make(views, image, 1), decode_image(image).flip(2))
    assert torch.equal(make(views, image, 2), decode_image(image))
    digests = [views.digest(digest_image(image), number) for number in range(8)]
    assert len(set(digests)) == 2 and digests[0] == digest_image(image)


@pytest.mark.parametrize("augmentation", [*NAMES[1:], v2.AugMix(), v2.GaussianNoise()])
def test_views_are_the_same_in_every_thread_and_order(shapes, augmentation):
    views = views_of(augmentation)
    wanted = [(image, number) for image in shapes.data[:8] for number in range(4)]
    first = [make(views, *item) for item in wanted]
    again = pickle.loads(pickle.dumps(views))
    with ThreadPoolExecutor(4) as pool:
        second = list(pool.map(lambda item: make(again, *item), wanted[::-1]))
    assert all(map(torch.equal, first, second[::-1]))
    assert len({pixels.numpy().tobytes() for pixels in first}) > len(wanted) // 2


@pytest.mark.parametrize("augmentation", NAMES)
def test_making_views_leaves_global_random_numbers_alone(shapes, augmentation):
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    for number in range(4):
        make(views_of(augmentation), shapes.data[0], number)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert np.array_equal(before[2], np.random.get_state()[1])


def test_a_digest_depends_on_all_that_decides_on_a_view(shapes):
    def digest(image=0, number=1, **changes):
        return views_of(**changes).digest(digest_image(shapes.data[image]), number)

    changed = [
        digest(number=2),
        digest(image=1),
        digest(seed=1),
        digest(augmentation="color"),
        digest(augmentation="flip"),
    ]
    assert len({digest(), *changed}) == 6
    assert digest() == digest() == digest(n_views=9)
    assert digest(augmentation=v2.RandomRotation(10)) != digest(augmentation=v2.RandomRotation(20))


def test_like_functions_draw_from_the_seeded_generator():
    zeros = torch.zeros(3)
    with SeededRandomness(1):
        inside = torch.randn_like(zeros), torch.rand_like(zeros, dtype=torch.float64)
    with SeededRandomness(1):
        assert torch.equal(torch.randn(3), inside[0])
        assert torch.equal(torch.rand(3, dtype=torch.float64), inside[1])


def test_large_images_are_shrunk_before_named_augmentations():
    large = np.zeros((900, 1000, 3), dtype=np.uint8)
    assert max(make(views_of("crop"), large, 1).shape) <= 800 * 1000 / 900 + 1
    assert make(views_of(v2.RandomRotation(0)), large, 1).shape == (3, 900, 1000)


def test_an_augmentation_that_fails_makes_the_image_unreadable(shapes):
    with pytest.raises(UnreadableImageError, match="augmentation fails on it"):
        make(views_of(v2.RandomCrop(10_000)), shapes.data[0], 1)


# --------------------------------------------------------------------------------------------
# Embedded views
# --------------------------------------------------------------------------------------------


def test_shapes_of_the_embeddings(shapes):
    one = embedder(n_views=3, n_test_views=1)
    assert one.fit_transform(shapes.data).shape == (24, 3, one.n_features_out_)
    assert one.transform(shapes.data).shape == (24, one.n_features_out_)
    assert one.set_params(n_test_views=2).transform(shapes.data).shape[:2] == (24, 2)
    assert one.set_params(n_test_views=None).transform(shapes.data).shape[:2] == (24, 3)
    test_only = embedder(n_views=1, n_test_views=4)
    assert test_only.fit_transform(shapes.data).shape == (24, one.n_features_out_)
    assert test_only.transform(shapes.data).shape[:2] == (24, 4)
    assert test_only.transform(shapes.data[:1]).shape[:2] == (1, 4)


@pytest.mark.parametrize("cache", [True, None])
def test_views_are_embedded_like_images(shapes, cache):
    rows = embedder("crop", 3, cache=cache).fit_transform(shapes.data)
    views = views_of("crop", 3)
    plain = ImageEmbedder(image_size=32, engine="torch", cache=None)
    for number in range(3):
        images = [make(views, image, number).numpy().transpose(1, 2, 0) for image in shapes.data]
        np.testing.assert_array_equal(rows[:, number], plain.fit_transform(images))


def test_rows_do_not_depend_on_the_other_images_and_views(shapes):
    many = embedder(n_views=5).fit_transform(shapes.data)
    few = embedder(n_views=2, cache=None).fit_transform(shapes.data[::-3])
    np.testing.assert_array_equal(few, many[::-3, :2])


def test_views_are_the_same_in_another_process(paths, tmp_path):
    rows = embedder("auto").fit_transform(paths)
    program = (
        "import joblib\n"
        "from sktransfer import ImageEmbedder\n"
        "model = ImageEmbedder(augmentation='auto', n_views=3, image_size=32, engine='torch',"
        " cache=None)\n"
        "joblib.dump(model.fit_transform(paths), out)"
    )
    run(program, paths=paths, out=tmp_path / "rows")
    np.testing.assert_array_equal(joblib.load(tmp_path / "rows"), rows)


def test_the_seed(shapes):
    assert embedder(random_state=7).fit(shapes.data).seed_ == 7
    drawn = embedder(random_state=None)
    seeds = [clone(drawn).fit(shapes.data).seed_ for _ in range(2)]
    assert seeds[0] != seeds[1]
    rows = [embedder(random_state=seed).fit_transform(shapes.data) for seed in (0, 1)]
    np.testing.assert_array_equal(rows[0][:, 0], rows[1][:, 0])
    assert not np.array_equal(rows[0][:, 1], rows[1][:, 1])


def test_a_search_over_a_stack_embeds_each_view_once(shapes, tmp_path):
    stack = make_transfer_stack(
        [("a", CountingBackbone(tmp_path / "log"))],
        LogisticRegression(max_iter=2000),
        cv=2,
        augmentation="crop",
        n_views=5,
        n_test_views=3,
    )
    grid = {"a__head__estimator__C": [0.01, 1.0], "a__embedder__n_views": [1, 5]}
    search = GridSearchCV(stack, grid, cv=2, error_score="raise").fit(shapes.data, shapes.target)
    search.predict(shapes.data)
    assert n_seen(tmp_path / "log") == 5 * len(shapes.data)


def test_repeated_views_are_embedded_once(shapes, tmp_path):
    model = ImageEmbedder(CountingBackbone(tmp_path / "log"), augmentation="flip", n_views=6)
    rows = model.fit_transform(shapes.data)
    np.testing.assert_array_equal(rows[:, :2], rows[:, 4:])
    assert n_seen(tmp_path / "log") == 2 * len(shapes.data)


@pytest.mark.parametrize("container", ["list", "Series", "column", "DataFrame"])
def test_containers(paths, container):
    rows = embedder().fit_transform(np.array(paths))
    if container in ("Series", "DataFrame"):
        pandas = pytest.importorskip("pandas")
        X = pandas.Series(paths) if container == "Series" else pandas.DataFrame({"path": paths})
    else:
        X = np.array(paths, dtype=object).reshape(-1, 1) if container == "column" else paths
    np.testing.assert_array_equal(embedder().fit_transform(X), rows)


@pytest.mark.parametrize("container", ["pandas", "polars"])
def test_set_output_leaves_three_dimensions_alone(shapes, container):
    pipeline = make_transfer_pipeline(
        head=LogisticRegression(), augmentation="flip", n_views=2, image_size=32
    )
    pipeline.set_output(transform=container).fit(shapes.data, shapes.target)
    with config_context(transform_output=container):
        rows = embedder().fit_transform(shapes.data)
        pipeline.fit(shapes.data, shapes.target)
    assert isinstance(rows, np.ndarray) and rows.ndim == 3
    assert not hasattr(embedder(), "get_feature_names_out")


def test_set_output_before_the_number_of_views(shapes):
    pytest.importorskip("pandas")
    model = embedder(n_views=1).set_output(transform="pandas").set_params(n_views=2)
    assert model.fit_transform(shapes.data).ndim == 3
    assert list(model.set_params(n_views=1).fit_transform(shapes.data).columns[:1]) == [
        "tiny_mobilenet_0"
    ]


# --------------------------------------------------------------------------------------------
# Unreadable images
# --------------------------------------------------------------------------------------------


def test_unreadable_images_are_named_once_by_their_place(paths, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    X = [*paths[:5], str(tmp_path / "text.png"), b"", *paths[5:], str(tmp_path / "missing.png")]
    with pytest.raises(ImageReadError) as caught:
        embedder().fit_transform(X)
    places = [(error.index, error.path) for error in caught.value.errors]
    assert places == [(5, X[5]), (6, None), (26, X[26])]


def test_unreadable_images_may_become_rows_of_nan(paths, shapes):
    model = make_transfer_pipeline(
        head=HistGradientBoostingClassifier(max_iter=2),
        augmentation="crop",
        n_views=2,
        image_size=32,
        on_error="nan",
    )
    with pytest.warns(ImageReadWarning, match="1 of 25 images"):
        rows = model["embedder"].fit_transform([*paths, "missing.png"])
    assert np.isnan(rows[-1]).all() and np.isfinite(rows[:-1]).all()
    with pytest.warns(ImageReadWarning):
        model.fit([*paths, "missing.png"], [*shapes.target, "star"])
        assert np.isfinite(model.predict_proba([*paths, "missing.png"])).all()


def test_an_image_that_is_too_small_for_the_augmentation(shapes):
    model = embedder(v2.RandomCrop(40), 2, on_error="nan").fit(shapes.data)
    with pytest.warns(ImageReadWarning, match="augmentation fails on it"):
        rows = model.transform([*shapes.data, np.zeros((20, 20), dtype=np.uint8)])
    assert np.isnan(rows).all(axis=(1, 2)).tolist() == [False] * 24 + [True]
