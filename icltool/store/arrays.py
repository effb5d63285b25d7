"""The arrays that samplers, retrievers and learners see, from records and stored embeddings."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypedDict

import numpy as np

from icltool.contracts import Example, FloatArray, IndexSet, IntArray, QuerySet, Task, blanked
from icltool.contracts.arrays import encoder_of, text_code
from icltool.errors import StoreError
from icltool.store.embeddings import EmbeddingFile
from icltool.store.workspace import Workspace

if TYPE_CHECKING:
    from icltool.store.records import PreparedDataset, Records

VECTORS: tuple[Literal["image", "text"], ...] = ("image", "text")
_READ_ROWS = 4096
_NO_OTHERS: Mapping[str, EmbeddingFile] = MappingProxyType({})


def rows_of(requested: IntArray, ids: IntArray, source: Path, hint: str) -> IntArray:
    """The rows of `ids` that hold these ids, int64 of the same shape. StoreError, with `hint`, if `source` names an example
    that is not among them."""
    order = np.argsort(ids, kind="stable")
    places = np.searchsorted(ids, requested, sorter=order).clip(max=len(ids) - 1)
    rows: IntArray = order[places].astype(np.int64)
    strange = requested[ids[rows] != requested]
    if len(strange):
        raise StoreError(f"{source} names example {strange[0]}, which the index set does not have", hint)
    return rows


def guard_kinds(chosen: Sequence[str] | None, task: Task) -> frozenset[str]:
    """What the leak guard compares besides near-duplicates: `chosen`, or the task's default (not the question of a VQA
    query: equal questions about other images are ordinary demonstrations). It always includes "image"."""
    return frozenset(task.guard if chosen is None else chosen) | {"image"}


def embedded_by(
    workspace: Workspace, dataset: PreparedDataset, encoder: str | None, needs: Collection[str] = ()
) -> str:
    """The encoder whose embeddings of `dataset` to use: `encoder`, or the only one that has any; of several, the only one that
    has the "image" and "text" embeddings in `needs`. Raises StoreError with the command that creates embeddings, or with the
    choices.
    """
    dataset = dataset.part("train")
    start, end = f"{dataset.name}-{dataset.task}-train-", ".h5"
    encoders = sorted(p.name[len(start) : -len(end)] for p in workspace.embeddings.glob(f"{start}*{end}"))
    command = f"icltool embed --dataset {dataset.name} --task {dataset.task} --encoder"
    if encoder is not None:
        if encoder not in encoders:
            raise StoreError(
                f"{dataset.name} ({dataset.task}) has no embeddings by {encoder}", f"run `{command} {encoder}`"
            )
        return encoder
    if not encoders:
        raise StoreError(f"{dataset.name} ({dataset.task}) has no embeddings", f"run `{command} NAME`")
    fields = frozenset(needs) & frozenset(VECTORS)
    if len(encoders) > 1:
        files = {name: workspace.embeddings_file(dataset.name, dataset.task, "train", name) for name in encoders}
        encoders = [name for name in encoders if fields <= _fields(files[name])] or encoders
    if len(encoders) > 1:
        raise StoreError(
            f"{dataset.name} ({dataset.task}) has embeddings by {', '.join(encoders)}",
            f"for example --encoder {encoders[0]}, or behind a method's name: i2i@{encoders[0]}",
        )
    return encoders[0]


def _fields(path: Path) -> frozenset[str]:
    """The fields of an embeddings file."""
    with EmbeddingFile.open(path) as file:
        return frozenset(file.fields)


def open_embeddings(workspace: Workspace, dataset: PreparedDataset, split: str, encoder: str) -> EmbeddingFile:
    """The complete embeddings of one split, checked against the data set. StoreError otherwise."""
    dataset = dataset.part(split)
    path = workspace.embeddings_file(dataset.name, dataset.task, split, encoder)
    command = f"icltool embed --dataset {dataset.name} --task {dataset.task} --encoder {encoder}"
    if not path.is_file():
        raise StoreError(f"embeddings {path} do not exist", f"run `{command}`")
    file = EmbeddingFile.open(path)
    if file.provenance.dataset_fingerprint != dataset.fingerprint:
        raise StoreError(f"{path} was made from another version of {dataset.name}", f"run `{command} --overwrite`")
    records = dataset.split(split)
    if not file.complete or len(file.ids) != len(records):
        raise StoreError(f"{path} is unfinished ({len(file.ids)} of {len(records)} rows)", f"run `{command}` to resume")
    if not np.array_equal(file.ids, records.ids):
        raise StoreError(f"{path} lists other examples than {dataset.name}", f"run `{command} --overwrite`")
    return file


def open_others(
    workspace: Workspace, dataset: PreparedDataset, split: str, needs: Collection[str]
) -> dict[str, EmbeddingFile]:
    """The embeddings of one split by the encoders that "image@NAME" and "text@NAME" in `needs` ask for, by name. StoreError as
    `open_embeddings`."""
    names = sorted({name for need in needs if (name := encoder_of(need)) is not None})
    return {name: open_embeddings(workspace, dataset, split, name) for name in names}


def index_set(
    records: Records,
    needs: Collection[str],
    embeddings: EmbeddingFile | None,
    rows: IntArray | None = None,
    *,
    guard: frozenset[str] = frozenset(),
    others: Mapping[str, EmbeddingFile] = _NO_OTHERS,
) -> IndexSet:
    """An IndexSet of these rows (all by default) with the vectors, texts and labels in `needs` filled in. `others` are the
    embeddings by the encoders that "image@NAME" and "text@NAME" ask for, by name.

    With "question" or "text" in `guard` it has the codes that the leak guard compares (see `guard_kinds`).
    """
    columns = _columns(records, needs, embeddings, rows, guard, others)
    labels = tuple(example.label for example in _examples(records, rows)) if "labels" in needs else ()
    if "text" in guard:
        labels_of = ((example, (example.label, *example.labels.values())) for example in _examples(records, rows))
        codes = [[content_code(example, label) for label in labels] for example, labels in labels_of]
        width = 1 if records.label_rules is None else 1 + records.label_rules.shape[1]
        columns["contents"] = _padded(codes, width).squeeze(1) if width == 1 else _padded(codes, width)
    if records.label_rules is not None:
        columns["rules"] = records.label_rules if rows is None else records.label_rules[rows]
    return IndexSet(**columns, labels=labels)


def query_set(
    records: Records,
    needs: Collection[str],
    embeddings: EmbeddingFile | None,
    rows: IntArray | None = None,
    same_split: bool = False,
    *,
    guard: frozenset[str] = frozenset(),
    others: Mapping[str, EmbeddingFile] = _NO_OTHERS,
) -> QuerySet:
    """A QuerySet of these rows (all by default) with the vectors and texts in `needs`, and the codes in `guard`; it has no
    labels. `others` as in `index_set`."""
    columns = _columns(records, needs, embeddings, rows, guard, others)
    if "text" in guard:
        columns["contents"] = _padded([content_codes(example) for example in _examples(records, rows)])
    if records.rules is not None:
        columns["rules"] = records.rules if rows is None else records.rules[rows]
    support = records.support if rows is None or records.support is None else records.support[rows]
    return QuerySet(**columns, same_split=same_split, support=support)


def question_of(example: Example) -> str:
    """The question that an example asks: for an inference its clue, for a classification without a question its text, for a
    caption none."""
    return example.question or (example.text if example.choices else "")


def content_code(example: Example, answer: str) -> int:
    """The code of the example's question (captions have none) with an answer to it; -1 for an empty answer."""
    return -1 if text_code(answer) < 0 else text_code(question_of(example), answer)


def content_codes(example: Example) -> list[int]:
    """The codes of the example's question with its label and each of its references, distinct."""
    answers = dict.fromkeys((example.label, *example.references))
    return sorted({content_code(example, answer) for answer in answers} - {-1})


def _padded(codes: Sequence[Sequence[int]], width: int | None = None) -> IntArray:
    """int64 [n, width], -1 on the right; the width is that of the longest by default."""
    columns = max(map(len, codes), default=0) if width is None else width
    padded = np.full((len(codes), columns), -1, dtype=np.int64)
    for row, row_codes in zip(padded, codes, strict=True):
        row[: len(row_codes)] = row_codes
    return padded


def _examples(records: Records, rows: IntArray | None) -> Iterator[Example]:
    if rows is None:
        yield from records
        return
    for low in range(0, len(rows), _READ_ROWS):
        yield from records.rows(rows[low : low + _READ_ROWS])


class _Keys(TypedDict):
    ids: IntArray
    image_ids: IntArray
    groups: IntArray


class _Columns(_Keys, total=False):
    """The requested fields of an IndexSet or a QuerySet."""

    image: FloatArray
    text: FloatArray
    texts: tuple[str, ...]
    images: tuple[str, ...]
    questions: IntArray
    contents: IntArray
    embedded: dict[str, FloatArray]
    more_image_ids: IntArray
    rules: IntArray


@dataclass(frozen=True)
class StoredExamples:
    """The RetrievalExamples of an IndexSet and a QuerySet that consist of `index_rows` int64 [N] and `query_rows` int64 [Q]
    of these records."""

    index_records: Records
    index_rows: IntArray
    query_records: Records
    query_rows: IntArray

    def index(self, rows: IntArray) -> list[Example]:
        return self.index_records.rows(self.index_rows[rows])

    def queries(self, positions: IntArray) -> list[Example]:
        return [blanked(query) for query in self.query_records.rows(self.query_rows[positions])]


class FeatureTable:
    """Stored vectors by example id, for scoring sessions."""

    def __init__(self, records: Records, embeddings: EmbeddingFile) -> None:
        self._records = records
        self._embeddings = embeddings
        self._vectors: dict[str, FloatArray] = {}

    def __call__(self, kind: str, examples: Sequence[Example]) -> FloatArray:
        """float32 [n, D]; `kind` is "image" or "text"."""
        if kind not in self._vectors:
            self._vectors[kind] = _vectors(self._embeddings, kind, None, self._records)
        rows = [self._records.row_of(e.id) for e in examples]
        vectors: FloatArray = self._vectors[kind][rows]
        return vectors


def _columns(
    records: Records,
    needs: Collection[str],
    embeddings: EmbeddingFile | None,
    rows: IntArray | None,
    guard: frozenset[str],
    others: Mapping[str, EmbeddingFile],
) -> _Columns:
    names = set(needs)
    chosen = np.arange(len(records), dtype=np.int64) if rows is None else rows
    columns: _Columns = {
        "ids": records.ids[chosen],
        "image_ids": records.image_ids[chosen],
        "groups": records.groups[chosen],
    }
    if records.more_image_ids is not None:
        columns["more_image_ids"] = records.more_image_ids[chosen]
    for kind in VECTORS:
        if kind in names:
            if embeddings is None:
                raise ValueError(f"{kind} vectors are needed, but no embeddings are open")
            columns[kind] = _vectors(embeddings, kind, chosen if rows is not None else None, records)
    if "texts" in names:
        texts = records.texts
        columns["texts"] = texts if rows is None else tuple(texts[int(r)] for r in chosen)
    if "images" in names:
        images = records.images
        columns["images"] = tuple(images) if rows is None else tuple(images[int(r)] for r in chosen)
    if "question" in guard:
        questions = [text_code(question_of(example)) for example in _examples(records, rows)]
        columns["questions"] = np.array(questions, dtype=np.int64)
    foreign = {need: encoder for need in names if (encoder := encoder_of(need)) is not None}
    if foreign:
        columns["embedded"] = {
            need: _vectors(others[encoder], need.partition("@")[0], rows, records) for need, encoder in foreign.items()
        }
    return columns


def _vectors(embeddings: EmbeddingFile, kind: str, rows: IntArray | None, records: Records) -> FloatArray:
    if kind not in embeddings.fields:
        raise _without(embeddings, kind, records)
    vectors = embeddings.read(kind)
    return vectors if rows is None else vectors[rows]


def _without(embeddings: EmbeddingFile, kind: str, records: Records) -> StoreError:
    """The error for embeddings without those that are needed: the data set has no images, or the encoder encodes no others."""
    if kind == "image" and not records.has_images:
        return StoreError(
            f"{embeddings.path} has no image embeddings: its data set has no images",
            "choose a method, sampler or variant (query_text_icd_text) without images",
        )
    others, example, method = ("texts", "dinov2", "i2i") if kind == "image" else ("images", "minilm", "t2t")
    return StoreError(
        f"{embeddings.path} has no {kind} embeddings: encoder {embeddings.encoder} encodes {others} only",
        f"run `icltool embed` with an encoder of {kind}s, for example {example}, then name it: --encoder {example}, or "
        f"--method {method}@{example}",
    )
