"""Options of the commands whose work can be spread over several devices or machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, field_validator, model_validator
from pydantic.config import JsonDict

from icltool.config.base import StageConfig
from icltool.plugin.manager import component

if TYPE_CHECKING:
    from icltool.contracts import Executor

_SEVERAL: JsonDict = {"hidden_in_artefact": True, "group": "Several devices"}


class ExecutorConfig(StageConfig):
    """Where the work is done; none of these options can change the result."""

    executor: str | None = Field(
        default=None,
        description="where to run: local (this process) or ray (several GPUs or machines)",
        json_schema_extra={
            **_SEVERAL,
            "complete": "executors",
            "default": "ray with --devices, --address or --workers, else local",
        },
    )
    devices: tuple[int, ...] = Field(
        default=(),
        description="GPUs of this machine to use, with one worker on each, such as 0,1,2,3",
        json_schema_extra={**_SEVERAL, "default": "the one of --device; all with --executor ray"},
    )
    address: str | None = Field(
        default=None,
        description="running Ray cluster to join: HOST:PORT, or auto",
        json_schema_extra={**_SEVERAL, "default": "start Ray on this machine"},
    )
    workers: int | None = Field(
        default=None,
        ge=1,
        description="number of worker processes, each of which loads the model",
        json_schema_extra={**_SEVERAL, "default": "as many as the GPUs can hold; one per machine without GPUs"},
    )
    gpus_per_worker: float | None = Field(
        default=None,
        ge=0,
        description="GPUs per worker; a fraction such as 0.5 makes workers share a GPU",
        json_schema_extra={**_SEVERAL, "default": "1 if the cluster has GPUs, else 0"},
    )
    cpus_per_worker: float = Field(
        default=1, gt=0, description="CPU cores, and therefore threads, per worker", json_schema_extra=_SEVERAL
    )

    ship_data: bool = Field(
        default=False,
        description="send the data set, embeddings and images to every machine once, for clusters without a shared disk; the "
        "model's weights must already be on each machine",
        json_schema_extra=_SEVERAL,
    )

    @property
    def executor_name(self) -> str:
        """The registered name of the executor."""
        several = self.devices or self.address is not None or self.workers is not None
        return self.executor or ("ray" if several else "local")

    def open_executor(self) -> Executor:
        """The executor with its options. Raises what its constructor raises."""
        executor: Executor = component("executors", self.executor_name, **self.executor_options())
        return executor

    def executor_options(self) -> dict[str, object]:
        """Those of these options that are set, by the names of the executor's own options."""
        options = {name: getattr(self, name) for name in ("devices", "address", "workers", "gpus_per_worker")}
        if "cpus_per_worker" in self.model_fields_set:
            options["cpus_per_worker"] = self.cpus_per_worker
        return {name: value for name, value in options.items() if value not in (None, ())}

    @field_validator("devices")
    @classmethod
    def _numbers(cls, devices: tuple[int, ...]) -> tuple[int, ...]:
        if any(device < 0 for device in devices):
            raise ValueError("GPUs are numbered from 0")
        return devices

    @model_validator(mode="after")
    def _fit(self) -> ExecutorConfig:
        if self.devices and self.address is not None:
            raise ValueError("--devices names GPUs of this machine, --address another cluster: use one of them")
        if self.devices and getattr(self, "device", "auto") != "auto":
            raise ValueError("--devices names the GPUs of the workers: leave out --device")
        options = [*self.executor_options(), *(["ship_data"] if self.ship_data else [])]
        if self.executor_name == "local" and options:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in options)
            raise ValueError(
                f"{flags} cannot be used with --executor local, which is this process alone: use --executor ray"
            )
        if self.ship_data and getattr(self, "image_cache_disk", False):
            raise ValueError("--ship-data and --image-cache-disk exclude each other: what workers cache would be lost")
        return self
