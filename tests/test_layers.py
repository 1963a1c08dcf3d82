"""Who imports what inside the package."""

import ast
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sktransfer"
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
#: The one module that may import private names of scikit-learn.
FOR_SKLEARN = Path("_utils", "_sklearn.py")
#: Folders of helpers, whose modules are imported by others; what has no underscore is for them.
HELPERS = ("_training", "_utils")


def test_each_layer_imports_only_from_the_layers_below_it():
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml")) == 0


def imports_of(file):
    """Yield (line, parts of the module, name or None, level) of every import in a file."""
    for node in ast.walk(ast.parse((PACKAGE / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, tuple((node.module or "").split(".")), alias.name, node.level
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, tuple(alias.name.split(".")), None, 0


def is_private(name):
    return name is not None and name.startswith("_") and not name.startswith("__")


@pytest.mark.parametrize("file", FILES, ids=str)
def test_private_names_of_sklearn_are_imported_in_one_module(file):
    found = [
        f"line {line}: {'.'.join(module)}.{name}"
        for line, module, name, _ in imports_of(file)
        if module[0] == "sklearn" and any(map(is_private, (*module, name)))
    ]
    assert file == FOR_SKLEARN or not found


@pytest.mark.parametrize("file", FILES, ids=str)
def test_imports_inside_the_package_are_relative(file):
    assert "sktransfer" not in {module[0] for _, module, _, level in imports_of(file) if level == 0}


@pytest.mark.parametrize("file", FILES, ids=str)
def test_no_subject_imports_a_private_name_of_another(file):
    """What others need is exported by the `__init__` of a subject, or lies among the helpers."""
    found = []
    for line, module, name, level in imports_of(file):
        if level != len(file.parts):  # of the same subject, or of another package
            continue
        subject, *inside = module if module[0] else (name,)
        if any(map(is_private, [name] if subject in HELPERS else [*inside, name])):
            found.append(f"line {line}: {'.'.join(module)}.{name}")
    assert not found
