"""export_onnx: a fitted model as one ONNX file."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.ensemble import StackingClassifier, StackingRegressor
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted
from torch import nn

from .._engine import NormalizedNetwork
from .._utils._optional import import_optional
from .._utils._threads import usable_kernels
from .._utils._typing import FilePath
from .._utils._warnings import quiet
from ..augmentation import MultiViewClassifier, MultiViewRegressor
from ..embedder import ImageEmbedder
from ..finetuning import FineTuneClassifier
from ..heads import HeadClassifier, HeadRegressor

#: Versions of the operators and of the file format.
OPSETS, IR_VERSION = {"": 20, "ai.onnx.ml": 3}, 10


@usable_kernels()
def export_onnx(model: BaseEstimator, path: FilePath) -> None:
    """Write a fitted model as one ONNX file, which needs neither torch nor scikit-learn to run.

    Parameters
    ----------
    model : estimator
        A pipeline that begins with an `ImageEmbedder`, a `FineTuneClassifier`, or a stack of these,
        such as `make_transfer_stack` returns; or a fitted search over one of them.
    path : str or path-like
        Where to write the file, such as ``"model.onnx"``.

    Raises
    ------
    ValueError
        If a part of the model cannot be exported. The message names the part.
    FileNotFoundError
        If the folder of the file does not exist.
    MissingExtraError
        If the extra ``onnx`` is not installed.

    Notes
    -----
    The input ``images`` is uint8 of shape (n, S, S, 3): RGB images, resized and cropped. Backbones
    that resize in different ways have inputs of their own: ``images``, ``images_2`` and so on. The
    metadata entry ``sktransfer`` is JSON: ``inputs`` says how to prepare the images of each input,
    see :class:`sktransfer.backbones.Preprocessing`; ``classes`` names the ``probabilities``.

    The outputs of a classifier are ``label`` of shape (n,), strings or int64, and, if it has
    `predict_proba`, ``probabilities`` of shape (n, n_classes). With several labels per image, both
    have a column for each. The output of a regressor is ``prediction`` of shape (n, n_outputs).
    Numbers are float32, whatever `precision` is.

    A conversion by skl2onnx is refused if it predicts random rows differently from scikit-learn, by
    more than 1e-4. An average over views is refused too: set `n_test_views` to 1.

    Examples
    --------
    >>> from sktransfer import make_transfer_pipeline
    >>> from sktransfer.datasets import make_shapes
    >>> from sktransfer.export import export_onnx
    >>> shapes = make_shapes(n_samples=60, random_state=0)
    >>> model = make_transfer_pipeline(cache=None).fit(shapes.data, shapes.target)
    >>> export_onnx(model, "model.onnx")  # doctest: +SKIP
    """
    for package in ("onnxruntime", "onnxscript", "skl2onnx", "onnx.compose"):
        import_optional(package, "onnx", "export_onnx")
    if not (folder := Path(path).absolute().parent).is_dir():
        raise FileNotFoundError(f"The folder {folder} does not exist. Create it first.")
    from onnx import TensorProto, checker, helper, save

    check_is_fitted(model)
    branches, final, classes = _plan(model)
    steps = {c.name: _convert_steps(c) for c in (*branches, *final) if c.steps}  # may refuse

    graph, inputs, columns = helper.make_graph([], "sktransfer", [], []), {}, []
    for chain in branches:
        how = asdict(_embedder(chain).preprocessing_)
        del how["mean"], how["std"]  # the graph normalizes
        name = next((name for name, other in inputs.items() if other == how), None)
        if name is None:
            name = f"images_{len(inputs) + 1}" if inputs else "images"
            inputs[name], shape = how, ["n", how["image_size"], how["image_size"], 3]
            graph.input.append(helper.make_tensor_value_info(name, TensorProto.UINT8, shape))
        outputs = _append(graph, name, _parts(chain, steps))
        column = outputs[0].name
        if chain.method == "predict_proba" and len(classes) == 2:  # stacked without the first one
            halves = [f"{column}_0", f"{column}_1"]
            graph.node.append(helper.make_node("Split", [column], halves, axis=1, num_outputs=2))
            column = halves[1]
        columns.append(column)
    if final:
        graph.node.append(helper.make_node("Concat", columns, ["stacked"], axis=1))
        outputs = _append(graph, "stacked", _parts(final[0], steps))
    _name_outputs(graph, outputs, classes, coded=bool(final or branches[0].head))
    opsets = [helper.make_opsetid(*opset) for opset in OPSETS.items()]
    file = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    about = json.dumps({"inputs": inputs, "classes": classes}, default=np.ndarray.tolist)
    helper.set_model_props(file, {"sktransfer": about})
    checker.check_model(file)
    save(file, path)


def _name_outputs(graph, outputs, classes, coded):
    """Add the outputs of the model; if they are `coded`, labels are numbers of classes so far."""
    from onnx import helper, numpy_helper

    names = ["prediction"] if classes is None else ["label", "probabilities"]
    for name, output in zip(names, outputs, strict=False):
        operator, sources = "Identity", [output.name]
        if coded and name == "label" and len(output.type.tensor_type.shape.dim) == 1:
            labels = np.asarray(classes)
            labels = labels.astype(object if labels.dtype.kind in "OU" else np.int64)
            graph.initializer.append(numpy_helper.from_array(labels, "classes"))
            operator, sources = "Gather", ["classes", *sources]
            output.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(labels.dtype)
        output.name = name
        graph.node.append(helper.make_node(operator, sources, [name]))
        graph.output.append(output)


class _Chain(NamedTuple):
    """What runs in a row: a backbone or None, scikit-learn's steps, and a head of ours or None."""

    name: str
    backbone: BaseEstimator | None
    steps: list
    head: BaseEstimator | None
    method: str | None  # what a stack takes; None for all outputs


def _plan(model):
    """Return the branches, a list with the final estimator of a stack, and the classes."""
    stack, *others = _leaves(model)
    if others or not isinstance(stack, (StackingClassifier, StackingRegressor)):
        chain = _chain("the model", [stack, *others])
        return [chain], [], getattr(chain.head or chain.steps[-1], "classes_", None)
    classes = getattr(stack, "classes_", None)
    if stack.passthrough or isinstance(classes, list):
        raise _refused(stack, "the model", "it has several labels per image, or passthrough=True")
    names = [name for name, estimator in stack.estimators if estimator != "drop"]
    parts = zip(names, stack.estimators_, stack.stack_method_, strict=True)
    branches = [_chain(f"branch {name!r}", _leaves(part), method) for name, part, method in parts]
    final = _chain("the final estimator", [None, *_leaves(stack.final_estimator_)])
    return branches, [final], classes


def _leaves(estimator):
    """Return the estimators that run in a row."""
    if isinstance(estimator, (MultiViewClassifier, MultiViewRegressor)):
        return _leaves(estimator.estimator_)
    if hasattr(estimator, "best_estimator_"):
        return _leaves(estimator.best_estimator_)
    if isinstance(estimator, Pipeline):
        steps = [step for _, step in estimator.steps if step not in (None, "passthrough")]
        return [leaf for step in steps for leaf in _leaves(step)]
    return [estimator]


def _chain(name, leaves, method=None):
    """Check estimators that run in a row."""
    backbone, *steps = leaves
    if isinstance(backbone, FineTuneClassifier):
        if not steps and backbone.n_test_views > 1:
            raise _refused(backbone, name, "it averages views; set n_test_views=1")
        steps = steps or [backbone.head_]
    elif isinstance(backbone, ImageEmbedder):
        if (backbone.n_test_views or backbone.n_views) > 1:
            raise _refused(backbone, name, "it averages views; set n_test_views=1")
    elif backbone is not None:
        raise _refused(backbone, name, "expected an ImageEmbedder or a FineTuneClassifier first")
    last = steps[-1] if steps else backbone
    ours = [last] if isinstance(last, (HeadClassifier, HeadRegressor)) else []
    if is_classifier(last):
        stackable = ("predict_proba", "decision_function") if ours else ("predict_proba",)
        if method not in (None, *stackable):
            raise _refused(last, name, f"a stack of its {method} cannot be converted")
    elif not is_regressor(last):
        raise _refused(last, name, "it predicts nothing; put a classifier or a regressor behind")
    return _Chain(name, backbone, steps[: len(steps) - len(ours)], *(ours or [None]), method)


def _refused(part, name, reason):
    return ValueError(f"{type(part).__name__} ({name}) cannot be exported to ONNX: {reason}.")


def _convert_steps(chain):
    """Convert estimators of scikit-learn, and compare the predictions of random rows."""
    from onnxruntime import InferenceSession
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    steps = Pipeline([(str(i), step) for i, step in enumerate(chain.steps)])
    methods = ["predict", "predict_proba"] if chain.head is None else ["transform"]
    methods = [method for method in methods if hasattr(steps, method)]
    width = chain.steps[0].n_features_in_
    rows = np.random.default_rng(0).normal(size=(64, width)).astype(np.float32)
    options = {"zipmap": False} if "predict_proba" in methods else {"nocl": False}
    options = {id(chain.steps[-1]): options} if is_classifier(steps) else None
    types = [("rows", FloatTensorType([None, width]))]
    try:
        with quiet():
            part = convert_sklearn(steps, None, types, options=options, target_opset=OPSETS)
            del part.graph.output[len(methods) :]
            session = InferenceSession(part.SerializeToString(), providers=["CPUExecutionProvider"])
            got = session.run(None, {"rows": rows})
            expected = [np.asarray(getattr(steps, method)(rows)) for method in methods]
            equal = all(map(_equal, expected, got))
    except Exception as error:
        raise _refused(steps[-1], chain.name, f"skl2onnx cannot convert it ({error})") from error
    if not equal:
        raise _refused(steps[-1], chain.name, "the conversion by skl2onnx predicts otherwise")
    if chain.method is not None and "predict_proba" in methods:
        del part.graph.output[0]
    return part


def _equal(expected, got):
    got = got.reshape(expected.shape)
    if expected.dtype.kind != "f":
        return (got == expected).all()
    return np.allclose(got, expected, 1e-4, 1e-4)


class _Head(nn.Module):
    """A head of ours with the outputs that a model or a stack has."""

    def __init__(self, head, method):
        super().__init__()
        self.network, self.method = copy.deepcopy(head.net_.module_).cpu().float(), method
        self.multilabel = getattr(head, "target_type_", None) == "multilabel-indicator"
        self.scaling = None
        if is_regressor(head):
            scaling = np.stack([head.target_scale_, head.target_mean_])
            self.scaling = torch.tensor(scaling, dtype=torch.float32)

    def forward(self, rows):
        logits = self.network(rows)
        if self.scaling is not None:
            return logits * self.scaling[0] + self.scaling[1]
        if self.method == "decision_function":
            return logits[:, 1:] - logits[:, :1] if logits.shape[1] == 2 else logits
        probabilities = logits.sigmoid() if self.multilabel else logits.softmax(1)
        if self.method is not None:
            return probabilities
        return (logits > 0).long() if self.multilabel else logits.argmax(1), probabilities


def _embedder(chain):
    return getattr(chain.backbone, "embedder_", chain.backbone)


def _parts(chain, steps):
    """Yield the parts of a chain as ONNX models."""
    head = [] if chain.head is None else [_Head(chain.head, chain.method)]
    if chain.backbone is not None:
        embedder, tuned = _embedder(chain), getattr(chain.backbone, "backbone_", None)
        network = embedder.network_() if tuned is None else tuned.network()
        how = embedder.preprocessing_
        images = torch.zeros(2, how.image_size, how.image_size, 3, dtype=torch.uint8)
        network = NormalizedNetwork(network, how.mean, how.std, channels_last=True)
        layers = [network, *([] if chain.steps else head)]
        yield _convert_layers(chain, layers, images)
    if chain.steps:
        yield steps[chain.name]
    if head and (chain.steps or chain.backbone is None):
        yield _convert_layers(chain, head, torch.zeros(2, chain.head.n_features_in_))


def _convert_layers(chain, layers, example):
    try:
        with quiet():
            part = torch.onnx.export(
                nn.Sequential(*layers).eval().requires_grad_(False),
                (example,),
                dynamic_shapes=({0: torch.export.Dim("n")},),
                opset_version=OPSETS[""],
                external_data=False,
                verbose=False,
            ).model_proto
    except torch.onnx.errors.OnnxExporterError as error:
        reason = f"torch cannot convert it ({error})"
        raise _refused(chain.backbone or chain.head, chain.name, reason) from error
    for node in part.graph.node:
        node.ClearField("metadata_props")  # source lines and paths of this machine
    return part


def _append(graph, source, parts):
    """Append parts in a row to an output of a graph; return the outputs of the last part."""
    from onnx import compose, helper

    for part in parts:
        added = compose.add_prefix(part, f"{len(graph.node)}/").graph
        graph.node.append(helper.make_node("Identity", [source], [added.input[0].name]))
        graph.node.extend(added.node)
        graph.initializer.extend(added.initializer)
        source = added.output[0].name
    return added.output
