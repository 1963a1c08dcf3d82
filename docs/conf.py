"""Sphinx settings: Markdown pages, a numpydoc API reference and a gallery of examples.

The default build needs no network and runs no example. Two options change that::

    python -m sphinx -t online docs docs/_build     # adds links to other projects
    python -m sphinx -t gallery docs docs/_build    # runs the examples
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
pygments_dark_style = "monokai"

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

# In docstrings, single backquotes mark code, as in scikit-learn.
default_role = "literal"
autosummary_generate = True
#: The page of the user guide about each public name; the templates link to it.
_GUIDE = {
    "embedding": "ImageEmbedder check_images decode_image image_name ImageProblem ImageReadError "
    "ImageReadWarning UnreadableImageError load_image_csv load_image_dataset load_image_folder "
    "make_shapes",
    "backbones": "BackboneSpec Preprocessing RandomWeightsWarning UnknownBackboneError "
    "WeightsError FingerprintMismatchError backbone_stages list_backbones load_backbone "
    "recommended_backbones resolve_backbone split_backbone",
    "heads": "HeadClassifier HeadRegressor SmallValidationWarning TrainingDivergedError "
    "TrainingHistoryDisplay",
    "augmentation": "MultiViewClassifier MultiViewRegressor",
    "finetuning": "FineTuneClassifier",
    "searching": "make_transfer_pipeline",
    "ensembles": "make_transfer_stack",
    "inspection": "EmbeddingMapDisplay ImageGridDisplay NeighborsDisplay OcclusionDisplay "
    "PredictionGridDisplay confused_pairs error_table find_duplicates find_label_issues "
    "prediction_table rank_backbones submission_table summary",
    "files": "export_onnx",
    "scale": "EmbedBatch write_embeddings",
    "cache": "BackboneCacheInfo CacheInfo CacheWarning cache_info clear_cache merge_caches",
    "troubleshooting": "MissingExtraError SktransferError",
}
autosummary_context = {
    "guide": {name: page for page, names in _GUIDE.items() for name in names.split()}
}
# Members of our own base classes are listed, those of scikit-learn's and Python's are not.
_FOREIGN = ("BaseEstimator", "CallbackSupportMixin", "ClassifierMixin", "MetaEstimatorMixin")
_FOREIGN += ("RegressorMixin", "TransformerMixin", "_MetadataRequester", "_SetOutputMixin")
_FOREIGN += ("BaseException", "tuple")
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
    "plot_gallery": tags.has("gallery"),  # noqa: F821
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/(?!serve)\w+\.py$",  # serve.py runs for ever
    "ignore_pattern": r"/_",
    "reference_url": {"sktransfer": None},
    "doc_module": ("sktransfer",),
    "backreferences_dir": "generated/backreferences",
    "first_notebook_cell": (
        "%matplotlib inline\n"
        "import sys\n\n"
        "sys.argv = ['notebook']  # add the arguments of the script, such as 'FOLDER'"
    ),
    "remove_config_comments": True,
    "show_memory": False,
}
