"""skops files: no member is opaque, and one constant names all types that they contain."""

import io
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
from torch import nn
from torchvision.transforms import v2
from trained import MODELS, outputs, trained

from sktransfer import HeadClassifier, ImageEmbedder
from sktransfer.export import SKOPS_TRUSTED

skops = pytest.importorskip("skops.io", reason="needs the extra skops")

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::sktransfer.exceptions.SmallValidationWarning"),
]


class MyHead(nn.Linear):
    """A custom network of a head."""

    def __init__(self, n_features, n_outputs):
        super().__init__(n_features, n_outputs)


def members(data):
    """Return the content of each member of a file, by name."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return {name: file.read(name) for name in file.namelist()}


def packed(content):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, data in content.items():
            file.writestr(name, data)
    return stream.getvalue()


@pytest.mark.parametrize("name", MODELS)
def test_a_file_has_numbers_and_names_only(name):
    data = skops.dumps(trained(name))
    others = {member for member in members(data) if not member.endswith(".npy")}
    assert others == {"schema.json"}
    assert set(skops.get_untrusted_types(data=data)) <= set(SKOPS_TRUSTED)
    loaded = skops.loads(data, trusted=SKOPS_TRUSTED)
    assert np.array_equal(outputs(loaded), outputs(trained(name)))


def test_the_constant_names_no_other_types():
    files = [skops.dumps(trained(name)) for name in MODELS]
    reported = {name for data in files for name in skops.get_untrusted_types(data=data)}
    assert tuple(sorted(reported)) == SKOPS_TRUSTED


class Payload:
    """Its pickle creates a folder when it is loaded."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_pickle_in_place_of_any_member_does_not_run(tmp_path):
    content = members(skops.dumps(trained("pipeline")))
    stream = io.BytesIO()
    np.save(stream, np.array([Payload(tmp_path / "ran")], dtype=object), allow_pickle=True)
    payloads = [stream.getvalue(), pickle.dumps(Payload(tmp_path / "ran"))]
    for member in content:
        for payload in payloads:
            with pytest.raises(ValueError):
                skops.loads(packed({**content, member: payload}), trusted=SKOPS_TRUSTED)
    assert not (tmp_path / "ran").exists()
    pickle.loads(payloads[1])  # the attack would work
    assert (tmp_path / "ran").exists()


def head_state(schema):
    """Return the state of the head of a pipeline in a schema."""
    step = schema["content"]["content"]["steps"]["content"][1]
    return step["content"][1]["content"]["content"]


def test_an_opaque_member_that_an_attacker_adds_does_not_run(tmp_path):
    content = members(skops.dumps(trained("pipeline")))
    schema = json.loads(content["schema.json"])
    node = {"__class__": "bytes", "__module__": "builtins", "__loader__": "BytesNode"}
    state = head_state(schema)
    for name in state:
        state[name] = {**node, "file": "opaque.bin"}
    content |= {
        "schema.json": json.dumps(schema),
        "opaque.bin": pickle.dumps(Payload(tmp_path / "ran")),
    }
    loaded = skops.loads(packed(content), trusted=SKOPS_TRUSTED)
    with pytest.raises((AttributeError, TypeError, ValueError)):
        outputs(loaded)
    assert not (tmp_path / "ran").exists()


def test_code_that_an_attacker_names_is_reported_and_refused():
    content = members(skops.dumps(trained("pipeline")))
    schema = json.loads(content["schema.json"])
    node = {"__class__": "system", "__module__": "os", "__loader__": "FunctionNode"}
    head_state(schema)["module"] = node
    data = packed({**content, "schema.json": json.dumps(schema)})
    assert "os.system" in skops.get_untrusted_types(data=data)
    with pytest.raises(skops.exceptions.UntrustedTypesFoundException, match=r"os\.system"):
        skops.loads(data, trusted=SKOPS_TRUSTED)


def test_custom_modules_and_transforms_are_named():
    head = HeadClassifier(module=MyHead, max_epochs=1).fit(np.eye(4), [0, 1, 0, 1])
    embedder = ImageEmbedder(augmentation=v2.RandomRotation(20), n_views=2)
    for model, name in ((head, "MyHead"), (embedder, "RandomRotation")):
        data = skops.dumps(model)
        (other,) = set(skops.get_untrusted_types(data=data)) - set(SKOPS_TRUSTED)
        assert other.rpartition(".")[2] == name
        with pytest.raises(skops.exceptions.UntrustedTypesFoundException, match=name):
            skops.loads(data, trusted=SKOPS_TRUSTED)
        skops.loads(data, trusted=[*SKOPS_TRUSTED, other])
