"""Loading class folders."""

import os
from pathlib import Path

import pytest
from folders import relative, touch

from sktransfer.datasets import load_image_folder


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
    touch(tmp_path, ".git/a.jpg", "README.md", ".stray.jpg", "dog/scan")
    pets = load_image_folder(str(tmp_path))
    assert relative(pets, tmp_path) == ["dog/b.jpg"]
    assert pets.target_names.tolist() == ["dog"]
    assert pets.DESCR.endswith("- dog: 1\n\n3 files with other extensions are left out.\n")


def test_images_beside_the_class_folders_are_named(tmp_path):
    touch(tmp_path, "dog.jpg/b.jpg", "stray.jpg", "README.md")
    with pytest.warns(
        UserWarning, match=r"1 image\(s\) beside its class folders.*: stray\.jpg\. Move"
    ):
        pets = load_image_folder(tmp_path)
    assert relative(pets, tmp_path) == ["dog.jpg/b.jpg"]


def test_the_extensions_are_a_parameter(tmp_path):
    touch(tmp_path, "dog/b.jpg", "dog/c.scan")
    for extensions in ((".scan",), ".scan", [".SCAN"]):
        pets = load_image_folder(tmp_path, extensions=extensions)
        assert relative(pets, tmp_path) == ["dog/c.scan"]


def test_at_most_some_images_of_each_class(tmp_path):
    touch(tmp_path, *(f"dog/{i}.jpg" for i in range(6)), "cat/a.jpg", "cat/b.jpg")
    pets = load_image_folder(tmp_path, max_per_class=3)
    expected = ["cat/a.jpg", "cat/b.jpg", "dog/0.jpg", "dog/2.jpg", "dog/4.jpg"]
    assert relative(pets, tmp_path) == expected
    with pytest.raises(ValueError, match="'max_per_class' parameter"):
        load_image_folder(tmp_path, max_per_class=0)


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


def test_a_lone_split_is_recognized(tmp_path):
    touch(tmp_path, "train/dog/b.jpg", "train/cat/b.jpg")
    with pytest.raises(ValueError, match="one by one"):
        load_image_folder(tmp_path)


def test_splits_that_were_wrapped_in_folders_of_their_own_name_are_unwrapped(tmp_path):
    touch(tmp_path, "seg_train/seg_train/sea/a.jpg", "seg_test/seg_test/sea/b.jpg")
    with pytest.raises(ValueError, match="seg_test, seg_train: parts of a data set") as caught:
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


@pytest.mark.parametrize("root", [None, 3, ["pets"], b"pets"], ids=str)
def test_a_root_that_is_no_path_says_what_to_pass(root):
    with pytest.raises(TypeError, match="'root' parameter of load_image_folder must be"):
        load_image_folder(root)


@pytest.mark.parametrize("extensions", [None, 3])
def test_extensions_that_are_no_text_say_what_to_pass(tmp_path, extensions):
    touch(tmp_path, "dog/b.jpg")
    with pytest.raises(TypeError, match="'extensions' parameter of load_image_folder must be"):
        load_image_folder(tmp_path, extensions=extensions)
