"""A module of the package imports only from floors below its own."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import sktransfer

PACKAGE = Path(sktransfer.__file__).parent

#: Floor of each module, or of the subpackage that it lies in. Private modules that were split off
#: a large one stand on steps below it: 0.1 and 0.2 lie between the floors 0 and 1.
FLOORS = {
    "_canonical": 0,
    "exceptions": 0,
    "_backbone_spec": 0.1,
    "_backbone_widths": 0.1,
    "_image_files": 0.1,
    "_pillow": 0.1,
    "_policy": 0.1,
    "_stages": 0.1,
    "_threads": 0.1,
    "_warnings": 0.1,
    "_weights": 0.1,
    "_networks": 0.2,
    "_own_modules": 0.2,
    "_runners": 0.2,
    "_named_backbones": 0.3,
    "_store": 1,
    "backbones": 1,
    "datasets": 1,
    "images": 1,
    "weights": 1,
    "_engine": 2,
    "_finetune_data": 2.2,
    "_head_data": 2.1,
    "_head_modules": 2.1,
    "_head_penalty": 2.1,
    "_lr_range": 2.1,
    "_training": 2.1,
    "_view_splits": 2.2,
    "_views": 2.1,
    "_finetune_prediction": 2.2,
    "_head_fitting": 2.2,
    "_finetune_training": 2.3,
    "_finetune_fit": 3.4,
    "augmentation": 3,
    "embedder": 3,
    "heads": 3,
    "finetuning": 3.5,  # built from an ImageEmbedder and a HeadClassifier
    "display": 4,
    "ensemble": 4,
    "inspection": 4,
}


def module_name(path):
    """Dotted name inside the package: ``heads``, ``weights.cards``; "" for its root."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def floor(name, floors=FLOORS):
    """Floor of a module: its own entry, else that of the subpackage that it lies in."""
    while name not in floors and "." in name:
        name = name.rpartition(".")[0]
    if name not in floors:
        raise AssertionError(
            f"sktransfer/{name}.py stands on no floor: decide which modules may import it, and add "
            f"it to FLOORS in tests/test_floors.py."
        )
    return floors[name]


def imported_modules(tree, package):
    """Yield (line, module of ours) for every import in a syntax tree, deep ones included.

    ``package`` is the dotted name of the package that the module lies in, for relative imports.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from ours(node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node, package)
            for alias in node.names:
                # `from sktransfer import images` names a module; `from sktransfer.images import X`
                # names something in one.
                inner = f"{base}.{alias.name}"
                yield from ours(node.lineno, inner if is_module(inner) else base)


def absolute(node, package):
    """Absolute name of the module that a ``from`` import takes from."""
    if not node.level:
        return node.module
    parts = package.split(".")
    base = ".".join(parts[: len(parts) - node.level + 1])
    return f"{base}.{node.module}" if node.module else base


def is_module(name):
    path = PACKAGE.parent / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").exists()


def ours(line, name):
    if name == "sktransfer" or name.startswith("sktransfer."):
        yield line, name.removeprefix("sktransfer").removeprefix(".")


def climbs(source, name, package="sktransfer", floors=FLOORS):
    """List the imports in ``source`` of module ``name`` that do not go down."""
    own = floor(name, floors)
    return [
        f"sktransfer/{name.replace('.', '/')}.py:{line} (floor {own}) imports "
        f"{imported or 'sktransfer'} (floor {floor(imported, floors) if imported else 'top'})"
        for line, imported in imported_modules(ast.parse(source), package)
        if not imported or (floor(imported, floors) >= own and not siblings(name, imported))
    ]


def siblings(name, other):
    """Whether two modules lie in one subpackage, which keeps its own order inside."""
    return name.split(".")[0] == other.split(".")[0]


def package_of(path):
    return ".".join(path.relative_to(PACKAGE.parent).parent.parts)


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if module_name(path))


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_only_from_floors_below(path):
    found = climbs(path.read_text(encoding="utf-8"), module_name(path), package_of(path))
    assert not found, "\n".join(found)


def test_no_module_imports_itself_round_a_corner():
    graph = {
        module_name(path): {
            imported
            for _, imported in imported_modules(
                ast.parse(path.read_text("utf-8")), package_of(path)
            )
            if imported
        }
        for path in MODULES
    }
    list(TopologicalSorter(graph).static_order())  # a circle is a CycleError that shows it


@pytest.mark.parametrize(
    "source",
    [
        "from sktransfer.exceptions import UnreadableImage",
        "from sktransfer import exceptions",
        "from .exceptions import UnreadableImage",
        "from . import exceptions",
        "import sktransfer.exceptions",
        "import sktransfer",
        "def late():\n    from sktransfer.exceptions import UnreadableImage",
    ],
)
@pytest.mark.parametrize("upstairs", [1, 2])
def test_an_import_that_does_not_descend_is_found(source, upstairs):
    assert climbs(source, "images", floors={"images": 1, "exceptions": upstairs})


def test_an_import_that_descends_is_allowed():
    source = (
        "import os\nfrom sktransfer.exceptions import UnreadableImage\nfrom . import exceptions"
    )
    assert climbs(source, "images") == []


def test_a_module_without_a_floor_fails():
    with pytest.raises(AssertionError, match=r"newcomer\.py stands on no floor"):
        floor("newcomer")


def test_package_root_imports_nothing_of_ours():
    source = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
    assert list(imported_modules(ast.parse(source), "sktransfer")) == []
