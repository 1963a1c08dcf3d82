"""Every script in ``examples/`` runs from its first line to its last."""

import runpy
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
import sklearn.datasets
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.utils import Bunch

from sktransfer import list_backbones

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted({*EXAMPLES.glob("*.py")} - {EXAMPLES / "serve.py"})  # that one runs for ever


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
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
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_runs_without_arguments(script, run, monkeypatch):
    digits = load_digits()
    few = Bunch(images=digits.images[:150], target=digits.target[:150])  # embedding takes long
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: few)
    run(script)


@pytest.mark.slow
def test_quickstart_on_a_folder(run, digits_folder, tmp_path):
    printed = run(EXAMPLES / "quickstart.py", digits_folder, "--output", "results")
    assert "45 training images, 15 test images, 3 classes" in printed
    assert "macro avg" in printed
    assert "predicts the same in a new process" in printed
    assert (tmp_path / "results" / "confusion.png").stat().st_size > 1000
    model = joblib.load(tmp_path / "results" / "model.joblib")
    best = "efficientnet_lite0" if "efficientnet_lite0" in list_backbones() else "tiny_mobilenet"
    assert list(model.named_estimators_) == [best, "tiny_resnet"]
    assert (tmp_path / "results" / "model.joblib").stat().st_size < 1_000_000


@pytest.mark.slow
def test_quickstart_takes_train_and_test_folders(run, digits_folder, tmp_path):
    for part in ("train", "test"):
        (tmp_path / "split").mkdir(exist_ok=True)
        (tmp_path / "split" / part).symlink_to(digits_folder, target_is_directory=True)
    printed = run(EXAMPLES / "quickstart.py", tmp_path / "split")
    assert "60 training images, 60 test images, 3 classes" in printed


@pytest.mark.slow
def test_predictions_on_a_folder(run, tmp_path):
    run(EXAMPLES / "predictions.py", "--label-column", "shape")
    dataset = tmp_path / "predictions-output"
    (dataset / "test" / "Thumbs.db").write_bytes(b"not an image")
    printed = run(
        EXAMPLES / "predictions.py", dataset, "--label-column", "shape", "--output", "again"
    )
    assert "40 images to predict" in printed
    tables = [path / "predictions.csv" for path in (dataset, tmp_path / "again")]
    assert tables[0].read_text() == tables[1].read_text()
    assert tables[0].read_text().startswith("id,circle,cross,square,triangle\n00160,")
    assert (tmp_path / "again" / "curves.png").stat().st_size > 1000
