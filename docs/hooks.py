"""Lets mkdocs build the pages of the repository as they are: links out of docs/ become pages or files of the site.

README.md, CONTRIBUTING.md and plots/README.md are pages, too. A file that a page links to is copied; of a link to a
folder the text stays. What does not exist is left to mkdocs, which calls it broken.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "plots/README.md": "results.md"}
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")
_TO_A_FOLDER = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#:\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with its links as the site has them."""
    own = next((source for source, name in PAGES.items() if name == page.file.src_uri), f"docs/{page.file.src_uri}")

    def folder(match: re.Match[str]) -> str:
        return match[1] if (ROOT / _target(own, match[2])).is_dir() else match[0]

    def link(match: re.Match[str]) -> str:
        return _on_the_site(_target(own, match[1]), config, files) + (match[2] or "")

    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.DOTALL | re.MULTILINE)
    parts[::2] = [_LINK.sub(link, _TO_A_FOLDER.sub(folder, prose)) for prose in parts[::2]]
    return "".join(parts)


def _target(own: str, link: str) -> str:
    """Where in the repository a link of a page leads."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(own), link))


def _on_the_site(target: str, config: MkDocsConfig, files: Files) -> str:
    """Where the site has a file of the repository, from its pages, which all lie in one folder."""
    if target in PAGES:
        return PAGES[target]
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    if (ROOT / target).is_file() and files.get_file_from_path(target) is None:
        files.append(File.generated(config, target, abs_src_path=str(ROOT / target)))
    return target
