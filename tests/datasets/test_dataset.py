"""Loading PyTorch datasets."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset
from torchvision.datasets import FakeData, ImageFolder

from sktransfer.datasets import load_image_dataset, load_image_folder, make_shapes


def test_an_image_folder_gives_its_paths(tmp_path):
    make_shapes(12, n_classes=3, folder=tmp_path, random_state=0)
    expected, folder = load_image_folder(tmp_path), ImageFolder(tmp_path, transform=lambda x: 1 / 0)
    bunch = load_image_dataset(folder)
    assert bunch.data.tolist() == expected.data.tolist()
    assert bunch.target.tolist() == expected.target.tolist()
    assert "12 images, 3 classes" in bunch.DESCR
    part = load_image_dataset(Subset(Subset(folder, [11, 2, 5]), [2, 0]))
    assert part.data.tolist() == expected.data[[5, 11]].tolist()
    assert part.target.tolist() == expected.target[[5, 11]].tolist()


def test_a_changed_label_is_not_overlooked(tmp_path):
    make_shapes(4, n_classes=2, folder=tmp_path, random_state=0)
    bunch = load_image_dataset(ImageFolder(tmp_path, target_transform=lambda label: 1 - label))
    assert bunch.target.tolist() == ["square", "square", "circle", "circle"]


@pytest.mark.parametrize(
    "dataset",
    [
        FakeData(4, (3, 8, 8), 3),
        TensorDataset(torch.rand(4, 3, 8, 8), torch.arange(4)),
        list(zip(np.zeros((4, 8, 8), dtype=np.uint8), "abca", strict=True)),
    ],
    ids=lambda dataset: type(dataset).__name__,
)
def test_images_in_memory(dataset):
    bunch = load_image_dataset(dataset)
    assert bunch.data.shape == bunch.target.shape == (4,)
    assert bunch.data.dtype == object
    assert bunch.target.tolist() == [str(dataset[i][1]).strip("tensor()") for i in range(4)]


def test_what_is_no_dataset_of_pairs_says_what_to_pass():
    with pytest.raises(TypeError, match=r"dataset\[0\] is a str; expected a pair"):
        load_image_dataset(["a.jpg", "b.jpg"])
    with pytest.raises(TypeError, match=r"no length.*list\(dataset\)"):
        load_image_dataset(iter([]))
    with pytest.raises(TypeError, match=r"DataLoader, pass loader\.dataset"):
        load_image_dataset(DataLoader(["a.jpg", "b.jpg"]))
