"""The pages of the documentation: their code runs, they build, and they list every public name."""

import re
import runpy
import shutil
import warnings
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import new_process
import pytest

import sktransfer

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
# The front page needs folders of images and downloads weights.
PAGES = [
    page.name
    for page in sorted(DOCS.glob("*.md"))
    if page.name != "index.md" and BLOCK.search(page.read_text("utf-8"))
]
TOOLS = (
    "captum",
    "cleanlab",
    "distributed",
    "imblearn",
    "lightgbm",
    "mapie",
    "mlflow",
    "optuna",
    "shap",
)
MARKDOWN = [
    *ROOT.glob("*.md"),
    *DOCS.glob("*.md"),
    *(ROOT / "benchmarks").glob("*.md"),
    *(ROOT / "pretraining").glob("*.md"),
]


@pytest.mark.slow
@pytest.mark.usefixtures("quick_code")
@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
@pytest.mark.filterwarnings("ignore::sktransfer.exceptions.SmallValidationWarning")
@pytest.mark.parametrize("page", PAGES)
def test_blocks_run(page, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    text = (DOCS / page).read_text("utf-8")
    if "find_label_issues" in text:
        pytest.importorskip("cleanlab", reason="needs the extra audit")
    if "export_onnx" in text:
        request.getfixturevalue("quick_onnx")
    if page == "tools.md":
        for tool in TOOLS:
            pytest.importorskip(tool, reason="needs the extra tools")
        warnings.simplefilter("ignore")  # the tools warn of each other
    names = {"__name__": "page"}
    for match in BLOCK.finditer(text):
        # Blank lines in front make a traceback show the line of the page.
        source = "\n" * (text.count("\n", 0, match.start()) + 1) + match[1]
        exec(compile(source, str(DOCS / page), "exec"), names)


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: f"{page.parent.name}-{page.name}")
def test_lines_are_short(page):
    lines = enumerate(page.read_text("utf-8").splitlines(), start=1)
    whole = ("|", "python3 -m venv")  # tables, and commands to paste
    assert not [(n, line) for n, line in lines if len(line) > 110 and not line.startswith(whole)]


def test_no_line_is_a_comment_by_accident():
    """MyST leaves out lines that begin with a percent sign."""
    for page in DOCS.glob("*.md"):
        assert not re.search(r"^ *%", page.read_text("utf-8"), re.MULTILINE), page.name


def test_links_lead_somewhere():
    for page in DOCS.glob("*.md"):
        targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8"))
        assert not [target for target in targets if not (DOCS / target).exists()], page.name


def test_counts_of_lines_are_right():
    text = (DOCS / "coming_from.md").read_text("utf-8")
    counts = dict(re.findall(r"^\| (\w+) \| (\d+) \|", text, re.MULTILINE))
    blocks = re.findall(r"^## (\w+)\n.*?^```py\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = {name: str(len(re.findall(r"^.+$", code, re.MULTILINE))) for name, code in blocks}
    assert len(lines) == 5
    assert counts == lines


def names_in_api():
    text = (DOCS / "api.md").read_text("utf-8")
    return set(re.findall(r"^   ([\w.]+)$", text, re.MULTILINE))


def test_api_reference_links_to_the_guide():
    without_tags = {"tags": SimpleNamespace(has=lambda tag: False)}
    guide = runpy.run_path(str(DOCS / "conf.py"), without_tags)["autosummary_context"]["guide"]
    assert not set(guide) - {name.rpartition(".")[2] for name in names_in_api()}
    assert not [page for page in guide.values() if not (DOCS / f"{page}.md").exists()]


def test_api_reference_lists_every_public_name():
    listed = names_in_api()
    subjects = [
        path.stem
        for path in Path(sktransfer.__file__).parent.iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").exists()) and path.stem[0] != "_"
    ]
    documented = {id(getattr(sktransfer, name)) for name in listed if "." not in name}
    missing = {name for name in sktransfer.__all__ if callable(getattr(sktransfer, name))} - listed
    for subject in subjects:
        home = import_module(f"sktransfer.{subject}")
        for name in home.__all__:
            thing = getattr(home, name)
            if callable(thing) and id(thing) not in documented:
                missing |= {f"{subject}.{name}"} - listed
    assert not missing


BUILD = """
import os, sys
from sphinx.cmd.build import main

os.chdir(folder)
sys.exit(main(args))
"""


@pytest.mark.slow
def test_documentation_builds_without_warnings(tmp_path):
    for package in ("furo", "myst_parser", "numpydoc", "sphinx", "sphinx_gallery"):
        pytest.importorskip(package, reason="needs the extra docs")
    # A copy: the folder may hold pages that an earlier build generated for names of that time.
    generated = shutil.ignore_patterns("_build", "auto_examples", "gen_modules", "generated")
    shutil.copytree(DOCS, tmp_path / "docs", ignore=generated)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for page in ROOT.glob("*.md"):
        shutil.copy(page, tmp_path)
    # "dummy" reads the pages and follows their links as "html" does, but writes none of them.
    options = ["-b", "dummy", "-q", "-W", "-n", "--keep-going", "-w", "warnings.txt"]
    process = new_process.start(BUILD, folder=str(tmp_path), args=[*options, "docs", "out"])
    process.join()
    assert process.exitcode == 0, (tmp_path / "warnings.txt").read_text("utf-8")
