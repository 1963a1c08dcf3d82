"""Whether exported files predict the same as the models, how large they are and how fast they load.

    python benchmarks/export.py DATA

DATA has the folders ``train`` and ``test`` with one folder of images for each class. Libraries are
imported before any file is loaded. Files of joblib and skops do not contain the frozen networks,
which sktransfer loads when they are first needed; ONNX files contain them.
"""

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import joblib
import numpy as np
import onnxruntime
import skops.io
import torch
from _machine import machine
from sklearn.decomposition import PCA
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktransfer import FineTuneClassifier, make_transfer_pipeline, make_transfer_stack
from sktransfer.backbones import Preprocessing
from sktransfer.datasets import load_image_folder
from sktransfer.export import SKOPS_TRUSTED, export_onnx
from sktransfer.images import decode_image, fit_to_network

LOGISTIC = make_pipeline(StandardScaler(), PCA(64), LogisticRegression(max_iter=1000))
TUNED = FineTuneClassifier(trainable_stages=1, tuned_fraction=1, max_epochs=3, random_state=0)
VIEWS = {"augmentation": "crop", "n_views": 4, "n_test_views": 1}
MODELS = {
    "pipeline, tiny_mobilenet": make_transfer_pipeline("tiny_mobilenet"),
    "pipeline, scaler, PCA, logistic": make_transfer_pipeline("tiny_mobilenet", LOGISTIC),
    "pipeline, 4 training views": make_transfer_pipeline("tiny_mobilenet", **VIEWS),
    "pipeline, efficientnet_lite0": make_transfer_pipeline("efficientnet_lite0"),
    "fine-tuned tiny_mobilenet": TUNED,
    "stack, efficientnet_lite0 + tiny_resnet": make_transfer_stack(
        ["efficientnet_lite0", "tiny_resnet"]
    ),
    "stack, fine-tuned + tiny_resnet": StackingClassifier(
        [("tuned", TUNED), ("frozen", make_transfer_pipeline("tiny_resnet"))],
        LogisticRegression(),
        cv=2,
    ),
}


def prepared(inputs, images):
    """Return the images for each input of a file, as sktransfer decodes and resizes them."""
    feed = {}
    for name, how in inputs.items():
        how = Preprocessing(**how)
        pixels = [
            fit_to_network(decode_image(image, min_side=how.min_decoded_side), how)
            for image in images
        ]
        feed[name] = torch.stack(pixels).permute(0, 2, 3, 1).numpy()
    return feed


def session(path):
    made = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return made, json.loads(made.get_modelmeta().custom_metadata_map["sktransfer"])["inputs"]


def seconds(work):
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("data", type=Path)
parser.add_argument("--only", default="", help="models whose name contains this")
options = parser.parse_args()
train, test = (load_image_folder(options.data / part) for part in ("train", "test"))
print(machine("onnxruntime", "skl2onnx", "skops"))
print(f"{len(train.data)} training images, {len(test.data)} test images\n")
for name, model in MODELS.items():
    if options.only not in name:
        continue
    model.fit(train.data, train.target)
    with TemporaryDirectory() as folder:
        files = {kind: Path(folder) / f"model.{kind}" for kind in ("joblib", "skops", "onnx")}
        joblib.dump(model, files["joblib"])
        skops.io.dump(model, files["skops"])
        exporting = seconds(lambda: export_onnx(model, files["onnx"]))  # noqa: B023
        sizes = [f"{kind} {file.stat().st_size / 1e6:.2f} MB" for kind, file in files.items()]
        runs = {
            "joblib": lambda: joblib.load(files["joblib"]),  # noqa: B023
            "skops": lambda: skops.io.load(files["skops"], trusted=SKOPS_TRUSTED),  # noqa: B023
            "onnx": lambda: session(files["onnx"]),  # noqa: B023
        }
        runner, inputs = session(files["onnx"])
        times = [
            f"{kind} {min(seconds(run) for _ in range(3)):.2f} s" for kind, run in runs.items()
        ]
        labels, probabilities = [], []
        for i in range(0, len(test.data), 60):
            outputs = runner.run(None, prepared(inputs, test.data[i : i + 60]))
            labels, probabilities = [*labels, *outputs[0]], [*probabilities, *outputs[1]]
    same = int(np.sum(np.array(labels) == model.predict(test.data)))
    difference = np.abs(np.array(probabilities) - model.predict_proba(test.data)).max()
    print(f"{name}: accuracy {model.score(test.data, test.target):.3f}")
    print(f"  exported in {exporting:.1f} s; size: {', '.join(sizes)}; load: {', '.join(times)}")
    print(
        f"  equal labels {same}/{len(labels)}, largest difference of probabilities {difference:.1e}"
    )
