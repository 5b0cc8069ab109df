"""What the documents show works: commands exist with their options, settings are valid, files named are there."""

import itertools
import re
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from webdancer.cli import app
from webdancer.config import Config
from webdancer.settings_file import load_config

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in DOCUMENTS}
COMMAND = re.compile(r"(?:^|[`/ ])webdancer ((?:world )?[a-z]+)((?: [^`\n#|]*)?)", re.MULTILINE)


def shown_commands() -> list[tuple[str, str, str]]:
    """(document, subcommand, the rest of the line) wherever a document shows a command in code."""
    found = []
    for name, text in TEXT.items():
        for code in re.findall(r"```[a-z]*\n(.*?)```|`([^`\n]+)`", text, re.DOTALL):
            found += [(name, command, rest) for command, rest in COMMAND.findall("".join(code))]
    return found


def test_documents_show_commands() -> None:
    assert len({command for _, command, _ in shown_commands()}) >= 8


@pytest.mark.parametrize(("document", "command", "rest"), shown_commands())
def test_shown_commands_exist_with_their_options(document: str, command: str, rest: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == 0, f"{document}: webdancer {command}"
    for option in re.findall(r"(?<!\S)\[?(--[a-z-]+)", rest):
        assert option in result.output, f"{document}: webdancer {command} has no {option}"


def test_every_command_is_in_the_readme() -> None:
    shown = TEXT["README.md"]
    missing = [name for name in get_command(app).commands if not re.search(rf"\b{name}\b", shown)]  # type: ignore[attr-defined]
    assert missing == []


def test_shown_settings_are_valid(tmp_path: Path) -> None:
    blocks = [
        (name, block) for name, text in TEXT.items() for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    ]
    assert "README.md" in {name for name, _ in blocks}
    for name, block in blocks:
        path = tmp_path / name.replace("/", "-")
        path.write_text(block, encoding="utf-8")
        extends = tomllib.loads(block).get("extends")
        assert load_config(path) != (load_config(Path(extends)) if extends else Config()), f"{name} sets nothing"


def test_shipped_settings_are_valid() -> None:
    shipped = {path.name: load_config(path) for path in (ROOT / "configs").glob("*.toml")}
    names = {"one-key.toml", "live.toml", "released.toml", "tiny.toml", "reproduce.toml", "small.toml", "paper.toml"}
    assert set(shipped) >= names


def test_every_setting_of_the_paper_names_its_source() -> None:
    lines = (ROOT / "configs" / "paper.toml").read_text(encoding="utf-8").splitlines()
    for before, line in itertools.pairwise(lines):
        if re.match(r"\w+ = ", line):
            note = line.partition(" # ")[2].strip() or before.removeprefix("# ")
            assert re.match(r"(paper|release|note|proxy|unknown -> our choice)\b", note), line


@pytest.mark.parametrize("name", TEXT)
def test_links_and_named_files_are_there(name: str) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", TEXT[name]):
        assert (ROOT / name).parent.joinpath(target).exists(), f"{name} links to {target}"
    for path in re.findall(r"`((?:webdancer|tests|benchmarks|configs|docs)/[\w./-]+\.\w+)`", TEXT[name]):
        assert (ROOT / path).exists(), f"{name} names {path}"
    if name == "docs/paper_map.md":
        rooms = re.findall(r"`([a-z]+/[\w./]+\.(?:py|md))`", TEXT[name])
        assert len(rooms) > 15
        assert [path for path in rooms if not (ROOT / "webdancer" / path).exists()] == []
