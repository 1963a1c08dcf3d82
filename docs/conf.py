"""Settings of the documentation: Markdown pages, numpydoc API reference, a gallery of examples."""

import warnings

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
    "sphinx.ext.intersphinx",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "auto_examples/*.ipynb", "auto_examples/*.py.md5"]
html_theme = "furo"
html_title = f"sktransfer {release}"

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_default_options = {"members": True, "inherited-members": False}
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

intersphinx_mapping = {
    "joblib": ("https://joblib.readthedocs.io/en/stable", None),
    "numpy": ("https://numpy.org/doc/stable", None),
    "python": ("https://docs.python.org/3", None),
    "sklearn": ("https://scikit-learn.org/stable", None),
    "skorch": ("https://skorch.readthedocs.io/en/stable", None),
    "torch": ("https://docs.pytorch.org/docs/stable", None),
}

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/\w+\.py$",
    "ignore_pattern": r"/_",
    "reference_url": {"sktransfer": None},
    "show_memory": False,
}

# Pages of scripts run without a display.
warnings.filterwarnings("ignore", message=".*non-interactive.*", category=UserWarning)
