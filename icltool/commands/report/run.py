"""Makes one HTML file of evaluations, or of generated sequences.

Reads: evaluations/*/results.json, predictions/*.jsonl and datasets/<name>/<task>/ with its images; or sequences/*.h5
Writes: exports/report.html, exports/<sequences>.html, or where --output says
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from icltool.commands.report.options import ReportConfig
from icltool.commands.report.page.evaluations import evaluations_page
from icltool.commands.report.page.render import render
from icltool.commands.report.page.sequences import sequences_page
from icltool.commands.report.page.thumbnails import make_thumbnails
from icltool.contracts import Progress, StageReport
from icltool.errors import ConfigError, StoreError
from icltool.store.atomic import check_writable, write_text
from icltool.store.evaluations import RESULTS
from icltool.store.outputs import output_of
from icltool.store.workspace import Workspace

if TYPE_CHECKING:
    from icltool.commands.report.page.content import Page
    from icltool.commands.report.page.page_builder import Draft

_MEGA = 1_000_000
#: The part of what is left for images that is not promised to them: what else a page with images has more of.
_SPARE = 0.01


def run(config: ReportConfig, progress: Progress) -> StageReport:
    """Writes the page. Raises ConfigError if both evaluations and sequences are requested, StoreError if there is nothing
    to show, a results.json or a sequences file is missing or damaged, or the output already exists or cannot be written."""
    if config.sequences is not None and config.evaluations:
        raise ConfigError(
            "evaluations and --sequences cannot be combined: each has its own page", "give one of the two"
        )
    target = _output(config)
    check_writable(target)
    draft = _draft(config, progress)
    text, page = _rendered(config, draft, progress)
    write_text(target, text)
    size = len(text.encode()) / _MEGA
    row = {
        "content": page.kind,
        "settings": len(page.settings),
        "queries": len(page.queries),
        "images": f"{len(page.images):,} of {len(draft.references):,}",
        "MB": round(size, 2),
        "file": str(target),
    }
    remarks = _remarks(page)
    if size > config.max_mb:
        remarks.append(_too_large(config, page, size))
    return StageReport(page.title, (row,), target, tuple(remarks))


def _draft(config: ReportConfig, progress: Progress) -> Draft:
    count, seed, title = config.max_queries, config.seed, config.title
    if config.sequences is not None:
        progress.detail(f"reading {config.sequences}")
        return sequences_page(config.sequences, config.workspace, count, seed, title)
    paths = _evaluations(config)
    progress.detail(f"reading {', '.join(map(str, paths))}")
    return evaluations_page(paths, config.workspace, count, seed, title)


def _evaluations(config: ReportConfig) -> list[Path]:
    """The requested folders, without duplicates; without a request all evaluations, the newest first. StoreError if one is
    missing or there is none."""
    workspace = Workspace(config.workspace)
    if not config.evaluations:
        return workspace.evaluated()
    folders = []
    for name in config.evaluations:
        within = workspace.evaluations / name
        path = name if name.exists() or not within.exists() else within
        if not (path / RESULTS).exists() and any((path / part).is_dir() for part in ("evaluations", "datasets")):
            raise StoreError(f"{name} is a workspace, not an evaluation", f"use --workspace {name}")
        if not path.exists():
            raise StoreError(
                f"{name} does not exist", f"give evaluation folders, such as those in {workspace.evaluations}"
            )
        folders.append(path)
    return list({path.resolve(): path for path in folders}.values())


def _rendered(config: ReportConfig, draft: Draft, progress: Progress) -> tuple[str, Page]:
    """(the HTML text, its page): with images in what the rest of the page leaves of --max-mb."""
    page = draft.without_images()
    text = render(page)
    if not config.images or not draft.references:
        return text, page
    limit = int(config.max_mb * _MEGA)
    budget = int((limit - len(text.encode())) * (1 - _SPARE))
    thumbnails = make_thumbnails(draft.references, draft.large, draft.uses, max(0, budget), progress)
    page = draft.finished(thumbnails.images, thumbnails.remarks)
    return render(page), page


def _too_large(config: ReportConfig, page: Page, size: float) -> str:
    """The note on a page of `size` MB, more than requested: fewer queries help only if the page has enough of them."""
    bare = replace(page, queries=(), results=(), images=(), remarks=())
    if page.kind == "evaluations":
        bare = replace(bare, demonstrations=())
    least = len(render(bare).encode()) / _MEGA
    problem = f"the page has {size:.2g} MB, more than --max-mb"
    if config.max_mb > least:
        return f"{problem}, by its texts alone: give a smaller --max-queries"
    return f"{problem}: without any query it has {math.ceil(100 * least) / 100:.2f} MB, give a larger --max-mb"


def _output(config: ReportConfig) -> Path:
    """The path to write to: an earlier report at the default path is replaced. StoreError if anything else is there."""
    name = "report.html" if config.sequences is None else f"{config.sequences.stem}.html"
    usual = config if config.output is not None else config.model_copy(update={"overwrite": True})
    return output_of(usual, name, tuple(filter(None, (config.sequences, *config.evaluations))))


def _remarks(page: Page) -> list[str]:
    """What the page says is missing or left out; lines of one source come after its title."""
    return [*page.remarks, *(f"{source.title}: {line}" for source in page.sources for line in source.remarks)]
