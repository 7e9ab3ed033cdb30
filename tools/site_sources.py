"""A hook of mkdocs.yml: what pages link to outside of docs/ becomes a page of the site, README.md its first one.

Links in the Markdown stay as they work in the repository. A file is shown as it is, a folder as a list of its files.
Neither is in the navigation: they are read by following a link.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(\]\()(?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?(\))")
CODE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def page_of(path: str) -> str:
    """The page of the site on which a file or folder of the repository is."""
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    file = ROOT / path
    return f"source/{path}/index.md" if file.is_dir() else f"source/{path.removesuffix('.md')}.md"


def linked(markdown: str, folder: str) -> list[str]:
    """The paths in the repository that `markdown`, which lies in `folder` of it, links to."""
    prose = CODE.sub("", markdown)
    return [posixpath.normpath(posixpath.join(folder, match[2])) for match in LINK.finditer(prose)]


def with_links(markdown: str, folder: str, page: str) -> str:
    """`markdown` with its links led to the pages of the site, from where it is shown as `page`."""

    def lead(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, match[2]))
        if not (ROOT / path).exists():
            return match[0]  # strict mode names it
        to = posixpath.relpath(page_of(path), posixpath.dirname(page))
        return f"{match[1]}{to}{match[3] or ''}{match[4]}"

    return LINK.sub(lead, markdown)


def shown(path: str) -> str:
    """A file or folder of the repository as Markdown."""
    file = ROOT / path
    if file.is_dir():
        names = sorted(f"{name}/" if (file / name).is_dir() else name for name in os.listdir(file))
        kept = [name for name in names if not name.startswith((".", "__pycache__"))]
        return f"# {path}/\n\n" + "\n".join(f"- `{name}`" for name in kept) + "\n"
    text = file.read_text()
    return text if path.endswith(".md") else f"# {path}\n\n~~~~{file.suffix.removeprefix('.')}\n{text}\n~~~~\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add README.md and, from link to link, whatever lies outside of docs/."""
    todo = ["README.md"]
    for file in files.documentation_pages():
        todo += linked(file.content_string, "docs")
    done = set()
    while todo:
        path = todo.pop()
        if path in done or path.startswith("docs/") or not (ROOT / path).exists():
            continue
        done.add(path)
        text, page = shown(path), page_of(path)
        if path.endswith(".md"):
            folder = posixpath.dirname(path)
            todo += linked(text, folder)
            text = with_links(text, folder, page)
        level = InclusionLevel.INCLUDED if path == "README.md" else InclusionLevel.NOT_IN_NAV
        files.append(File.generated(config, page, content=text, inclusion=level))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Lead the links of a page of docs/ to the site."""
    return markdown if page.file.generated_by else with_links(markdown, "docs", page.file.src_uri)
