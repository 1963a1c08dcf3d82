"""Every script in ``examples/`` runs from its first line to its last."""

import runpy
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from sktransfer.datasets import make_shapes

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted({*EXAMPLES.glob("*.py")} - {EXAMPLES / "serve.py"})  # that one runs for ever


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, quick_code):
    """Run a script in a folder of its own, in this process, and return what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(script, *arguments):
        monkeypatch.setattr(sys, "argv", [str(script), *map(str, arguments)])
        runpy.run_path(str(script), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.fixture
def digits_folder(tmp_path):
    """A folder of class folders with 20 images of each of three digits."""
    digits = load_digits(n_class=3)
    for label in range(3):
        (tmp_path / "digits" / str(label)).mkdir(parents=True)
        for position in np.flatnonzero(digits.target == label)[:20]:
            image = Image.fromarray((digits.images[position] * 15.9).astype("uint8"))
            image.resize((48, 48)).save(tmp_path / "digits" / str(label) / f"{position}.png")
    return tmp_path / "digits"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sktransfer.exceptions.SmallValidationWarning")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_runs_without_a_folder(script, run, monkeypatch, request):
    quick = []
    if script.stem == "scale_out":
        request.getfixturevalue("quick_cluster")
    if script.stem in ("cars_augmentation", "scenes_ensemble"):
        few = lambda n_samples, **options: make_shapes(60, **options)  # noqa: E731
        monkeypatch.setattr("sktransfer.datasets.make_shapes", few)
    if script.stem == "cars_augmentation":
        quick = ["--epochs", 2, "--image-size", 48]
    assert run(script, *quick)


@pytest.mark.slow
def test_scenes_in_one_folder(run, digits_folder, tmp_path):
    options = ["--output", "results", "--backbones", "tiny_mobilenet", "tiny_resnet"]
    printed = run(EXAMPLES / "scenes_ensemble.py", digits_folder, *options)
    assert "45 training images, 15 test images, 3 classes" in printed
    assert "macro avg" in printed
    assert printed.count("\n  ") >= 3  # the top 3 of a new image
    for figure in ("accuracy", "confusion"):
        assert (tmp_path / "results" / f"{figure}.png").stat().st_size > 1000
    model = joblib.load(tmp_path / "results" / "ensemble.joblib")
    assert len(model.named_estimators_) == 2
    assert (tmp_path / "results" / "ensemble.joblib").stat().st_size < 1_000_000


@pytest.mark.slow
def test_scenes_in_two_folders(run, digits_folder, tmp_path):
    for part in ("train", "test"):
        (tmp_path / "split").mkdir(exist_ok=True)
        (tmp_path / "split" / part).symlink_to(digits_folder, target_is_directory=True)
    options = ["--backbones", "tiny_mobilenet"]
    printed = run(EXAMPLES / "scenes_ensemble.py", tmp_path / "split", *options)
    assert "60 training images, 60 test images, 3 classes" in printed


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sktransfer.exceptions.SmallValidationWarning")
def test_cars_of_a_table(run, tmp_path):
    shapes = make_shapes(60, n_classes=3, random_state=0, folder=tmp_path / "cars" / "images")
    files = [Path(path).relative_to(tmp_path / "cars" / "images") for path in shapes.data]
    parts = ["train"] * 40 + ["test"] * 20
    rows = zip(map(str, files), shapes.target, parts, strict=True)
    table = ["filename,model,split", *(",".join(row) for row in rows)]
    (tmp_path / "cars" / "labels.csv").write_text("\n".join(table))
    options = ["--epochs", 1, "--stages", 1, "--image-size", 64]
    printed = run(EXAMPLES / "cars_augmentation.py", tmp_path / "cars", *options)
    assert "40 training images, 20 test images, 3 classes" in printed
    for way in ("frozen", "larger", "larger, views", "fine-tuned"):
        assert f"\n{way} " in printed
    for figure in ("curves", "confusion"):
        assert (tmp_path / "cars-output" / f"{figure}.png").stat().st_size > 1000


@pytest.mark.slow
def test_dogs_of_a_table(run, tmp_path):
    run(EXAMPLES / "dog_breeds_csv.py")
    dataset = tmp_path / "dogs-output"
    (dataset / "test" / "Thumbs.db").write_bytes(b"not an image")
    names = sorted(path.stem for path in (dataset / "test").glob("*.jpg"))
    rows = [f"{name},circle" for name in names]
    (dataset / "test_labels.csv").write_text("\n".join(["id,breed", *rows]))
    printed = run(EXAMPLES / "dog_breeds_csv.py", dataset, "--output", "again")
    assert "40 images to predict" in printed
    assert "On the test images: log loss" in printed
    tables = [path / "submission.csv" for path in (dataset, tmp_path / "again")]
    assert tables[0].read_text() == tables[1].read_text()
    assert tables[0].read_text().startswith("id,circle,cross,square,triangle\n00160,")
    for figure in ("loss", "accuracy", "predictions"):
        assert (tmp_path / "again" / f"{figure}.png").stat().st_size > 1000
