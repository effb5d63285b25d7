"""What a cluster can do, worked out from the measured cost of one worker.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.capacity [--prompts-per-second 40] [--nodes 100] [--gpus 8] [--dim 768]

measures on this machine, in one process and within a minute or two: prompts per second of `icltool generate`, the memory
of a worker, bytes of a query in a sequences file, bytes of an example in an embeddings file, and the queries per second
that the one writer takes. Then prints what that makes for 1, 8, 64 and NODES x GPUS workers, and for index sets of 1, 10
and 100 million examples. The model is the embedded world's, a thousandth of a published one's size, on one core: its
prompts per second and memory say nothing about a GPU. Give your own, from `icltool generate --dry-run` (its row "all") and
the worker's memory, and all that follows from them is yours. Everything else (bytes, writer) is the same for every model.

Times are of the processor, since other work may share the machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from icltool.components.retrievers.approximate import LISTS, IndexOptions, code_bytes
from icltool.contracts import GenerationOptions, QueryResult
from icltool.engine.beam import SearchOptions, prompts_by_step

EXAMPLES = (10**6, 10**7, 10**8)
WORKERS = (1, 8, 64)
#: Bytes of an example's id in an index, and of its links in an HNSW graph with what else it keeps (8 x 32 + 20).
ID, GRAPH = 8, 276


@dataclass(frozen=True)
class Cost:
    """Of one worker, prompts per second and bytes of memory; of the one writer, queries per second; of one query, bytes in
    the sequences file; of one example with `dim` features and both modalities, bytes in the embeddings file."""

    prompts_per_second: float
    memory: float
    writer: float
    query_bytes: float
    example_bytes: dict[str, float]
    dim: int


@dataclass(frozen=True)
class Search:
    """The search of an anchor: by default the published one of Lever-LM, 64 candidates, 5 beams, 2 demonstrations."""

    candidates: int = 64
    beams: int = 5
    shots: int = 2

    @property
    def prompts(self) -> int:
        return sum(prompts_by_step(SearchOptions(self.shots, self.beams), self.candidates))


@dataclass(frozen=True)
class Throughput:
    """Of so many workers: `queries` per second, `load` the share of the writer's time that they take, `hours` for the
    anchors, `gigabytes` the sequences file, `node_memory` bytes of the workers of a node."""

    workers: int
    queries: float
    load: float
    hours: float
    gigabytes: float
    node_memory: float


def throughput(
    cost: Cost, search: Search, workers: int, anchors: int, gpus: int, efficiency: float = 1.0
) -> Throughput:
    """Workers do not wait for each other, so rates add up, until the writer is the slowest.

    `efficiency` is the share of a worker's own rate that it has among others (measured by the Ray benchmark).
    """
    rate = workers * efficiency * cost.prompts_per_second / search.prompts
    queries = min(rate, cost.writer)
    return Throughput(
        workers,
        queries,
        rate / cost.writer,
        anchors / queries / 3600,
        anchors * cost.query_bytes / 1e9,
        min(workers, gpus) * cost.memory,
    )


def workers_of_one_writer(cost: Cost, search: Search) -> float:
    """How many workers fill the writer's time."""
    return cost.writer * search.prompts / cost.prompts_per_second


@dataclass(frozen=True)
class IndexCost:
    """Of one modality's vectors, in GB (10^9 bytes): `stored` embeddings of both modalities in the file by dtype. For each
    query `exact` and `probed` GFLOP, and `read` GB (float16) and `read_probed`; `codes` IVF-PQ in memory, `graph` HNSW."""

    examples: int
    stored: dict[str, float]
    exact: float
    read: float
    codes: float
    graph: float
    probed: float
    read_probed: float


def index_cost(cost: Cost, examples: int) -> IndexCost:
    """Exact: 2 N D operations and all rows read. IVF-PQ: 4 sqrt(N) lists; a query is compared with all their centres, then
    with the codes of the 32 nearest lists, by one table look-up for each byte of a code."""
    lists, code, probes = LISTS * examples**0.5, code_bytes(cost.dim), IndexOptions().probes
    visited = examples * probes / lists
    return IndexCost(
        examples,
        {name: size * examples / 1e9 for name, size in cost.example_bytes.items()},
        2 * examples * cost.dim / 1e9,
        2 * examples * cost.dim / 1e9,
        (examples * (code + ID) + lists * cost.dim * 4) / 1e9,
        examples * (4 * cost.dim + GRAPH) / 1e9,
        (2 * lists * cost.dim + visited * code) / 1e9,
        (lists * cost.dim * 4 + visited * (code + ID)) / 1e9,
    )


def measured(folder: Path, search: Search, dim: int, queries: int = 2000) -> Cost:
    """Everything on this machine; `queries` are how many are written."""
    prompts, memory = measured_model(folder, search)
    writer, query_bytes = measured_writer(folder, search, queries)
    return Cost(prompts, memory, writer, query_bytes, measured_embeddings(folder, dim), dim)


def measured_model(folder: Path, search: Search, anchors: int = 2) -> tuple[float, float]:
    """(prompts per second, bytes resident) of the embedded world's model in this process, images encoded beforehand."""
    from icltool.commands.prepare import run as prepare
    from icltool.commands.prepare.options import PrepareConfig
    from icltool.engine.cost import measure
    from icltool.engine.image_cache import ImageFeatureCache
    from icltool.engine.session import Session
    from icltool.execution.progress import for_terminal
    from icltool.plugin.manager import component
    from icltool.store.records import open_dataset

    home = folder / "workspace"
    sizes: dict[str, str | int | float | bool] = {"index_images": 128, "validation_images": 8}
    prepare.run(PrepareConfig(workspace=home, name="shapes", options=sizes), for_terminal(quiet=True))
    records = open_dataset(home / "datasets" / "shapes" / "caption").split("train")
    model = component("models", "tiny-idefics", device="cpu")
    pool = list(range(anchors, anchors + search.candidates))
    pools = [(records[row], records.rows(np.array(pool))) for row in range(anchors)]
    options = SearchOptions(search.shots, search.beams)
    cache = ImageFeatureCache(model, 2**28)
    session = Session("caption", model, GenerationOptions(16), 64, cache, prefix_bytes=2**28)
    steps, _ = measure(component("scorers", "infoscore"), session, options, pools, clock=time.process_time)
    seconds = sum(step.seconds * step.prompts for step in steps)
    return search.prompts / seconds, resident()


def resident() -> float:
    """Bytes of this process in memory now; its peak where the system does not tell."""
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmRSS")]
        return float(line.split()[1]) * 1024
    import resource

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024


def measured_writer(folder: Path, search: Search, queries: int) -> tuple[float, float]:
    """(queries per second that the writer takes, bytes of a query in the finished file)."""
    from icltool.store.provenance import Provenance
    from icltool.store.sequences import SequenceWriter

    rng, path = np.random.default_rng(0), folder / "sequences.h5"
    steps = rng.random((search.beams, search.shots))
    results = [
        QueryResult(
            query, rng.integers(0, 10**8, search.candidates), rng.integers(0, 10**8, (search.beams, search.shots)),
            steps[:, -1], steps, steps[:, -1], -steps[:, -1], 0.5, -0.5,
        )
        for query in range(queries)
    ]  # fmt: skip
    sizes = (search.shots, search.beams, search.candidates, queries)
    started = time.process_time()
    with SequenceWriter(path, Provenance({}, "0" * 16), *sizes) as writer:
        for result in results:
            writer.append(result)
    return queries / (time.process_time() - started), path.stat().st_size / queries


def measured_embeddings(folder: Path, dim: int, chunks: int = 2) -> dict[str, float]:
    """Bytes of an example with an image's and a text's features in a finished file, by dtype. So many whole chunks are
    written, as large files have them."""
    import h5py

    from icltool.store.embeddings import EmbeddingWriter
    from icltool.store.provenance import Provenance

    rates: dict[str, float] = {}
    for dtype in ("float16", "float32"):
        path, rows = folder / f"embeddings-{dtype}.h5", 1
        for last in (False, True):
            fields, about = ("image", "text"), Provenance({}, "0" * 16)
            values = np.random.default_rng(0).standard_normal((rows, dim), dtype=np.float32)
            with EmbeddingWriter(
                path, about, "some", "0" * 16, dim, fields, rows, dtype=dtype, overwrite=last
            ) as writer:  # type: ignore[arg-type]
                writer.append(np.arange(rows), dict.fromkeys(fields, values))
            rates[dtype] = path.stat().st_size / rows
            with h5py.File(path) as file:
                rows = chunks * int(file["image"].chunks[0])
    return rates


def tables(cost: Cost, search: Search, nodes: int, gpus: int, anchors: int, efficiency: float) -> list[str]:
    """What is printed, as Markdown."""
    lines = [
        f"One worker: {cost.prompts_per_second:,.0f} prompts/s, {cost.memory / 2**30:.1f} GiB. An anchor takes "
        f"{search.prompts} prompts and {cost.query_bytes:,.0f} bytes of the sequences file. The writer takes "
        f"{cost.writer:,.0f} queries/s, the work of {workers_of_one_writer(cost, search):,.0f} such workers.",
        "",
        f"| workers | prompts/s | anchors/s | {anchors:,} anchors | writer's load | file | memory, {gpus} workers a node |",
        "|---|---|---|---|---|---|---|",
    ]
    for workers in sorted({*WORKERS, nodes * gpus}):
        t = throughput(cost, search, workers, anchors, gpus, efficiency)
        lines.append(
            f"| {workers:,} | {t.queries * search.prompts:,.0f} | {t.queries:,.2f} | {t.hours:,.1f} h | {t.load:.2%} | "
            f"{t.gigabytes:,.2f} GB | {t.node_memory / 2**30:.1f} GiB |"
        )
    lines += [
        "",
        f"| examples | embeddings float16, float32 (D = {cost.dim}, image and text) | exact search of a query | IVF-PQ | "
        "its search of a query | HNSW |",
        "|---|---|---|---|---|---|",
    ]
    for examples in EXAMPLES:
        c = index_cost(cost, examples)
        lines.append(
            f"| {examples:,} | {c.stored['float16']:,.1f} GB, {c.stored['float32']:,.1f} GB | {c.exact:,.1f} GFLOP, "
            f"{c.read:,.1f} GB read | {c.codes:,.2f} GB | {c.probed:,.3f} GFLOP, {c.read_probed:,.3f} GB read | "
            f"{c.graph:,.1f} GB |"
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.capacity")
    parser.add_argument("--prompts-per-second", type=float, help="of one worker; none: measured here, on a tiny model")
    parser.add_argument("--memory-gib", type=float, help="host memory of one worker; none: measured here")
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--gpus", type=int, default=8, help="workers of a node")
    parser.add_argument("--anchors", type=int, default=1_000_000)
    parser.add_argument(
        "--efficiency", type=float, default=1.0, help="share of its own rate that a worker has among others"
    )
    parser.add_argument("--dim", type=int, default=768, help="width of the embeddings")
    for name, value in vars(Search()).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args(arguments)
    search = Search(options.candidates, options.beams, options.shots)
    with TemporaryDirectory(prefix="icltool-capacity-") as folder:
        cost = measured(Path(folder), search, options.dim)
    if options.prompts_per_second:
        cost = replace(cost, prompts_per_second=options.prompts_per_second)
    if options.memory_gib:
        cost = replace(cost, memory=options.memory_gib * 2**30)
    print("\n".join(tables(cost, search, options.nodes, options.gpus, options.anchors, options.efficiency)))


if __name__ == "__main__":
    main()
