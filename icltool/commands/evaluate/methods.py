"""The methods of a call: retrievers, one or several after one another, with their options; selectors with their
checkpoints, plans with their files, and interventions."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from icltool.commands.evaluate import fine_tuned, interventions
from icltool.commands.evaluate.inputs import Inputs, needs_vectors
from icltool.commands.evaluate.options import EvaluateConfig
from icltool.commands.evaluate.specs import Spec, method_names, read_specs
from icltool.components.interventions.files import WEIGHTS
from icltool.contracts import Intervention, Retriever
from icltool.contracts.abilities import ComparesImages, CountsLabels, HasIdentity, HasRemarks, OfDataset
from icltool.contracts.arrays import encoder_of
from icltool.contracts.retriever import EmbeddedBy, HasLengths, HasShots, ReadsCheckpoint, ReadsSequences, ReadsTheQuery
from icltool.engine.choosing import BY, Chain, Part, is_joint, own_options
from icltool.errors import ConfigError, IclError, StoreError
from icltool.plugin.manager import component, load_registry
from icltool.store.arrays import embedded_by
from icltool.store.artefact import digest
from icltool.store.atomic import read_json
from icltool.store.makers import content_mark
from icltool.store.sequences import SequenceFile

ZERO_SHOT = "zero-shot"
#: The model itself, as `icltool train captioner` fine-tuned it.
FINETUNED = "finetuned"
#: The weights that a selector's checkpoint folder holds.
WEIGHT_CHOICES = ("min_vl", "min_tl", "last")
#: How the name of a checkpoint folder ends.
_CHECKPOINT_DIGEST = re.compile(r"-([0-9a-f]{8})$")
_NOT_IN_NAMES = re.compile(r"[^\w.+-]+")


@dataclass(frozen=True)
class RetrieverPart(Part):
    """a retriever as a call means it. `registered` is its name in the registry. `identity` is what decides its choice
    beside shots and seed, JSON values.
    `encoder` is whose embeddings it reads. `plugin` is the distribution that brings it."""

    registered: str
    options: dict[str, Any]
    identity: dict[str, Any]
    encoder: str | None
    remarks: tuple[str, ...]
    plugin: str


@dataclass(frozen=True)
class Method:
    """A row of the table: `label` is its name there and in file names, `chain` what chooses (None for zero-shot), and
    `intervention` the intervention, if it is one.

    `identity` is what decides the choice beside shots and seed, JSON values.
    `shots` are the numbers of demonstrations that it is evaluated with; a plan has no more than `most_shots`. `weights` is a
    file of fine-tuned weights under which the model answers, None for its own. `reversed_order` is the order of a ranked
    method's demonstrations, None for the call's.
    `plugin` is the distribution that brings it, for the record.
    """

    label: str
    chain: Chain[RetrieverPart] | None
    shots: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    most_shots: int | None = None
    plugin: str = ""
    intervention: Intervention | None = None
    weights: Path | None = None
    reversed_order: bool | None = None

    @property
    def own_model(self) -> bool:
        """Whether the model answers as another one than it is."""
        return self.intervention is not None or self.weights is not None

    @property
    def ranked(self) -> bool:
        return self.chain is not None and self.chain.last.ranked

    @property
    def shot_size(self) -> int:
        """The number of demonstrations of a shot."""
        return 1 if self.chain is None else self.chain.shot_size

    @property
    def reads_query_text(self) -> bool:
        """Whether the query's text decides what is chosen."""
        retrievers = [] if self.chain is None else [part.retriever for part in self.chain.parts]
        return any(isinstance(retriever, ReadsTheQuery) and retriever.query == "text" for retriever in retrievers)


def methods(inputs: Inputs) -> list[Method]:
    """The methods that the configuration names, each once, then its plans. Without names, plans and files of vectors stand
    for themselves.

    Raises PluginError for an unknown method, ConfigError for wrong options, StoreError where a checkpoint, sequences,
    embeddings, vectors or a plan are missing or belong to another data set.
    """
    config = inputs.config
    files = interventions.vector_files(config)
    named = "methods" in config.model_fields_set or not (config.plans or config.vectors)
    specs = read_specs(config.methods if named else tuple(files))
    names = dict.fromkeys(name for spec in specs for name in spec.names)
    _check_options(config, [*names, *(["plan"] if config.plans else [])])
    rows = [method for spec in specs for method in _named(inputs, spec, files.get(spec.name, ()))]
    plans = list(dict.fromkeys(path.resolve() for path in config.plans))
    labels = plan_labels(plans, [*load_registry().names("retrievers"), *(method.label for method in rows)])
    return [*rows, *(_plan(inputs, path, label) for path, label in zip(plans, labels, strict=True))]


def plan_labels(paths: Sequence[Path], taken: Sequence[str]) -> list[str]:
    """A name for each plan: its file's stem, with its folder's name in front where two are alike or a method has it."""

    def joined(path: Path, parts: int) -> str:
        names = [*path.parts[-parts:-1], path.stem]
        return _NOT_IN_NAMES.sub("_", "-".join(name.strip("/\\") for name in names)).strip(".") or "plan"

    labels = [joined(path, 1) for path in paths]
    labels = [f"plan-{label}" if label in taken else label for label in labels]
    for parts in range(2, max((len(path.parts) for path in paths), default=0) + 1):
        alike = {label for label in labels if labels.count(label) > 1}
        labels = [joined(p, parts) if label in alike else label for p, label in zip(paths, labels, strict=True)]
    return labels


def vector_labels(name: str, files: Sequence[Path]) -> list[str]:
    """A name for each of several files of one method: the method with the digest of its checkpoint folder, the last part
    of that folder's name; if a file lies outside it, or two are alike, with the names that tell them apart."""
    places = [file.parent if file.name == WEIGHTS else file for file in files]
    digests = [_CHECKPOINT_DIGEST.search(place.name) if place.name.startswith(f"{name}-") else None for place in places]
    endings = [match.group(1) for match in digests if match is not None]
    if len(set(endings)) == len(files):
        return [f"{name}-{digest}" for digest in endings]
    return [f"{name}-{label.removeprefix(f'{name}-')}" for label in plan_labels(places, ())]


def _named(inputs: Inputs, spec: Spec, files: Sequence[Path]) -> list[Method]:
    """The method of this name; one for each of its files if it is an intervention."""
    name, shots = spec.name, tuple(sorted(set(inputs.config.shots)))
    if name == ZERO_SHOT:
        if spec.label != ZERO_SHOT:
            raise ConfigError("zero-shot takes neither options nor a label", "--method zero-shot")
        return [Method(ZERO_SHOT, None, (0,))]
    if len(spec.names) == 1:
        if spec.encoders and (name == FINETUNED or interventions.kind_of(name) == interventions.INTERVENTIONS):
            raise _no_embeddings(name, spec.encoders[0])
        options = {**own_options(inputs.config.method_options, name), **spec.options}
        if name == FINETUNED:
            return [_finetuned(inputs, spec.label, _with_checkpoint(options, "folder", fine_tuned.CHOICES))]
        if interventions.kind_of(name) == interventions.INTERVENTIONS:
            return _standing_in(inputs, spec, _with_checkpoint(options, "file", ()), files)
    return [_choosing(inputs, spec, shots)]


def _choosing(inputs: Inputs, spec: Spec, shots: tuple[int, ...]) -> Method:
    """The retriever, or several after one another, that `spec` names; the order is the last one's."""
    parts: list[RetrieverPart] = []
    reversed_order = None
    for name, encoder in zip(spec.names, spec.encoders or [""] * len(spec.names), strict=True):
        if name in (ZERO_SHOT, FINETUNED) or interventions.kind_of(name) != interventions.RETRIEVERS:
            raise ConfigError(f"{spec.name}: {name} chooses no demonstrations", "name it by itself")
        options = {**own_options(inputs.config.method_options, name), **spec.options_of(name, encoder)}
        if reversed_order is not None:
            raise ConfigError(f"{spec.label}: reversed_order is for the last method, {spec.names[-1]}")
        reversed_order = options.pop("reversed_order", None)
        if reversed_order not in (None, True, False):
            raise ConfigError(f"{spec.label}: reversed_order={reversed_order!r} is neither true nor false")
        part_label = f"{name}{BY}{encoder}" if encoder else name
        label = spec.label if len(spec.names) == 1 else part_label
        parts.append(_part(inputs, name, label, options, encoder or None))
    counting = parts[-1].retriever
    if isinstance(counting, CountsLabels) and "shots" not in inputs.config.model_fields_set:
        shots = (counting.shots_for(inputs.index_labels),)
    return replace(_chosen_by(parts, spec.label, shots), reversed_order=reversed_order)


def _with_checkpoint(options: dict[str, Any], role: str, choices: Sequence[str]) -> dict[str, Any]:
    """The options with `checkpoint=DIR` under the name that the method has for it; `checkpoint=last` stays."""
    named = options.get("checkpoint")
    if named is None or named in choices or role in options:
        return options
    return {**{key: value for key, value in options.items() if key != "checkpoint"}, role: str(named)}


def _standing_in(inputs: Inputs, spec: Spec, options: dict[str, Any], files: Sequence[Path]) -> list[Method]:
    name = spec.name
    if files and "file" in options:
        raise ConfigError(f"two files for {name}: --vectors and --method-option {name}.file", "leave one of them out")
    if "file" in options:
        files = [interventions.file_of(Path(str(options["file"])))]
    elif not files:
        files = [interventions.newest_file(inputs, name)]
    labels = [spec.label] if len(files) == 1 else vector_labels(spec.label, files)
    plugin = f"{(entry := load_registry().get(interventions.INTERVENTIONS, name)).distribution} {entry.version}"
    methods = []
    for label, file in zip(labels, files, strict=True):
        used = {**options, "file": str(file)}
        intervention = interventions.opened(inputs, name, label, used)
        identity = {"intervention": name, **intervention.identity()}
        remarks = tuple(interventions.remarks(inputs, label, intervention))
        methods.append(Method(label, None, (0,), used, identity, remarks, None, plugin, intervention))
    return methods


def _finetuned(inputs: Inputs, label: str, values: dict[str, Any]) -> Method:
    file = fine_tuned.weights_of(inputs, values)
    weights = fine_tuned.read(file)
    options = {**values, "file": str(file)}
    chosen = bool(values.keys() & {"file", "folder"}) or inputs.config.checkpoint is not None
    remarks = tuple(fine_tuned.remarks(inputs, label, weights, chosen))
    identity = {"finetuned": weights.digest}
    return Method(label, None, (0,), options, identity, remarks=remarks, weights=file)


def _plan(inputs: Inputs, path: Path, label: str) -> Method:
    config = inputs.config
    options = {**own_options(config.method_options, "plan"), "file": str(path)}
    shots = tuple(sorted(set(config.shots))) if "shots" in config.model_fields_set else ()
    return _chosen_by([_part(inputs, "plan", label, options)], label, shots)


def _chosen_by(parts: Sequence[RetrieverPart], label: str, shots: tuple[int, ...]) -> Method:
    """The method of these parts, the last of which has the last word; () stands for the shots that it has."""
    chain, last = Chain(parts), parts[-1]
    remarks = [remark for part in parts for remark in part.remarks]
    for place, part in enumerate(parts):
        if isinstance(part.retriever, HasLengths) and len(shots) > 1:
            lengths = part.retriever.lengths
            has = {k: not k or chain.rows_per_part(k * chain.shot_size)[place] in lengths for k in shots}
            if not all(has.values()):
                missing = ", ".join(str(k) for k in shots if not has[k])
                known = " or ".join(map(str, lengths))
                remarks.append(f"{part.name}: its sequences have {known} demonstrations, so not asked at {missing}")
            shots = tuple(k for k in shots if has[k]) or shots
    most = last.retriever.shots if len(parts) == 1 and isinstance(last.retriever, HasShots) else None
    if len(parts) == 1:
        options, identity = last.options, last.identity
    else:
        options = {f"{part.name}.{name}": value for part in parts for name, value in part.options.items()}
        identity = {"composed": [part.identity for part in parts]}
    plugin = ", ".join(dict.fromkeys(part.plugin for part in parts))
    return Method(label, chain, shots or (most or 0,), options, identity, tuple(remarks), most, plugin)


def _part(inputs: Inputs, name: str, label: str, values: dict[str, Any], by: str | None = None) -> RetrieverPart:
    """A retriever with the user's options and the files that it reads; it reads the embeddings by the encoder `by`, if that is
    given. Messages call it `label`."""
    if name == "plan" and "file" not in values:
        raise ConfigError("method plan replays a file", "name it: --plan FILE, in place of --method plan")
    if isinstance(load_registry().load("retrievers", name), ReadsCheckpoint):
        values = _with_checkpoint(values, "folder", WEIGHT_CHOICES)
    options = {**values, **_found_files(inputs, name, values)}
    retriever: Retriever = component("retrievers", name, **options)
    made_for = retriever.fingerprint if isinstance(retriever, OfDataset) else None
    if isinstance(made_for, str) and made_for not in _fingerprints(inputs):
        raise StoreError(
            f"{options.get('file', label)} was made for another data set, or another version of it, than "
            f"{inputs.dataset.name} ({inputs.dataset.task})",
            "check --dataset and --task, or create it again",
        )
    remarks = list(retriever.remarks) if isinstance(retriever, HasRemarks) else []
    if "folder" in options:
        remarks.append(f"{label}: {Path(options['folder']).name} ({options.get('checkpoint')}{_network(options)})")
    if isinstance(retriever, ReadsSequences):
        if retriever.sequences != inputs.config.queries:
            raise ConfigError(
                f"{label} has sequences for {retriever.sequences} queries, but --queries is {inputs.config.queries}",
                "evaluate it without --queries train",
            )
        remarks.append(f"{label}: its sequences were searched with the queries' labels: an upper bound")
        remarks.append(f"{label}: {options.get('file')}")
    if by is not None and not needs_vectors(retriever.needs):
        raise _no_embeddings(name, by)
    encoder = _encoder(inputs, retriever, label, by) if needs_vectors(retriever.needs) else None
    if encoder is not None and inputs.config.encoder not in (None, encoder):
        remarks.append(f"{label} reads the embeddings by {encoder}, on which it was trained")
    remarks += _about_examples(inputs, label, retriever)
    identity = {"retriever": name, **_content(retriever, options), **_arrays(inputs, retriever, encoder)}
    plugin = f"{(entry := load_registry().get('retrievers', name)).distribution} {entry.version}"
    return RetrieverPart(label, retriever, name, options, identity, encoder, tuple(remarks), plugin)


def _arrays(inputs: Inputs, retriever: Retriever, encoder: str | None) -> dict[str, Any]:
    """What the arrays that a method reads add to its identity: embeddings, and of a joint one the queries."""
    added: dict[str, Any] = {}
    if encoder is not None:
        added["encoder"] = encoder
        added["embeddings"] = [inputs.embeddings(split, encoder).fingerprint for split in inputs.splits]
    others = {need: other for need in sorted(retriever.needs) if (other := encoder_of(need)) is not None}
    if others:
        added["others"] = {
            need: [inputs.embeddings(split, other).fingerprint for split in inputs.splits]
            for need, other in others.items()
        }
    if is_joint(retriever):
        added["queries"] = digest({"ids": inputs.queries.ids[inputs.query_rows].tolist()})
    return added


def _fingerprints(inputs: Inputs) -> tuple[str, str]:
    """Those of the data set, and of the one that the index set is of."""
    return inputs.dataset.fingerprint, inputs.dataset.part("train").fingerprint


def _about_examples(inputs: Inputs, label: str, retriever: Retriever) -> list[str]:
    """Remarks on the labels of the index set, and on examples without an image in a method that compares images."""
    remarks: list[str] = []
    if isinstance(retriever, CountsLabels):
        remarks += retriever.remarks_on(inputs.index_labels)
    sides = retriever.compared_images if isinstance(retriever, ComparesImages) else frozenset()
    for side, records, rows, fate in (
        ("queries", inputs.queries, inputs.query_rows, "get random demonstrations"),
        ("demonstrations", inputs.index, inputs.index_rows, "are not demonstrations"),
    ):
        images = records.images if side in sides and records.has_images else []
        without = sum(not images[row] for row in rows.tolist()) if images else 0
        if without:
            noun = "queries" if side == "queries" else "examples of the index set"
            remarks.append(f"{label}: {without:,} of {len(rows):,} {noun} have no image: they {fate}")
    return remarks


def _check_options(config: EvaluateConfig, names: Sequence[str]) -> None:
    """ConfigError for an option of no method of this call, whose `names` these are: it would have no effect."""
    for key, value in config.method_options.items():
        method, _, option = key.partition(".")
        if method in names and (option or isinstance(value, Mapping)):
            continue
        close = difflib.get_close_matches(method, names, n=1)
        if not option and not isinstance(value, Mapping):
            hint = f"--method-option {names[0]}.{key}={value}, if it is {names[0]}'s"
        else:
            hint = f"did you mean {close[0]}.{option}?" if close else f"methods of this call: {', '.join(names)}"
        raise ConfigError(f"--method-option {key}: no method {method!r} is evaluated", hint)


def _found_files(inputs: Inputs, name: str, options: Mapping[str, Any]) -> dict[str, str]:
    """What the method's class asks for and the user did not give: a learner's checkpoint, or the sequences of a split."""
    cls = load_registry().load("retrievers", name)
    files: dict[str, str] = {}
    if isinstance(cls, ReadsCheckpoint):
        learner = cls.learner
        place = Path(options["folder"]) if "folder" in options else checkpoint_folder(inputs, name, learner)
        folder, choice = weights_folder(place, str(options.get("checkpoint", inputs.config.checkpoint_choice)))
        files = {"folder": str(folder), "checkpoint": choice}
        if not _weights(files).is_file():
            raise StoreError(f"{folder} holds no {files['checkpoint']}.safetensors", f"run `icltool train {learner}`")
    if isinstance(cls, ReadsSequences) and "file" not in options:
        files["file"] = str(newest_sequences(inputs, cls.sequences))
    return files


def weights_folder(place: Path, choice: str) -> tuple[Path, str]:
    """(checkpoint folder, which of its weights): `place` is the folder, or the very file."""
    if place.suffix == ".safetensors" and place.stem in WEIGHT_CHOICES and place.is_file():
        return place.parent, place.stem
    return place, choice


def checkpoint_folder(inputs: Inputs, name: str, learner: str) -> Path:
    """The folder of --checkpoint where it is the learner's, else the newest of the learner's.

    StoreError when there is none, or when no method of the call reads the folder of --checkpoint.
    """
    config, dataset = inputs.config, inputs.dataset
    newest = functools.partial(inputs.workspace.newest_checkpoint, learner, dataset.part("train").name, dataset.task)
    if config.checkpoint is None:
        return newest()
    record = weights_folder(config.checkpoint, "")[0] / "training.json"
    record_content: Any = read_json(record) if record.is_file() else {}
    made_by = (
        record_content.get("identity", {}).get("learner", learner) if isinstance(record_content, dict) else learner
    )
    if made_by == learner:
        return config.checkpoint
    names = method_names(config.methods)
    if made_by == fine_tuned.LEARNER and FINETUNED in names:
        return newest()
    plain = [m for m in names if m != FINETUNED]
    selectors = [m for m in plain if interventions.kind_of(m) == interventions.RETRIEVERS]
    classes = (load_registry().load("retrievers", m) for m in selectors)
    if not any(isinstance(cls, ReadsCheckpoint) and cls.learner == made_by for cls in classes):
        raise StoreError(
            f"{config.checkpoint} was trained by {made_by}, {name} reads checkpoints of {learner}",
            f"give a folder of `icltool train {learner}`, or --method {made_by}",
        )
    return newest()


def newest_sequences(inputs: Inputs, split: str) -> Path:
    """The sequences file of this data set, searched for queries of `split`, that was written last.

    StoreError with the command that makes one when there is none.
    """
    name, task = inputs.dataset.name, inputs.dataset.task
    for path in inputs.workspace.sequences_of(name, task):
        try:
            file = SequenceFile.open(path)
        except IclError:  # cut, or of another version: its own command says so
            continue
        provenance = file.provenance
        file.close()
        searched = provenance.configuration.get("queries", "train")
        if searched == split and provenance.dataset_fingerprint == inputs.dataset.fingerprint:
            return path
    raise StoreError(
        f"no sequences for the {split} queries of {name} ({task}) in {inputs.workspace.sequences}",
        f"run `icltool generate --queries {split} --dataset {name} --task {task}`",
    )


def _content(retriever: Retriever, options: dict[str, Any]) -> dict[str, Any]:
    """The method's options; where they name files, what tells whether those have changed."""
    if isinstance(retriever, HasIdentity):
        return dict(retriever.identity())
    content: dict[str, Any] = {"options": {k: v for k, v in options.items() if k not in ("folder", "file")}}
    if "folder" in options and _weights(options).is_file():  # a selector that was trained again is another setting
        content["weights"] = content_mark(_weights(options))
    file = options.get("file")
    if isinstance(file, str) and Path(file).is_file():
        content["file"] = content_mark(Path(file))
    return content


def _network(options: dict[str, Any]) -> str:
    """ ", pointer": the network that a checkpoint's configuration names, if any."""
    try:
        configuration = read_json(Path(options["folder"]) / "config.json")
        return f", {configuration['options']['network']}"
    except (IclError, KeyError, TypeError):
        return ""


def _weights(options: dict[str, Any]) -> Path:
    return Path(options["folder"]) / f"{options.get('checkpoint')}.safetensors"


def _encoder(inputs: Inputs, retriever: Retriever, label: str, by: str | None) -> str:
    """Whose embeddings the method reads: those it was trained on, else those the user names, else the only ones that have what
    it compares. ConfigError if the user names others than those it was trained on."""
    trained_on = retriever.encoder if isinstance(retriever, EmbeddedBy) else None
    if trained_on is not None and by not in (None, trained_on):
        raise ConfigError(
            f"{label}: this selector was trained on the embeddings by {trained_on}",
            f"leave {BY}{by} out, or train one with --encoder {by}",
        )
    named = trained_on or by or inputs.config.encoder
    return embedded_by(inputs.workspace, inputs.dataset, named, retriever.needs)


def _no_embeddings(name: str, encoder: str) -> ConfigError:
    return ConfigError(f"--method {name}{BY}{encoder}: {name} reads no embeddings", f"use --method {name}")
