"""The prepared data set that options name, or the two whose index set and queries they combine."""

from __future__ import annotations

from icltool.config.tasks import task_of
from icltool.errors import ConfigError, PluginError
from icltool.plugin.manager import load_registry
from icltool.store.paired import PairedDataset, names_of_pair
from icltool.store.prepared import PreparedDataset, open_dataset
from icltool.store.workspace import Workspace


def chosen_dataset(
    workspace: Workspace, name: str | None, task: str | None, index: str | None = None
) -> PreparedDataset:
    """The data set of this name and task (see Workspace.choose_dataset); with `index`, its queries and the index set of that
    one. A `name` of the form QUERIES+INDEX means the same.

    Raises StoreError if one is not prepared, ConfigError if their tasks differ.
    """
    if name is not None and index is None:
        name, index = names_of_pair(name, {known for known, _ in workspace.prepared()}) or (name, None)
    name, task = workspace.choose_dataset(name, task)
    queries = open_dataset(workspace.dataset_folder(name, task))
    if index is None or index == name:
        return queries
    if queries.query_records("validation").support is not None:
        raise ConfigError(
            f"each query of {name} has a support set in the index set of {name}, so it cannot be shown examples of {index}",
            "leave --index-dataset out",
        )
    other = open_dataset(workspace.dataset_folder(*workspace.choose_dataset(index, task)))
    if task_of(other) != task_of(queries):
        raise ConfigError(
            f"{name} and {index} are prepared for task {task!r} with different definitions",
            "prepare both with the same --task-file",
        )
    return PairedDataset(queries, other, (image_namespace(queries), image_namespace(other)))


def image_namespace(dataset: PreparedDataset) -> str:
    """What the identities of its images are unique in: as its manifest says, or, if it was prepared before manifests did, as
    its reader does."""
    named = dataset.manifest.get("image_namespace")
    if named:
        return named
    reader = str(dataset.manifest.get("provenance", {}).get("configuration", {}).get("name", dataset.name))
    try:
        return namespace_of(load_registry().load("datasets", reader), reader)
    except PluginError:
        return reader


def namespace_of(reader: object, name: str) -> str:
    """The namespace of the images of a reader that is registered as `name`: its `image_namespace`, else its name."""
    return str(getattr(reader, "image_namespace", name))
