"""The pages for contributors name files and classes that exist."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / ".github" / name for name in ("DESIGN.md", "CONTRIBUTING.md")]
CODE = "\n".join(path.read_text("utf-8") for path in (REPOSITORY / "ctxcache").rglob("*.py"))


def quoted(page: Path) -> list[str]:
    """All that stands in backticks, code blocks apart."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`]+)`", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_exist(page: Path) -> None:
    """Every path is that of a file or folder, from the top or from the package."""
    pattern = r"\.ci/.*|[\w./]+(/|\.py|\.md|\.toml)"
    paths = [name.split()[0] for name in quoted(page) if re.fullmatch(pattern, name) and "a/" not in name]
    places = [REPOSITORY, REPOSITORY / "ctxcache"]
    assert len(paths) > 8
    assert [path for path in paths if not any((place / path).exists() for place in places)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_exist(page: Path) -> None:
    """Every class, and every function with an underscore, occurs in the package."""
    names = [part for name in quoted(page) if re.fullmatch(r"[A-Za-z_.]+", name) for part in name.split(".")]
    wanted = {name for name in names if re.search(r"[a-z][A-Z]|^[a-z]+_[a-z_]+$|^[A-Z][a-z]+$", name)}
    assert [name for name in sorted(wanted) if not re.search(rf"\b{name}\b", CODE)] == []


def test_links_exist() -> None:
    """Links between the pages, and to files, are not broken."""
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), target
