"""The pages of the documentation: their code runs, and their links and lines are good."""

import re
from pathlib import Path

import pytest

from sktransfer import ImageEmbedder
from sktransfer.datasets import make_shapes

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
# The front page needs folders of images and downloads weights.
PAGES = [
    page.name
    for page in sorted(DOCS.glob("*.md"))
    if page.name != "index.md" and BLOCK.search(page.read_text("utf-8"))
]
MARKDOWN = [
    *ROOT.glob("*.md"),
    *DOCS.glob("*.md"),
    *(ROOT / "benchmarks").glob("*.md"),
    *(ROOT / "pretraining").glob("*.md"),
]


@pytest.fixture(scope="module")
def shapes():
    return make_shapes(120, random_state=0)


def names_of(page, shapes):
    """Names that a page expects: images, or embeddings on the page about heads."""
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
@pytest.mark.filterwarnings("ignore::sktransfer.exceptions.SmallValidationWarning")
@pytest.mark.parametrize("page", PAGES)
def test_blocks_run(page, shapes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (DOCS / page).read_text("utf-8")
    names = names_of(page, shapes)
    for match in BLOCK.finditer(text):
        # Blank lines in front make a traceback show the line of the page.
        source = "\n" * (text.count("\n", 0, match.start()) + 1) + match[1]
        exec(compile(source, str(DOCS / page), "exec"), names)


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: f"{page.parent.name}-{page.name}")
def test_lines_are_short(page):
    lines = enumerate(page.read_text("utf-8").splitlines(), start=1)
    assert not [(n, line) for n, line in lines if len(line) > 110 and not line.startswith("|")]


def test_links_lead_somewhere():
    for page in DOCS.glob("*.md"):
        targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8"))
        assert not [target for target in targets if not (DOCS / target).exists()], page.name
