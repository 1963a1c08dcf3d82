"""Loaders of class folders and tables, and drawn shapes."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from sktransfer.datasets import load_image_csv, load_image_folder, make_shapes


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def relative(bunch, root):
    return [Path(path).relative_to(root).as_posix() for path in bunch.data]


# --- class folders ---------------------------------------------------------------------------


def test_a_folder_of_class_folders(tmp_path):
    touch(tmp_path, "dog/b.jpg", "dog/a.PNG", "cat/z.jpeg", "cat/deep/c.webp", "ant/1.tif")
    pets = load_image_folder(tmp_path)
    assert relative(pets, tmp_path) == [
        "ant/1.tif",
        "cat/deep/c.webp",
        "cat/z.jpeg",
        "dog/a.PNG",
        "dog/b.jpg",
    ]
    assert pets.target.tolist() == ["ant", "cat", "cat", "dog", "dog"]
    assert pets.target_names.tolist() == ["ant", "cat", "dog"]
    assert pets.data.dtype == object
    assert all(type(path) is str for path in pets.data)
    assert "5 images, 3 classes" in pets.DESCR
    assert "- cat: 2" in pets.DESCR


def test_what_is_hidden_or_no_image_is_ignored(tmp_path):
    touch(tmp_path, "dog/b.jpg", "dog/._b.jpg", "dog/Thumbs.db", "dog/.cache/c.jpg", "dog/n.txt")
    touch(tmp_path, ".git/a.jpg", "README.md", "stray.jpg")
    pets = load_image_folder(str(tmp_path))
    assert relative(pets, tmp_path) == ["dog/b.jpg"]
    assert pets.target_names.tolist() == ["dog"]


def test_the_extensions_are_a_parameter(tmp_path):
    touch(tmp_path, "dog/b.jpg", "dog/c.scan")
    for extensions in ((".scan",), ".scan", [".SCAN"]):
        pets = load_image_folder(tmp_path, extensions=extensions)
        assert relative(pets, tmp_path) == ["dog/c.scan"]


@pytest.mark.parametrize("extensions", ["jpg", ("jpg", ".png"), (), (None,)])
def test_extensions_begin_with_a_dot(tmp_path, extensions):
    touch(tmp_path, "dog/b.jpg")
    with pytest.raises(ValueError, match="begin with a dot"):
        load_image_folder(tmp_path, extensions=extensions)


def test_paths_are_as_relative_as_the_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "pets/dog/b.jpg")
    assert load_image_folder("pets").data.tolist() == [os.path.join("pets", "dog", "b.jpg")]


def test_a_class_folder_may_be_a_link(tmp_path):
    touch(tmp_path, "elsewhere/b.jpg", "pets/cat/a.jpg")
    (tmp_path / "pets" / "dog").symlink_to(tmp_path / "elsewhere")
    assert load_image_folder(tmp_path / "pets").target.tolist() == ["cat", "dog"]


def test_linked_folders_are_searched_once(tmp_path):
    touch(tmp_path, "elsewhere/b.jpg", "pets/cat/a.jpg", "pets/dog/c.jpg")
    (tmp_path / "pets" / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "pets" / "cat")
    found = load_image_folder(tmp_path / "pets")
    assert [Path(path).name for path in found.data] == ["a.jpg", "b.jpg", "c.jpg"]


def test_empty_classes_are_named(tmp_path):
    touch(tmp_path, "dog/b.jpg", "cat/a.txt", "cat/b.psd")
    (tmp_path / "ant").mkdir()
    with pytest.raises(ValueError, match=r"without images: ant, cat .*\.psd, \.txt"):
        load_image_folder(tmp_path)


def test_a_root_of_splits_says_what_to_call(tmp_path):
    touch(tmp_path, "train/dog/b.jpg", "Test/dog/a.jpg", "notes/readme.txt")
    with pytest.raises(ValueError, match="one by one") as caught:
        load_image_folder(tmp_path)
    for split in ("train", "Test"):
        assert f"load_image_folder({str(tmp_path / split)!r})" in str(caught.value)


def test_a_lone_split_is_recognised(tmp_path):
    touch(tmp_path, "train/dog/b.jpg", "train/cat/b.jpg")
    with pytest.raises(ValueError, match="one by one"):
        load_image_folder(tmp_path)


def test_splits_that_were_wrapped_in_folders_of_their_own_name_are_unwrapped(tmp_path):
    touch(tmp_path, "seg_train/seg_train/sea/a.jpg", "seg_test/seg_test/sea/b.jpg")
    with pytest.raises(ValueError, match="seg_test, seg_train, which look like parts") as caught:
        load_image_folder(tmp_path)
    for split in ("seg_train", "seg_test"):
        assert f"load_image_folder({str(tmp_path / split / split)!r})" in str(caught.value)


def test_one_folder_of_folders_is_no_class(tmp_path):
    touch(tmp_path, "images/dog/b.jpg", "images/cat/b.jpg")
    with pytest.raises(ValueError, match="one folder, images, with further folders") as caught:
        load_image_folder(tmp_path)
    assert f"load_image_folder({str(tmp_path / 'images')!r})" in str(caught.value)


def test_a_class_may_be_called_train(tmp_path):
    touch(tmp_path, "train/a.jpg", "bus/b.jpg", "test_tube/c.jpg")
    assert load_image_folder(tmp_path).target.tolist() == ["bus", "test_tube", "train"]


def test_a_class_may_have_folders(tmp_path):
    touch(tmp_path, "cat/male/a.jpg", "cat/female/b.jpg", "dog/male/c.jpg", "dog/female/d.jpg")
    assert load_image_folder(tmp_path).target.tolist() == ["cat", "cat", "dog", "dog"]


def test_folders_that_are_none_say_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"no folder nowhere.*{tmp_path}"):
        load_image_folder("nowhere")
    touch(tmp_path, "flat/a.jpg", "flat/b.jpg")
    with pytest.raises(NotADirectoryError, match=r"a\.jpg is a file"):
        load_image_folder("flat/a.jpg")
    with pytest.raises(ValueError, match=r"2 images but no folders.*load_image_csv"):
        load_image_folder("flat")
    (tmp_path / "void").mkdir()
    with pytest.raises(ValueError, match="void is empty"):
        load_image_folder("void")


# --- tables ----------------------------------------------------------------------------------


@pytest.fixture
def pets(tmp_path):
    """A function that writes a table over four images and loads it."""
    touch(tmp_path, "images/0007.jpg", "images/0008.jpg", "images/1e3.jpg", "images/sub/9.png")

    def load(text, *, encoding="utf-8", **parameters):
        table = tmp_path / "labels.csv"
        table.write_bytes(text.encode(encoding))
        defaults = {"image_column": "id", "label_column": "breed", "suffix": ".jpg"}
        return load_image_csv(table, tmp_path / "images", **(defaults | parameters))

    return load


def test_a_table_keeps_its_order_and_its_text(pets, tmp_path):
    bunch = pets("id,breed\n0008,pug\n1e3,beagle\n0007,pug\n")
    assert relative(bunch, tmp_path / "images") == ["0008.jpg", "1e3.jpg", "0007.jpg"]
    assert bunch.ids.tolist() == ["0008", "1e3", "0007"]
    assert bunch.target.tolist() == ["pug", "beagle", "pug"]
    assert bunch.target_names.tolist() == ["beagle", "pug"]
    assert "- pug: 2" in bunch.DESCR


def test_numeric_labels_stay_text(pets):
    assert pets("id,breed\n0008,01\n0007,1\n").target.tolist() == ["01", "1"]


def test_file_names_may_be_complete_and_lie_deeper(pets, tmp_path):
    bunch = pets("id,breed\nsub/9.png,pug\n0007.jpg,pug\n", suffix="")
    assert relative(bunch, tmp_path / "images") == ["sub/9.png", "0007.jpg"]


def test_a_table_without_labels(pets):
    bunch = pets("id\n0008\n0007\n", label_column=None)
    assert len(bunch.data) == 2
    assert bunch.target is None
    assert bunch.target_names is None
    assert "2 images, without labels" in bunch.DESCR


def test_dialects(pets):
    text = 'id;breed\r\n0008;"pug; small"\r\n\r\n0007;Weimar\u00e4ner\r\n'
    expected = ["pug; small", "Weimar\u00e4ner"]
    assert pets(text, delimiter=";", encoding="utf-8-sig").target.tolist() == expected


def test_encodings(pets, tmp_path):
    text = "id,breed\n0008,Weimar\u00e4ner\n".encode("latin-1")
    table = tmp_path / "latin.csv"
    table.write_bytes(text)
    options = {"image_column": "id", "label_column": "breed", "suffix": ".jpg"}
    with pytest.raises(ValueError, match=r'encoding="latin-1"'):
        load_image_csv(table, tmp_path / "images", **options)
    bunch = load_image_csv(table, tmp_path / "images", encoding="latin-1", **options)
    assert bunch.target.tolist() == ["Weimar\u00e4ner"]


def test_where_keeps_some_rows(pets):
    text = "id,breed,split\n0007,pug,train\n0008,pug,test\n1e3,beagle,train\n"
    assert pets(text, where={"split": "train"}).ids.tolist() == ["0007", "1e3"]
    assert pets(text, where={"split": "train", "breed": "pug"}).ids.tolist() == ["0007"]
    with pytest.raises(
        ValueError, match="'val' in the column 'split', which holds 'test', 'train'"
    ):
        pets(text, where={"split": "val"})
    with pytest.raises(TypeError, match=r"where='train' is a str; pass a dict"):
        pets(text, where="train")


@pytest.mark.parametrize(
    ("text", "parameters", "message"),
    [
        ("id,breed\n0007,pug\n", {"image_column": "file"}, r"no column 'file'.*\['id', 'breed'\]"),
        ("id,breed\n0007,pug\n", {"label_column": "breeds"}, "Did you mean 'breed'"),
        ("id,breed\n0007,pug\n", {"image_column": "ID"}, "Did you mean 'id'"),
        ("id,breed\n0007,pug\n", {"delimiter": ";"}, "delimiter=','"),
        ("id,breed\n0007,pug\n", {"where": {"split": "train"}}, "no column 'split'"),
        ("id;breed\n0007;pug\n", {}, "delimiter=';'"),
        ("id,id,breed\n0007,1,pug\n", {}, "2 columns named 'id'"),
        ("", {}, "no column 'id'"),
        ("id,breed\n", {}, "no rows"),
        ("id,breed\n0007,\n0008,pug\n", {}, "'breed', in line 2.*label_column=None"),
        ("id,breed\n0008,pug\n,pug\n", {}, "'id', in line 3"),
        ("id,breed\n0007,pug, small\n", {}, "3 cells in line 2.*double quotes"),
        ("id,breed\n0007\n", {}, "1 cells in line 2"),
        ('id,breed\n0007,"pug\n', {}, "cannot|not a table that can be read"),
        ("id,breed\n7,a\n8,b\n7,c\n", {}, r"1 image\(s\) more than once.*'7' \(lines 2, 4\)"),
    ],
)
def test_tables_that_are_wrong_say_where(pets, text, parameters, message):
    with pytest.raises(ValueError, match=message):
        pets(text, **parameters)


def test_missing_images_are_named(pets):
    with pytest.raises(FileNotFoundError, match=r"1 of the 2 images.*0009\.jpg") as caught:
        pets("id,breed\n0007,pug\n0009,pug\n")
    assert "Hint" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"Hint: not one of them exists.*image_dir"):
        pets("id,breed\n0005,pug\n0009,pug\n")
    with pytest.raises(FileNotFoundError, match=r"Hint: .*suffix='\.jpg'"):
        pets("id,breed\n0007,pug\n", suffix="")
    with pytest.raises(FileNotFoundError, match=r'Hint: .*suffix=""'):
        pets("id,breed\n0007.jpg,pug\n")


def test_a_missing_table_or_folder_is_named(tmp_path):
    columns = {"image_column": "id", "label_column": None}
    with pytest.raises(FileNotFoundError, match=r"no table .*labels\.csv"):
        load_image_csv(tmp_path / "labels.csv", tmp_path, **columns)
    with pytest.raises(FileNotFoundError, match=r"image_dir: there is no folder .*images"):
        load_image_csv(tmp_path / "labels.csv", tmp_path / "images", **columns)


# --- shapes ----------------------------------------------------------------------------------


def test_shapes_are_balanced_images_with_names():
    shapes = make_shapes(n_samples=42, n_classes=6, image_size=40, random_state=0)
    assert shapes.data.shape == (42, 40, 40, 3)
    assert shapes.data.dtype == np.uint8
    assert shapes.target_names.tolist() == [
        "circle",
        "cross",
        "ring",
        "square",
        "star",
        "triangle",
    ]
    assert np.unique(shapes.target, return_counts=True)[1].tolist() == [7] * 6
    assert "42 images, 6 classes" in shapes.DESCR


def test_shapes_repeat_with_a_seed():
    first, again, other = (make_shapes(8, random_state=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.data, again.data)
    assert first.target.tolist() == again.target.tolist()
    assert not np.array_equal(first.data, other.data)


def test_noise_is_what_it_says():
    clean, noisy = (make_shapes(4, noise=noise, random_state=0).data[0] for noise in (0, 0.1))
    # The same generator draws both, so that the first image differs by its noise alone.
    middle = (clean > 80) & (clean < 175)
    assert np.std(noisy[middle] / 255 - clean[middle] / 255) == pytest.approx(0.1, rel=0.1)


def test_raw_pixels_do_not_tell_shapes_apart():
    shapes = make_shapes(n_samples=160, image_size=24, random_state=0)
    pixels = shapes.data.reshape(len(shapes.data), -1) / 255
    head = LogisticRegression(max_iter=300)
    assert cross_val_score(head, pixels, shapes.target, cv=4).mean() < 0.6


def test_the_area_of_a_shape_is_what_geometry_says():
    """So that each class really is its shape: share of the circle around it that is covered."""
    shapes = make_shapes(n_samples=60, n_classes=6, image_size=128, noise=0, random_state=0)
    radius = 0.3  # on average, between 0.22 and 0.38
    covered = {"circle": 1, "ring": 1 - 0.36, "square": 2 / np.pi, "triangle": 0.4135}
    for name, share in covered.items():
        areas = [ink_share(image) for image in shapes.data[shapes.target == name]]
        assert np.mean(areas) == pytest.approx(share * np.pi * radius**2, rel=0.3)


def ink_share(image):
    """The share of pixels on the other side of mid-grey than the corners of the image."""
    light = image.mean(axis=2) > 127.5
    return float((light != light[0, 0]).mean())


@pytest.mark.parametrize("format", ["png", "jpg"])
def test_shapes_can_be_written_as_class_folders(tmp_path, format):
    drawn = make_shapes(12, random_state=0)
    written = make_shapes(12, folder=tmp_path / "shapes", format=format, random_state=0)
    assert written.target.tolist() == drawn.target.tolist()
    for path, label, pixels in zip(written.data, drawn.target, drawn.data, strict=True):
        assert Path(path).parent.name == label
        difference = np.asarray(Image.open(path), dtype=float) - pixels
        assert abs(difference).mean() <= (0 if format == "png" else 20)
    loaded = load_image_folder(tmp_path / "shapes")
    assert sorted(zip(loaded.data, loaded.target, strict=True)) == sorted(
        zip(written.data, written.target, strict=True)
    )


@pytest.mark.parametrize(
    "parameters",
    [{"n_samples": 0}, {"n_classes": 7}, {"image_size": 8}, {"noise": 2}, {"format": "gif"}],
    ids=str,
)
def test_shapes_that_cannot_be_drawn_are_refused(parameters):
    with pytest.raises(ValueError, match=f"'{next(iter(parameters))}' parameter of make_shapes"):
        make_shapes(**parameters)
