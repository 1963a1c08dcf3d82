"""Duplicates: exact and near copies, groups, and pairs across splits."""

import os
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import StratifiedGroupKFold

from sktransfer import ImageEmbedder
from sktransfer.datasets import make_shapes
from sktransfer.exceptions import ImageReadWarning
from sktransfer.inspection import find_duplicates

pytest.importorskip("pandas")


def textures(n_images, side=80):
    """Images that do not resemble each other: a few random colors, enlarged smoothly."""
    rng = np.random.default_rng(0)
    for _ in range(n_images):
        colors = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        yield np.asarray(Image.fromarray(colors).resize((side, side), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def images():
    return list(textures(60))


def jpeg(pixels, quality=60):
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


COPIES = {
    "exact": lambda pixels: pixels.copy(),
    "encoded": jpeg,
    "smaller": lambda pixels: np.asarray(Image.fromarray(pixels).resize((60, 60))),
    "mirrored": lambda pixels: pixels[:, ::-1],
    "cropped": lambda pixels: pixels[4:-4, 4:-4],
}


def test_copies_are_found(images):
    copies = [copy(images[row]) for row, copy in enumerate(COPIES.values(), start=17)]
    found = find_duplicates([*images, *copies])
    pairs = sorted(found.pairs[["first", "second"]].to_numpy().tolist())
    assert pairs == [[17, 60], [18, 61], [19, 62], [20, 63], [21, 64]]
    assert found.pairs["exact"].tolist() == [True, False, False, False, False]
    assert found.pairs["distance"].is_monotonic_increasing
    np.testing.assert_array_equal(found.groups[60:], found.groups[17:22])
    assert len(np.unique(found.groups)) == 60


def test_different_images_are_no_duplicates(images):
    found = find_duplicates(images)
    assert found.pairs.empty and len(np.unique(found.groups)) == 60


def test_only_exact_copies_are_asked_for(images):
    found = find_duplicates([*images, images[3], images[5][:, ::-1], images[3]], threshold=0)
    assert found.pairs[["first", "second"]].to_numpy().tolist() == [[3, 60], [3, 62]]
    assert (found.pairs["distance"] == 0).all()


def test_pairs_across_splits(images):
    X = [*images, images[3], images[5][:, ::-1]]
    found = find_duplicates(X, splits=["train"] * 5 + ["test"] * 55 + ["test", "test"])
    crosses = dict(zip(found.pairs["second"], found.pairs["crosses"], strict=True))
    assert crosses == {60: True, 61: False}
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        find_duplicates(X, splits=["train"])


def test_copies_of_copies_are_one_group(images):
    mirrored = images[5][:, ::-1]
    groups = find_duplicates([*images, mirrored, jpeg(mirrored), images[5]]).groups
    assert len({groups[row] for row in (5, 60, 61, 62)}) == 1


def test_groups_go_into_a_splitter(images):
    X = [*images, *map(jpeg, images[:20])]
    y = np.arange(80) % 2
    y[60:] = y[:20]
    groups = find_duplicates(X).groups
    assert (groups[60:] == groups[:20]).all()
    for train, test in StratifiedGroupKFold(4).split(X, y, groups):
        assert not set(groups[train]) & set(groups[test])


def test_paths_are_named_and_other_files_with_the_same_content_are_exact(images, tmp_path):
    paths = [str(tmp_path / f"{name}.png") for name in range(60)]
    for path, pixels in zip(paths, images, strict=True):
        Image.fromarray(pixels).save(path)
    (tmp_path / "copy.png").write_bytes((tmp_path / "8.png").read_bytes())
    pairs = find_duplicates([*paths, str(tmp_path / "copy.png")]).pairs
    assert pairs.loc[0, ["first_path", "second_path"]].tolist() == [
        paths[8],
        str(tmp_path / "copy.png"),
    ]
    assert pairs["exact"].tolist() == [True]


def test_names_that_are_no_text_are_escaped(tmp_path):
    content = jpeg(next(textures(1)))
    for name in (b"x\xe9.jpg", b"b.jpg"):
        (tmp_path / os.fsdecode(name)).write_bytes(content)
    found = find_duplicates(sorted(tmp_path.iterdir()), threshold=0)
    assert found.pairs["second_path"].tolist() == [f"{tmp_path}/x\\udce9.jpg"]


def test_an_unreadable_image_stands_alone(images, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"not an image")
    X = [*images, str(tmp_path / "broken.jpg"), str(tmp_path / "gone.jpg"), jpeg(images[9])]
    with pytest.warns(ImageReadWarning, match="2 of 64 images.*`errors_` lists them all"):
        found = find_duplicates([images[9], *X])
    assert found.pairs[["first", "second"]].to_numpy().tolist() == [[0, 10], [0, 63]]
    assert [error.index for error in found.errors_] == [61, 62]


@pytest.mark.parametrize("n_images", [1, 2])
def test_a_pair_of_images_has_no_neighborhood(images, n_images):
    found = find_duplicates(images[:n_images])
    assert found.pairs.empty and found.groups.tolist() == list(range(n_images))


def test_an_embedder_of_ones_own():
    X = make_shapes(40, random_state=0).data
    embedder = ImageEmbedder("tiny_resnet", image_size=32, cache=None)
    found = find_duplicates([*X, X[7]], embedder=embedder, threshold=1e-6)
    assert found.pairs[["first", "second"]].to_numpy().tolist() == [[7, 40]]
    views = embedder.set_params(augmentation="flip", n_views=2)
    found = find_duplicates([*X, X[7][:, ::-1]], embedder=views, threshold=1e-3)
    assert found.pairs[["first", "second"]].to_numpy().tolist() == [[7, 40]]
