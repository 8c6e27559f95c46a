"""Adds files from outside of docs/ to the site: the front page, CONTRIBUTING.md, and every file that a page links to.

A link from a page to `../examples/tiny_cpu.toml` works in a checkout. Here the file becomes a page with its source, so
the site works without a network, and a link to a file that does not exist stays as it is, which fails the strict build.
"""

import os
import re
import subprocess
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
# pages whose source is outside of docs/
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "examples/agents/README.md": "agents.md",
}
# source files whose content is a page made by references.py; on a code host the same link shows the source
REFERENCES = {
    "acc_megatron/config.py": "settings.md",
    "acc_megatron/launch/experiment.py": "experiment_settings.md",
    "acc_megatron/cli/app.py": "commands.md",
}
ASSETS = (".svg", ".png")
LINK = re.compile(r"(\]\(|src=\"|href=\")([^)\s\"#]+)(#[^)\s\"]*)?(?=[)\"])")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.M | re.S)
ONLINE = re.compile(r"<!-- online -->.*?<!-- /online -->\n?", re.S)  # parts of the front page that need a network


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of `PAGES`, and a page or a copy for every file that a page links to."""
    for source, name in PAGES.items():
        if (ROOT / source).is_file():
            files.append(File.generated(config, name, content=ONLINE.sub("", (ROOT / source).read_text())))
    linked: set[str] = set()
    for file in list(files.documentation_pages()):
        source = _source(file.src_uri)
        for match in LINK.finditer(FENCE.sub("", file.content_string)):
            linked.add(_in_repository(source, match[2]))
    for path in sorted(linked):
        if (added := _added_file(path, config)) is not None:
            files.append(added)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links that leave docs/ to the pages that `on_files` added."""
    source = _source(page.file.src_uri)

    def replaced(match: re.Match[str]) -> str:
        path = _in_repository(source, match[2])
        if "://" in match[2] or match[2].startswith(("/", "mailto:")) or not (ROOT / path).exists():
            return match[0]
        target = os.path.relpath(_uri(path), PurePosixPath(page.file.src_uri).parent)
        return f"{match[1]}{target}{match[3] or ''}"

    fences = [match.span() for match in FENCE.finditer(markdown)]
    parts, at = [], 0
    for start, end in [*fences, (len(markdown), len(markdown))]:
        parts += [LINK.sub(replaced, markdown[at:start]), markdown[start:end]]
        at = end
    return "".join(parts)


def _source(uri: str) -> str:
    """The path in the repository of the page at `uri`."""
    outside = {name: source for source, name in PAGES.items()}
    return outside.get(uri, f"docs/{uri}")


def _in_repository(source: str, target: str) -> str:
    """The path in the repository that a link of the file `source` leads to."""
    return os.path.normpath(PurePosixPath(source).parent / target)


def _uri(path: str) -> str:
    """The place in the site of a path in the repository."""
    if made := PAGES.get(path) or REFERENCES.get(path):
        return made
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.endswith(ASSETS):
        return f"files/{path}"
    return f"files/{path}/index.md" if (ROOT / path).is_dir() else f"files/{path}.md"


def _added_file(path: str, config: MkDocsConfig) -> File | None:
    """The page of a file or folder outside of docs/; None if it is a page already or does not exist."""
    is_page = path in PAGES or path in REFERENCES or path == "docs" or path.startswith("docs/")
    if is_page or path.startswith("..") or not (ROOT / path).exists():
        return None
    if path.endswith(ASSETS):
        return File.generated(config, _uri(path), content=(ROOT / path).read_bytes())
    if (ROOT / path).is_dir():
        listed = subprocess.run(["git", "ls-files", path], cwd=ROOT, capture_output=True, text=True, check=True)
        text = listed.stdout
    else:
        text = (ROOT / path).read_text()
    kind = {".py": "python", ".toml": "toml", ".sh": "sh"}.get(PurePosixPath(path).suffix, "text")
    return File.generated(config, _uri(path), content=f"# {path}\n\n~~~~{kind}\n{text.rstrip()}\n~~~~\n")
