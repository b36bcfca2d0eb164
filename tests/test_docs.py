"""README and docs say what is so: measured tables, options and links."""

import re
from urllib.parse import unquote

import pytest

from docs import findings, options
from src.base.files import PROJECT_ROOT

PAGES = [*sorted(PROJECT_ROOT.glob("*.md")), *sorted((PROJECT_ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("table", ["table.md", "search.md"])
def test_performance_carries_the_measured_table(table):
    measured = (PROJECT_ROOT / "benchmarks" / table).read_text(encoding="utf-8").strip()
    page = (PROJECT_ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert measured in page, f"docs/performance.md lacks the table of benchmarks/{table}"


def test_options_are_those_of_the_parsers():
    is_current = options.PAGE.read_text(encoding="utf-8") == options.page(options.DOORS)
    assert is_current, "docs/options.md is stale: run make docs"


def test_findings_are_those_of_the_rules():
    text = findings.PAGE.read_text(encoding="utf-8")
    assert all(form.rules and findings.table(form) in text for form in findings.SERVERS.values()), "run make docs"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_commands_of_benchmarks_exist(path):
    named = set(re.findall(r"python\s-m\sbenchmarks\.(\w+)", path.read_text(encoding="utf-8")))
    assert [name for name in named if not (PROJECT_ROOT / "benchmarks" / f"{name}.py").is_file()] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    targets = re.findall(r"\]\(([^)\s]+)\)", without_code(path.read_text(encoding="utf-8")))
    assert [target for target in targets if not leads_somewhere(path, target)] == []


def leads_somewhere(path, target):
    """Whether a link in the page at `path` names a web page, or a file and, behind a #, one of its headings."""
    if re.match("https?:", target):
        return True
    name, _, heading = target.partition("#")
    file = path.parent / unquote(name) if name else path
    return file.is_file() and (not heading or heading in anchors(file))


def anchors(path):
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", without_code(path.read_text(encoding="utf-8")), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def without_code(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["README.md", "docs/differences.md"])
def test_who_comes_from_the_published_readme_finds_its_commands(page):
    text = " ".join((PROJECT_ROOT / page).read_text(encoding="utf-8").split())
    assert re.search(r"`python src/clip_fine_tune.py …`.{,60}`python clip_fine_tune.py …` here", text)


def test_one_version_everywhere():
    texts = {name: (PROJECT_ROOT / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "CITATION.cff")}
    (version,) = re.findall(r'^version = "(.+)"$', texts["pyproject.toml"], re.MULTILINE)
    changes = (PROJECT_ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released, date = re.search(r"^## \[(\d[^]]*)\] - (\d{4}-\d\d-\d\d)$", changes, re.MULTILINE).groups()
    assert released == version
    assert f"\nversion: {version}\ndate-released: {date}\n" in texts["CITATION.cff"]


def test_citation_file_names_the_paper_of_the_readme():
    readme = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    fields = dict(re.findall(r"^  (\w+) += \{(.+)\}", readme, re.MULTILINE))
    _, paper = (PROJECT_ROOT / "CITATION.cff").read_text(encoding="utf-8").split("preferred-citation:")
    names = zip(*(re.findall(f"{part}-names: (.+)", paper) for part in ("family", "given")), strict=True)
    assert fields["author"] == " and ".join(map(", ".join, names))
    assert re.findall(r"^  (?:title|journal|year): (.+)$", paper, re.MULTILINE) == [
        fields[name] for name in ("title", "journal", "year")
    ]
    assert f"value: {fields['note'].replace(' ', ':')}\n" in paper
