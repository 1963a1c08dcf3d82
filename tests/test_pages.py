"""The blocks of the documentation's pages run, in order, on images that the reader is to have."""

import re
from pathlib import Path

import pytest

from sktransfer import ImageEmbedder
from sktransfer.datasets import make_shapes

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
# The front page has folders of photographs and downloads weights.
PAGES = [
    page.name
    for page in sorted(DOCS.glob("*.md"))
    if page.name != "index.md" and BLOCK.search(page.read_text("utf-8"))
]


@pytest.fixture(scope="module")
def shapes():
    return make_shapes(120, random_state=0)


def names_of(page, shapes):
    """What a page takes for granted: images, or embeddings where it is about heads."""
    X = shapes.data
    if page == "heads.md":
        X = ImageEmbedder(image_size=64, cache=None).fit_transform(X)
    return {
        "__name__": "page",
        **{"X": X, "X_train": X[:80], "X_test": X[80:]},
        **{"y": shapes.target, "y_train": shapes.target[:80], "y_test": shapes.target[80:]},
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
@pytest.mark.parametrize("page", PAGES)
def test_blocks_run(page, shapes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (DOCS / page).read_text("utf-8")
    names = names_of(page, shapes)
    for match in BLOCK.finditer(text):
        # Blank lines in front make a traceback name the page's own line.
        source = "\n" * (text.count("\n", 0, match.start()) + 1) + match[1]
        exec(compile(source, str(DOCS / page), "exec"), names)
