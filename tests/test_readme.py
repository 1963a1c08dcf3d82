"""The README's blocks run, in order, and its two commands are what they promise to be."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [
    (README.count("\n", 0, match.start()) + 2, match[1])
    for match in re.finditer(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
]


def command(name):
    """Return the lines of the shell block under the README's marker of that name."""
    return re.search(rf"<!-- command: {name} -->\n```shell\n(.*?)\n```", README, re.DOTALL)[1]


@pytest.mark.slow
@pytest.mark.usefixtures("quick_backbones")
def test_python_blocks_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "readme"}
    printed = []
    for line, source in BLOCKS:
        # Blank lines in front make a traceback name the README's own line.
        exec(compile("\n" * (line - 1) + source, str(ROOT / "README.md"), "exec"), names)
        printed.append(capsys.readouterr().out)
    shown = re.search(r"^```text\n(.*?)^```", README, re.MULTILINE | re.DOTALL)[1]
    number = r"\d\.\d+"  # other machines round differently
    assert re.sub(number, "", printed[0]).split() == re.sub(number, "", shown).split()
    accuracies = [
        float(re.search(rf"accuracy +({number})", text)[1]) for text in (shown, printed[0])
    ]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.05)


def test_first_block_is_ten_lines():
    line, source = BLOCKS[0]
    assert line < 16
    assert len(source.splitlines()) <= 10


@pytest.mark.parametrize("name", ["quickstart", "tests"])
def test_commands_are_one_line_and_need_only_python(name):
    text = command(name)
    assert "\n" not in text
    for part in text.split(" && "):
        assert part.startswith(("python3 -m venv .venv", ".venv/bin/"))


def test_commands_name_what_is_there():
    script = re.search(r"python (\S+\.py)", command("quickstart"))[1]
    assert (ROOT / script).is_file()
    assert "pytest" in command("tests")


def test_ci_runs_the_test_command(tmp_path):
    """The script extracts the line; a stand-in for python3 stops it before it installs anything."""
    stand_in = tmp_path / "python3"
    stand_in.write_text("#!/bin/sh\nexit 7\n")
    stand_in.chmod(0o755)
    result = subprocess.run(
        [ROOT / ".ci" / "run"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 7, result.stderr
    assert result.stdout.startswith(f"$ {command('tests')}")


def test_links_lead_somewhere():
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    missing = [target for target in targets if not (ROOT / target).exists()]
    assert targets and not missing
