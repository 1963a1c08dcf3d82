"""The package's root: what it offers, and what importing it costs."""

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import new_process
import pytest
from PIL import Image

import sktransfer

ROOT = Path(__file__).parents[1]


def in_new_process(program):
    """Run ``program``, which prints JSON, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


def test_import_loads_nothing_heavy():
    program = "import sktransfer, sys, json; print(json.dumps(list(sys.modules)))"
    loaded = {name.split(".")[0] for name in in_new_process(program)}
    assert not loaded & {"numpy", "torch", "torchvision", "sklearn", "skorch", "PIL", "joblib"}


def test_main_names_cost_little_beyond_what_they_need():
    program = (
        "import sklearn.pipeline, sklearn.ensemble, torch, torchvision, time\n"
        "start = time.process_time()\n"
        "import sktransfer; sktransfer.ImageEmbedder; sktransfer.list_backbones\n"
        "assert time.process_time() - start < 1.0"  # 0.2 s alone; the rest is for a busy machine
    )
    new_process.run(program)


CACHED = """
import json, sys
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import cross_validate
from sktransfer import make_transfer_pipeline

loaded = []
for backbone, engine, before in CASES:
    exec(before)
    model = make_transfer_pipeline(backbone, RidgeClassifier(), image_size=64, engine=engine)
    cross_validate(model, IMAGES, [0, 1] * 3, cv=2)
    loaded.append([name for name in sys.modules if "." not in name])
print(json.dumps(loaded))
"""


def test_embeddings_in_the_cache_need_no_torch(tmp_path):
    cases = [("tiny_mobilenet", "auto", "")]
    if "efficientnet_lite0" in sktransfer.list_backbones():
        cases.append(("efficientnet_lite0", "torch", ""))
    cases.append(("tiny_mobilenet", "auto", "import torch"))  # it then says which devices there are
    images = [str(tmp_path / f"{number}.png") for number in range(6)]
    for number, path in enumerate(images):
        Image.new("RGB", (64, 64), (40 * number, 0, 0)).save(path)
    for backbone, engine, _ in cases:
        sktransfer.ImageEmbedder(backbone, image_size=64, engine=engine).fit_transform(images)
    loaded = in_new_process(CACHED.replace("CASES", repr(cases)).replace("IMAGES", repr(images)))
    for (_, _, before), modules in zip(cases, loaded, strict=True):
        unneeded = {"torch", "torchvision", "skorch", "timm", "openvino"} - set(before.split())
        assert not unneeded & set(modules)


@pytest.mark.parametrize("name", sktransfer.__all__)
def test_public_names_are_there(name):
    assert getattr(sktransfer, name) is not None
    assert name in dir(sktransfer)


def test_type_checkers_see_the_same_names():
    stub = ast.parse((ROOT / "sktransfer" / "__init__.pyi").read_text(encoding="utf-8"))
    (listed,) = (
        ast.literal_eval(node.value)
        for node in stub.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
    )
    assert listed == sktransfer.__all__


def test_each_subject_is_public_or_has_an_underscore():
    subjects = {path.stem for path in (ROOT / "sktransfer").iterdir() if path.suffix in ("", ".py")}
    assert {name for name in subjects if not name.startswith("_")} <= set(sktransfer.__all__)


def test_type_hints_are_shipped():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    shipped = settings["setuptools"]["package-data"]
    assert shipped["*"] == ["*.pyi"] and shipped["sktransfer"] == ["py.typed"]
    assert (ROOT / "sktransfer" / "py.typed").exists()


def test_modules_are_reached_without_an_import():
    program = "import sktransfer, json; print(json.dumps(sktransfer.exceptions.__name__))"
    assert in_new_process(program) == "sktransfer.exceptions"


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="ImageEmbeder"):
        _ = sktransfer.ImageEmbeder


def test_extras_stay_small():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    core = {requirement.split(">=")[0] for requirement in project["dependencies"]}
    assert core == {
        *("filelock", "joblib", "lazy-loader", "numpy", "Pillow", "platformdirs", "safetensors"),
        *("scikit-learn", "skorch", "torch", "torchvision", "tqdm"),
    }
    extras = project["optional-dependencies"]
    assert set(extras) >= {"audit", "dask", "docs", "fast", "imagenet", "report", "test", "timm"}
    assert all(len(extras[name]) <= 6 for name in extras.keys() - {"test", "tools"})
    requirements = sum(extras.values(), project["dependencies"])
    assert all(">=" in item for item in requirements if not item.startswith("sktransfer["))
