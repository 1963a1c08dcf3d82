"""The layers of the package, which `pyproject.toml` describes, hold."""

from pathlib import Path

from importlinter.cli import lint_imports

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def test_each_layer_imports_only_from_the_layers_below_it():
    assert lint_imports(config_filename=str(PYPROJECT)) == 0
