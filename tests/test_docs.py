"""The docstrings of the public names: complete, in numpydoc's sections, and their examples run."""

import doctest
import inspect
import re
import tomllib
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import pytest
import torch
from numpydoc.validate import get_validation_checks, validate
from sklearn.base import BaseEstimator

import sktransfer

PACKAGE = Path(sktransfer.__file__).parent
ROOT = Path(__file__).parents[1]  # the package may be installed elsewhere
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]
CHECKS = get_validation_checks(set(SETTINGS["numpydoc_validation"]["checks"]))
#: Subjects, public and private: modules and folders at the top level of the package.
SUBJECTS = sorted(
    path.stem
    for path in PACKAGE.iterdir()
    if (path.suffix == ".py" or (path / "__init__.py").exists()) and path.stem != "__init__"
)
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if path.parent != PACKAGE or path.stem != "__init__"
)


def public_objects():
    """Yield (label, object) for each public class, method and function, every one once."""
    seen = set()
    for module in SUBJECTS:
        if module.startswith("_"):
            continue
        home = import_module(f"sktransfer.{module}")
        for name in getattr(home, "__all__", [n for n in vars(home) if not n.startswith("_")]):
            thing = getattr(home, name)
            if documentable(thing) and id(thing) not in seen:
                seen.add(id(thing))
                yield f"{module}.{name}", thing
    for name in sktransfer.__all__:
        thing = getattr(sktransfer, name)
        if documentable(thing) and id(thing) not in seen:
            yield name, thing


def documentable(thing):
    ours = getattr(thing, "__module__", "").split(".")[0] == "sktransfer"
    return ours and (inspect.isclass(thing) or inspect.isroutine(thing))


def public_methods(cls):
    """Yield the public methods that ``cls`` itself defines (what it inherits is another's)."""
    for name in vars(cls):
        # scikit-learn writes set_fit_request and its like into every class.
        if name.startswith("_") or re.fullmatch(r"set_\w+_request", name):
            continue
        if inspect.isroutine(inspect.unwrap(getattr(cls, name))):
            yield name, getattr(cls, name)


OBJECTS = dict(public_objects())
FUNCTIONS = {label: thing for label, thing in OBJECTS.items() if inspect.isroutine(thing)}
CLASSES = {label: thing for label, thing in OBJECTS.items() if inspect.isclass(thing)}
METHODS = {
    f"{label}.{name}": method
    for label, cls in CLASSES.items()
    for name, method in public_methods(cls)
}
# The others take their parameters from a base class, which documents them.
WITH_PARAMETERS = [
    label for label, cls in CLASSES.items() if {"__init__", "__new__"} & set(vars(cls))
]
ESTIMATORS = {label: cls for label, cls in CLASSES.items() if issubclass(cls, BaseEstimator)}


def sections(thing):
    """Map the title of each numpydoc section of a docstring to its text; "" holds the summary."""
    doc = inspect.cleandoc(thing.__doc__ or "")
    pieces = re.split(r"^([A-Z][A-Za-z ]+)\n-{3,}\n", doc, flags=re.MULTILINE)
    return {"": pieces[0], **dict(zip(pieces[1::2], pieces[2::2], strict=True))}


def entries(text):
    """Names that a ``Parameters`` or ``Attributes`` section describes."""
    names = re.findall(r"^([*\w][\w*, .]*?)(?: *:.*)?$", text, flags=re.MULTILINE)
    return {part.strip(" *") for name in names for part in name.split(",")}


def parameters(thing):
    """Names of the parameters that a caller gives; ``_private`` ones are nobody's business."""
    found = inspect.signature(thing).parameters
    return {name for name in found if name not in ("self", "cls") and not name.startswith("_")}


@pytest.mark.parametrize("label", OBJECTS | METHODS)
def test_docstring_is_valid(label):
    inherited = {"PR01"} if label in CLASSES and label not in WITH_PARAMETERS else set()
    found = validate(f"sktransfer.{label}")["errors"]
    assert not [f"{code}: {text}" for code, text in found if code in CHECKS - inherited]


@pytest.mark.parametrize("label", FUNCTIONS | METHODS)
def test_function_documents_its_result(label):
    thing = (FUNCTIONS | METHODS)[label]
    assert {"Returns", "Yields"} & set(sections(thing)) or returns_nothing(thing)


def returns_nothing(thing):
    """Whether no ``return`` of the source gives a value."""
    source = inspect.getsource(inspect.unwrap(thing))
    return not re.search(r"^\s*(return|yield) +\S", source, flags=re.MULTILINE)


@pytest.mark.parametrize("label", ESTIMATORS)
def test_estimator_has_every_section(label):
    missing = {"Parameters", "Attributes", "Examples"} - set(sections(ESTIMATORS[label]))
    assert not missing, f"{label}: no section {sorted(missing)}"


@pytest.mark.parametrize("label", ESTIMATORS)
def test_estimator_documents_what_it_learns(label):
    cls = ESTIMATORS[label]
    undocumented = fitted_attributes(cls) - entries(sections(cls).get("Attributes", ""))
    assert not undocumented, f"{label}: no word on {sorted(undocumented)}"


def fitted_attributes(cls):
    """Public attributes ending in ``_`` that the class's own code assigns or computes."""
    source = "".join(
        inspect.getsource(base) for base in cls.__mro__ if base.__module__.startswith("sktransfer")
    )
    assigned = set(re.findall(r"self\.([a-z]\w*_)\b\s*(?:,[^=\n]*)?=(?!=)", source))
    computed = set(re.findall(r"property\n +def ([a-z]\w*[a-z0-9]_)\(self\)", source))
    return assigned | computed


def test_every_public_function_and_constructor_has_type_hints():
    constructors = {
        label: vars(CLASSES[label]).get("__init__")
        for label in WITH_PARAMETERS
        if not label.endswith("Display")  # users call their class methods
    }
    # Some modules import torch for type checkers only.
    missing = [
        f"{label}: {name}"
        for label, thing in (FUNCTIONS | METHODS | constructors).items()
        if thing is not None
        for name in {*parameters(thing), "return"}
        - set(get_type_hints(inspect.unwrap(thing), localns={"torch": torch}))
    ]
    assert not missing


@pytest.mark.usefixtures("quick_backbones")
@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_run(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testmod(import_module(f"sktransfer.{module}"), optionflags=flags)
    assert result.failed == 0, "see the captured output"


@pytest.mark.parametrize(
    "name", [name for name in sktransfer.__all__ if documentable(getattr(sktransfer, name))]
)
def test_main_names_have_examples(name):
    assert "Examples" in sections(getattr(sktransfer, name))
