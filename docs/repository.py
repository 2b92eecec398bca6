"""A hook of MkDocs: files of the repository that a page links to become pages of the site, and README its first page.

So a link is written once, relative to the file that it stands in, and holds in the repository and on the site.
"""

import json
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"(?<=\]\()[^)\s#:]+")  # the file that a Markdown link or image names
LANGUAGES = {".py": "python", ".sh": "bash", ".smk": "python", ".yaml": "yaml", ".yml": "yaml"}
PICTURES = (".png", ".svg")
FENCE = "~" * 8
CODE_PAGE = "---\nsearch: {exclude: true}\nhide: [navigation, toc]\n---\n\n"


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add a page for each file outside of docs/ that a page of the navigation, or one of these, links to."""
    top = Path(config.docs_dir).parent
    waiting = ["README.md", *(f"docs/{page.src_uri}" for page in files.documentation_pages())]
    waiting += [path.removeprefix("repository/") for path in re.findall(r"repository/\S+?(?=\.md')", str(config.nav))]
    seen: set[str] = set()
    while waiting:
        path = waiting.pop()
        path = path if (top / path).is_file() else f"{path}.md"
        if path in seen:
            continue
        seen.add(path)
        place = page_of(path, files)
        if place not in files.src_uris:
            is_picture = path.endswith(PICTURES)
            source = {"abs_src_path": str(top / path)} if is_picture else {"content": page_text(top / path, path)}
            files.append(File.generated(config, place, **source))
        if path.endswith(".md"):
            text = (top / path).read_text(encoding="utf-8")
            waiting += [target for link in LINK.findall(text) if (top / (target := joined(path, link))).is_file()]


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at the pages of the files that they name; what names no file is left for MkDocs to report."""
    top = Path(config.docs_dir).parent
    path = file_of(page.file.src_uri, top)
    if not path.endswith(".md"):
        return markdown

    def address(link: re.Match[str]) -> str:
        target = joined(path, link[0])
        if not (top / target).is_file():
            return link[0]
        return posixpath.relpath(page_of(target, files), posixpath.dirname(page.file.src_uri))

    return LINK.sub(address, markdown)


def joined(path: str, link: str) -> str:
    """Return the path, from the top of the repository, of what a link in the file `path` names."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))


def page_of(path: str, files: Files) -> str:
    """Return where the site has a file of the repository."""
    if path == "README.md":
        return "index.md"
    in_docs = path.removeprefix("docs/")
    if in_docs != path and in_docs in files.src_uris and not path.endswith((".ipynb", ".py")):
        return in_docs
    return f"repository/{path}" if path.endswith((".md", *PICTURES)) else f"repository/{path}.md"


def file_of(page: str, top: Path) -> str:
    """Return the file of the repository that a page of the site shows."""
    if page == "index.md":
        return "README.md"
    if not page.startswith("repository/"):
        return f"docs/{page}"
    path = page.removeprefix("repository/")
    return path if (top / path).is_file() else path.removesuffix(".md")


def page_text(file: Path, path: str) -> str:
    """Return a file as Markdown: text as it stands, a notebook's cells one after the other, code in a block."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        return text
    if file.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        return "\n\n".join(_cell("".join(cell["source"]), cell["cell_type"]) for cell in cells)
    return f"{CODE_PAGE}# {path}\n\n{_block(text, LANGUAGES.get(file.suffix, 'text'))}"


def _cell(source: str, kind: str) -> str:
    return _block(source, "python") if kind == "code" else source


def _block(code: str, language: str) -> str:
    return f"{FENCE}{language}\n{code.rstrip()}\n{FENCE}\n"
