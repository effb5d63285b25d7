"""Writes what other programs and papers read.

Reads: sequences/*.h5, checkpoints/*/, evaluations/*/results.json, and for plans and chats predictions/*.jsonl; for chats
    datasets/<name>/<task>/ and plan files as well
Writes: exports/, or where --output says
"""

from __future__ import annotations

import base64
import functools
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icltool.commands.export.model import export_model
from icltool.commands.export.options import ExportConfig
from icltool.commands.export.places import input_of, inputs_of
from icltool.commands.export.selector import export_selector
from icltool.components.models.chat.chat_format import conversation
from icltool.components.models.shared.images import read_image
from icltool.config.datasets import chosen_dataset
from icltool.config.tasks import task_of
from icltool.contracts import (
    Example,
    Progress,
    PromptFile,
    QueryResult,
    StageReport,
    Task,
    image_reference,
    packaged_prompt,
    shown,
)
from icltool.errors import ConfigError, DataError, StoreError
from icltool.plugin.manager import load_registry
from icltool.results import sequences as forms
from icltool.results.appended_csv import append_results
from icltool.results.costs import is_intervention
from icltool.results.delimited import results_csv, results_rows
from icltool.results.grid import over_seeds
from icltool.results.latex import results_latex
from icltool.results.markdown import results_markdown
from icltool.results.published import PublishedFigure, published_for, published_lines
from icltool.store.atomic import replace_file, write_json as write_json_file, write_text
from icltool.store.evaluations import Evaluation, read_evaluation
from icltool.store.outputs import output_of
from icltool.store.plans import SPLITS, plan_of_sequences, plan_of_setting, read_plan, write_plan
from icltool.store.sequences import SequenceFile
from icltool.store.workspace import Workspace

if TYPE_CHECKING:
    from icltool.components.models.chat.chat_format import Style
    from icltool.store.evaluations import SettingResult
    from icltool.store.plans import Plan
    from icltool.store.prepared import PreparedDataset, Records

FORMATS: dict[str, tuple[str, ...]] = {
    "sequences": ("json", "csv", "parquet"),
    "selector": ("safetensors",),
    "model": ("folder", "tar.gz"),
    "results": ("csv", "markdown", "latex", "json"),
    "plan": ("json",),
    "chat": ("messages", "openai"),
}
_SUFFIXES = {"markdown": "md", "latex": "tex"}

#: Encoded images kept in memory, at most; the demonstrations of queries that follow one another often repeat.
_IMAGES_KEPT = 256
#: Queries whose examples are in memory together.
_QUERIES_READ = 512
#: The first bytes of the image types that chat interfaces take.
_IMAGE_TYPES = {b"\xff\xd8\xff": "jpeg", b"\x89PNG": "png", b"GIF8": "gif", b"RIFF": "webp"}


def run(config: ExportConfig, progress: Progress) -> StageReport:
    """Exports the newest artefact, or the one that is given.

    Raises ConfigError for a format that does not fit, StoreError when the input is missing or damaged, or the output is
    there already or cannot be written.
    """
    format = config.format or FORMATS[config.what][0]
    if format not in FORMATS[config.what]:
        raise ConfigError(
            f"{config.what} cannot be exported as {format}", f"choose from {', '.join(FORMATS[config.what])}"
        )
    _check_options(config)
    exporters = {
        "sequences": _sequences,
        "selector": export_selector,
        "model": export_model,
        "results": _results,
        "plan": _plan,
        "chat": _chat,
    }
    return exporters[config.what](config, format, progress)


def _check_options(config: ExportConfig) -> None:
    """ConfigError for an option that would change nothing in this export."""
    if config.what in ("plan", "chat"):
        flags = [] if config.what == "chat" or config.images is None else ["--images"]
    else:
        flags = [*_setting_options(config), *(["--images"] if config.images else [])]
    if config.append is not None:
        flags += ["--append"] if config.what != "results" else []
        beside = [
            flag for flag, value in (("--format", config.format), ("--output", config.output)) if value is not None
        ]
        if beside:
            raise ConfigError(
                f"--append adds to a table, so it cannot be combined with {' and '.join(beside)}", "give one of them"
            )
    if config.what != "model":
        of_models = {"--weights": config.weights, "--configuration": config.configuration, "--dtype": config.dtype}
        flags += [flag for flag, value in of_models.items() if value is not None]
    if flags:
        raise ConfigError(f"{', '.join(flags)} cannot be used to export {config.what}", "leave it out")


def _setting_options(config: ExportConfig) -> dict[str, str | int]:
    """The options that choose an evaluated setting, as far as they are given, by flag."""
    chosen = {"--method": config.method, "--shots": config.shots, "--seed": config.setting_seed}
    return {flag: value for flag, value in chosen.items() if value is not None}


def _sequences(config: ExportConfig, format: str, progress: Progress) -> StageReport:
    source = input_of(config, lambda w: w.newest_sequences(*w.choose_dataset(config.dataset, config.task)))
    file = SequenceFile.open(source)
    try:
        target = output_of(config, f"{source.stem}.{format}", (source,))
        with progress.task(f"exporting {source.name}", len(file), "queries") as ticker:
            results = (_ticked(result, ticker.advance) for result in file.results())
            if format == "json":
                forms.write_json(results, target)
            elif format == "csv":
                forms.write_csv(results, target, file.shots)
            else:
                forms.write_parquet(results, target, file.shots, asdict(file.provenance))
        remarks = () if file.complete else (f"{source} is unfinished: {len(file)} queries so far",)
        row = {"what": "sequences", "format": format, "queries": len(file), "shots": file.shots, "file": str(target)}
    finally:
        file.close()
    return StageReport(f"Exported {source.name}", (row,), target, remarks)


def _ticked(value: QueryResult, advance: Callable[[], None]) -> QueryResult:
    advance()
    return value


def _results(config: ExportConfig, format: str, progress: Progress) -> StageReport:
    sources = inputs_of(config, lambda w: w.newest_evaluation())
    read = [read_evaluation(source) for source in sources]
    names = [evaluation.folder.resolve().name for evaluation in read]
    name = names[0] if len(names) == 1 else f"{len(names)}-evaluations"
    settings = sum(len(one.results) for one in read)
    if config.append is not None:
        lines = [_appended(config.append, of, one) for one, of in zip(read, names, strict=True)]
        row = {"what": "results", "format": "csv", "settings": settings, "file": str(config.append)}
        return StageReport(f"Exported {name}", (row,), config.append, tuple(lines))
    titles = [_titled(of, one) for one, of in zip(read, names, strict=True)]
    target = output_of(config, f"{name}.{_SUFFIXES.get(format, format)}", sources)
    rows = [row for one, of in zip(read, names, strict=True) for row in results_rows(one.results, one.provenance, of)]
    if format == "json":
        whole = [
            {"provenance": one.provenance, "analysis": one.analysis, "published": [asdict(f) for f in _published(one)]}
            for one in read
        ]
        write_json_file(
            target, {**whole[0], "results": rows} if len(whole) == 1 else {"evaluations": whole, "results": rows}
        )
    elif format == "csv":
        write_text(target, results_csv(rows))
    else:  # for people: means over seeds
        table = {"markdown": results_markdown, "latex": results_latex}[format]
        heading = {"markdown": "## {}\n\n", "latex": "% {}\n"}[format] if len(read) > 1 or titles != names else ""
        parts = [
            heading.format(title) + table(over_seeds(one.results, one.analysis), published_lines(_published(one)))
            for one, title in zip(read, titles, strict=True)
        ]
        write_text(target, "\n".join(parts))
    for source in sources:
        progress.detail(f"read {source}")
    row = {"what": "results", "format": format, "settings": settings, "file": str(target)}
    return StageReport(f"Exported {titles[0] if len(titles) == 1 else name}", (row,), target)


def _published(evaluation: Evaluation) -> list[PublishedFigure]:
    """Figures of others for its model and data set."""
    metrics = {name for result in evaluation.results for name in result.metrics}
    return published_for(evaluation.provenance.get("configuration", {}), metrics)


def _titled(name: str, evaluation: Evaluation) -> str:
    """The evaluation's name, with the split that was asked where that is not the usual one."""
    queries = evaluation.provenance.get("configuration", {}).get("queries", "validation")
    return name if queries == "validation" else f"{name} ({queries} queries)"


def _appended(table: Path, name: str, evaluation: Evaluation) -> str:
    from icltool.components.models.shared.fine_tuned import training_options

    configuration = evaluation.provenance.get("configuration", {})
    path = configuration.get("model_path")
    training = training_options(None if path is None else str(path))
    return append_results(table, name, configuration, evaluation.results, training)


def _plan(config: ExportConfig, format: str, progress: Progress) -> StageReport:
    source = input_of(config, lambda w: w.newest_evaluation())
    plan, name = _chosen(config, source)
    if (config.dataset or plan.dataset, config.task or plan.task) != (plan.dataset, plan.task):
        raise ConfigError(f"{source} is of {plan.dataset} ({plan.task})", "give another --input")
    if not plan.shots:
        raise ConfigError(f"{source}: a plan needs demonstrations, and there are none", "choose another setting")
    target = output_of(config, f"{name}-plan.json", (source,))
    write_plan(target, plan)
    progress.detail(f"read {source}")
    row = {"what": "plan", "format": format, "queries": len(plan), "shots": plan.shots, "file": str(target)}
    return StageReport(f"Exported {source.name}", (row,), target, plan.remarks)


def _chat(config: ExportConfig, format: str, progress: Progress) -> StageReport:
    source = input_of(config, lambda w: w.newest_evaluation())
    plan, name = _chosen(config, source)
    dataset, splits = _dataset(config, source, plan), plan.splits or SPLITS
    target = output_of(config, f"{name}-chat.jsonl", (source,))
    index, queries = dataset.split(splits["demonstrations"]), dataset.query_records(splits["queries"])
    style, prompt = _written_as(source)
    form = _ChatForm(task_of(dataset), style, prompt, openai=format == "openai", data=config.images == "data")
    with (
        progress.task(f"exporting {name}", len(plan), "queries") as ticker,
        replace_file(target) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as stream,
    ):
        for query, demonstrations in _examples(plan, queries, index):
            if not _is_evaluation(source):  # whose stage has looked already, as its own options want it
                _check_leaks(source, query, demonstrations, same_split=splits["demonstrations"] == splits["queries"])
            messages = form.messages(demonstrations, query)
            line = {"query_id": query.id, "messages": messages, "references": query.references}
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")
            ticker.advance()
    row = {"what": "chat", "format": format, "queries": len(plan), "shots": plan.shots, "file": str(target)}
    return StageReport(f"Exported {source.name}", (row,), target, plan.remarks)


def _examples(plan: Plan, queries: Records, index: Records) -> Iterator[tuple[Example, list[Example]]]:
    """Each query with its demonstrations, in the plan's order, read a block at a time. StoreError for an unknown id."""
    entries = iter(plan.icd_ids.items())
    while block := list(islice(entries, _QUERIES_READ)):
        rows = sorted({index.row_of(icd) for _, icds in block for icd in icds})
        demonstrations = {icd.id: icd for icd in index.rows(rows)}
        examples = queries.rows([queries.row_of(query_id) for query_id, _ in block])
        for query, (_, icds) in zip(examples, block, strict=True):
            yield query, shown((demonstrations[icd] for icd in icds), query)


def _check_leaks(source: Path, query: Example, demonstrations: Sequence[Example], same_split: bool) -> None:
    """DataError when a demonstration gives the query's answer away, as `IndexSet.leaking_rows` has it."""
    for icd in demonstrations:
        near = bool(query.group) and icd.group == query.group
        if near or icd.shares_image(query) or (same_split and icd.id == query.id):
            raise DataError(
                f"{source} lists example {icd.id} for query {query.id}, which is the same image or a near-duplicate",
                "take it out of the plan",
            )


def _written_as(source: Path) -> tuple[Style, PromptFile | None]:
    """Whether the evaluation had its demonstrations as turns or in one, and its prompt, if that was the user's own."""
    configuration = read_evaluation(source).provenance.get("configuration", {}) if _is_evaluation(source) else {}
    content, template = configuration.get("prompt"), configuration.get("prompt_template")
    prompt = PromptFile(**content) if isinstance(content, dict) else None
    if prompt is None and isinstance(template, str):
        prompt = packaged_prompt("icltool.components.prompts", f"{template}.toml")
    style = configuration.get("prompt_style") or (prompt.style if prompt is not None else None)
    return ("flat" if style == "flat" else "turns"), prompt


class _ChatForm:
    """Turns examples into the messages of a chat.

    With `openai` images are image_url parts and answers plain texts, otherwise image parts and text parts as the chat
    templates of transformers take them. With `data` images are data addresses, otherwise paths (openai: file addresses).
    """

    def __init__(self, task: Task, style: Style, prompt: PromptFile | None, openai: bool, data: bool) -> None:
        self.task, self.style, self.prompt, self.openai, self.data = task, style, prompt, openai, data

    def messages(self, demonstrations: Sequence[Example], query: Example) -> list[dict[str, Any]]:
        """The conversation as a chat model is evaluated on it."""
        images = (image for example in (*demonstrations, query) for image in example.images)
        messages = []
        for message in conversation(self.task, demonstrations, query, self.style, file=self.prompt):
            parts = [self._image(next(images)) if part["type"] == "image" else part for part in message["content"]]
            plain = self.openai and message["role"] == "assistant"
            messages.append({"role": message["role"], "content": parts[0]["text"] if plain else parts})
        return messages

    def _image(self, path: str) -> dict[str, Any]:
        if self.data:
            address = _data_address(path)
        elif image_reference(path).regions:
            raise ConfigError(
                f"regions of image {image_reference(path).file} are shown, which a path cannot express",
                "export with --images data",
            )
        elif not Path(path).is_file():
            raise DataError(f"image {path} does not exist", "restore it, or run `icltool prepare` again")
        else:
            address = Path(path).as_uri() if self.openai else path
        return (
            {"type": "image_url", "image_url": {"url": address}} if self.openai else {"type": "image", "image": address}
        )


@functools.lru_cache(maxsize=_IMAGES_KEPT)
def _data_address(path: str) -> str:
    """The file as a data address (RFC 2397), where regions are shown the image with them as PNG. DataError when it cannot
    be read or is no JPEG, PNG, GIF or WebP."""
    if image_reference(path).regions:
        buffer = io.BytesIO()
        read_image(path).save(buffer, "PNG")
        return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(
            f"image {path} cannot be read: {error.strerror or error}", "restore it, or run `icltool prepare` again"
        ) from error
    kind = next((name for start, name in _IMAGE_TYPES.items() if data.startswith(start)), None)
    if kind is None:
        raise DataError(f"image {path} is not a JPEG, PNG, GIF or WebP file", "export with --images path")
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _dataset(config: ExportConfig, source: Path, plan: Plan) -> PreparedDataset:
    """The prepared data set that the ids belong to. StoreError when it is another one than they were chosen from."""
    workspace = Workspace(config.workspace)
    dataset = chosen_dataset(workspace, config.dataset or plan.dataset, config.task or plan.task)
    name, task = dataset.name, dataset.task
    if plan.fingerprint not in (None, dataset.fingerprint):
        raise StoreError(
            f"{source} was made from another data set, or another version of it, than {name} ({task}) in "
            f"{workspace.root}: fingerprint {plan.fingerprint}, not {dataset.fingerprint}",
            "check --workspace, --dataset and --task",
        )
    return dataset


def _chosen(config: ExportConfig, source: Path) -> tuple[Plan, str]:
    """The plan in an evaluation folder, a sequences file or a plan file, and what an output is named after."""
    if _is_evaluation(source):
        evaluation = read_evaluation(source)
        setting = _setting(config, source, evaluation.results)
        name = f"{evaluation.folder.resolve().name}-{setting.method}-{setting.shots}-shot-seed{setting.seed}"
        return plan_of_setting(evaluation.folder, setting, evaluation.provenance), name
    if requested := _setting_options(config):
        raise ConfigError(
            f"{', '.join(requested)} chooses a setting of an evaluation, and {source} is not one", "leave it out"
        )
    if source.suffix == ".h5":
        return plan_of_sequences(source), source.stem
    if config.what == "plan":
        raise ConfigError(f"{source} is neither an evaluation folder nor a sequences file", "check --input")
    return read_plan(source), source.stem


def _is_evaluation(source: Path) -> bool:
    return source.is_dir() or source.name == "results.json"


def _setting(config: ExportConfig, source: Path, results: Sequence[SettingResult]) -> SettingResult:
    """The setting that the options mean. ConfigError that lists them if none or several match, and for an
    intervention."""
    apart = {result.method for result in results if is_intervention(result)}
    known = apart.union(load_registry().names("interventions"))
    if config.method in known or (apart and all(result.method in apart for result in results)):
        raise ConfigError(
            f"{source}: {config.method or ' and '.join(sorted(apart))} is an intervention: what it puts into "
            f"the model is not in a {config.what}",
            "choose the setting of a retriever" + (", or zero-shot" if config.what == "chat" else ""),
        )
    results = [result for result in results if result.method not in apart]
    if config.what == "plan" and config.shots is None:
        results = [result for result in results if result.shots]
    values = {flag[2:]: value for flag, value in _setting_options(config).items()}
    fitting = [r for r in results if all(getattr(r, key) == value for key, value in values.items())]
    if len(fitting) == 1:
        return fitting[0]
    listed = ", ".join(f"{r.method} {r.shots}-shot seed {r.seed}" for r in fitting or results) or "none"
    number = "several settings fit" if fitting else "no such setting"
    raise ConfigError(f"{source}: {number}; there are {listed}", "choose one with --method, --shots and --seed")
