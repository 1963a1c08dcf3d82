"""Sphinx settings: Markdown pages, a numpydoc API reference and a gallery of examples.

The default build needs no network and runs no example. Two options change that::

    python -m sphinx -t online docs docs/_build            # adds links to other projects
    python -m sphinx -D plot_gallery=1 docs docs/_build    # runs the examples
"""

import sktransfer

project = "sktransfer"
author = "The sktransfer developers"
copyright = "2026, The sktransfer developers"
release = version = sktransfer.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "auto_examples/*.ipynb", "auto_examples/*.py.md5"]
templates_path = ["_templates"]
html_theme = "furo"
html_title = f"sktransfer {release}"

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

# In docstrings, single backquotes mark code, as in scikit-learn.
default_role = "literal"
autosummary_generate = True
# Members of our own base classes are listed, those of scikit-learn's and Python's are not.
_FOREIGN = ("BaseEstimator", "ClassifierMixin", "MetaEstimatorMixin", "RegressorMixin")
_FOREIGN += ("TransformerMixin", "_MetadataRequester", "_SetOutputMixin", "BaseException", "tuple")
autodoc_default_options = {"members": True, "inherited-members": ",".join(_FOREIGN)}
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
autodoc_typehints = "none"  # the docstrings say more

# Every link must lead somewhere. Without the inventories of other projects, their names cannot.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(joblib|numpy|pathlib|PIL|pandas|sklearn|skorch|torch|torchvision)(\..*)?"),
    # From the docstrings of the methods that scikit-learn adds for metadata routing.
    (r"(std:)?(ref|term)", r"metadata_routing|meta-estimator"),
]

if tags.has("online"):  # noqa: F821  (Sphinx defines `tags`)
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "joblib": ("https://joblib.readthedocs.io/en/stable", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "python": ("https://docs.python.org/3", None),
        "sklearn": ("https://scikit-learn.org/stable", None),
        "skorch": ("https://skorch.readthedocs.io/en/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
    }

sphinx_gallery_conf = {
    "plot_gallery": False,
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/(?!serve)\w+\.py$",  # serve.py runs for ever
    "ignore_pattern": r"/_",
    "within_subsection_order": "ExampleTitleSortKey",
    "reference_url": {"sktransfer": None},
    "show_memory": False,
}
