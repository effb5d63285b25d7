"""Options of the commands that run a model: which one, how to load it, and how many prompts it reads at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from icltool.components.metrics.choice_letter import chosen_letter
from icltool.config.adapters import adapter_of, fine_tuned_name
from icltool.config.base import HIDDEN, StageConfig, place
from icltool.contracts import PromptFile, packaged_prompt, read_prompt
from icltool.contracts.json import Json
from icltool.engine.first_prompt import check_first_prompt
from icltool.engine.opening import open_session, prefix_bytes
from icltool.errors import ConfigError
from icltool.plugin.manager import component, load_registry
from icltool.store.checkpoint_names import checkpoint_name
from icltool.store.image_features import image_features_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pydantic import ModelWrapValidatorHandler
    from typing_extensions import Self

    from icltool.contracts import GenerationOptions, Model, Progress, PromptRenderer, Task
    from icltool.engine.image_cache import FeatureStore
    from icltool.engine.session import FeatureSource, Session

_SPEED: dict[str, Any] = {**HIDDEN, "group": "Speed and memory"}


def _batch_size(value: Any) -> Any:
    """A positive integer, also as a string, or "auto"; one message for anything else."""
    if value == "auto":
        return value
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(f"must be a positive integer or auto, got {value!r}")
    return number


#: More processes never help; each takes memory, and seconds to start.
MOST_WORKERS = 128


def _workers(value: Any) -> Any:
    """A non-negative integer, also as a string, or "auto"; one message for anything else."""
    if value == "auto":
        return value
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ValueError(f"must be a non-negative integer or auto, got {value!r}")
    if number > MOST_WORKERS:
        raise ValueError(f"must be at most {MOST_WORKERS}, got {number}")
    return number


class LvlmConfig(StageConfig):
    """The model and how it runs."""

    model: str = Field(
        default="idefics-9b",
        description="model to run: a name from `icltool plugins list --kind models`, or the folder of a fine-tuned model",
        json_schema_extra={"group": "Model", "daily": True, "complete": "models"},
    )
    model_path: str | None = Field(
        default=None,
        description="folder of the model's weights, or OWNER/NAME to download them from the Hugging Face hub; without --model, "
        "its config.json tells how to read it",
        json_schema_extra={
            "group": "Model",
            "daily": True,
            "default": "the published weights in MODEL_CPK_DIR or the hub's cache",
        },
    )
    device: str = Field(
        default="auto",
        description="device to run on: cpu, cuda, cuda:1 …; auto uses a GPU if there is one",
        json_schema_extra={**HIDDEN, "group": "Model", "daily": True},
    )
    dtype: str = Field(
        default="auto",
        description="precision of the weights: float32, bfloat16 or float16; auto is bfloat16 on a GPU, else float32",
        json_schema_extra={"group": "Model"},
    )
    device_map: Literal["auto", "balanced", "balanced_low_0", "sequential"] | None = Field(
        default=None,
        description="spread the model over all GPUs and CPU memory, instead of --device (needs accelerate)",
        json_schema_extra={
            **HIDDEN,
            "group": "Several devices",
            "default": "auto for models of 80B parameters, else a single device",
        },
    )
    quantization: Literal["4bit", "8bit"] | None = Field(
        default=None,
        description="quantise the weights to 4 or 8 bits (needs bitsandbytes and a GPU)",
        json_schema_extra={"group": "Model", "default": "no quantisation"},
    )
    attention: Literal["sdpa", "eager", "flash_attention_2"] | None = Field(
        default=None,
        description="attention implementation",
        json_schema_extra={**_SPEED, "default": "the best that the model supports"},
    )
    compile: bool = Field(
        default=False,
        description="compile norms and feed-forward layers with torch.compile: a slower start, and no gain on a CPU",
        json_schema_extra=_SPEED,
    )
    prompt_style: Literal["turns", "flat"] | None = Field(
        default=None,
        description="chat models: write each demonstration as turns of the conversation, or all of them in one turn (flat)",
        json_schema_extra={"group": "Model", "default": "turns"},
    )
    prompt_template: Literal["lever-lm", "live", "openflamingo", "vl-icl"] | None = Field(
        default=None,
        description="write prompts as in the published runs of Lever-LM, LIVE, OpenFlamingo or VL-ICL Bench",
        json_schema_extra={"group": "Model", "default": "lever-lm; chat models: a short request for each task"},
    )
    prompt: Path | None = Field(
        default=None,
        description="TOML file with a prompt of your own: instruction, system turn, request, answer, separator, label words; "
        "see `icltool guide prompts`",
        json_schema_extra={"group": "Model", "daily": True, "metavar": "FILE", "default": "--prompt-template"},
    )
    _prompt: PromptFile | None = PrivateAttr(None)
    template_options: dict[str, Any] = Field(
        default_factory=dict,
        description="chat models: variable of the chat template, such as enable_thinking=true; repeatable",
        json_schema_extra={
            "flag": "--template-option",
            "group": "Model",
            "default": "enable_thinking=false if the template has it",
        },
    )
    trust_remote_code: bool = Field(
        default=False,
        description="image-text-to-text and text-llm: run Python code from the model's repository. Use it only if you trust "
        "the author",
        json_schema_extra={"group": "Model"},
    )
    adapter_options: dict[str, Any] = Field(
        default_factory=dict,
        description="option of the model, such as image_size=364 or styles=FILE; repeatable. `icltool plugins show models "
        "NAME` lists them",
        json_schema_extra={"flag": "--model-option", "group": "Model"},
    )
    batch_size: Annotated[int | Literal["auto"], BeforeValidator(_batch_size)] = Field(
        default=64,
        description="prompts per forward pass, halved if memory runs out; auto finds the largest that fits",
        json_schema_extra={**_SPEED, "daily": True, "metavar": "N|auto"},
    )
    image_cache_mb: int = Field(
        default=2048,
        ge=0,
        description="memory for the cache of encoded images, in MB (2^20 bytes); 0 turns the cache off",
        json_schema_extra=_SPEED,
    )
    image_cache_disk: bool = Field(
        default=False,
        description="also cache encoded images in the workspace's folder cache, for later runs of the same model; images are "
        "identified by path, size and modification time",
        json_schema_extra=_SPEED,
    )
    image_cache_disk_mb: int = Field(
        default=65536,
        ge=1,
        description="maximum size of the cache of encoded images on disk, in MB (2^20 bytes)",
        json_schema_extra=_SPEED,
    )
    image_workers: Annotated[int | Literal["auto"], BeforeValidator(_workers)] = Field(
        default="auto",
        description="processes that read and resize images ahead of the model, if encoded images are cached; auto is 0 on a "
        "CPU, up to 8 with a GPU",
        json_schema_extra={**_SPEED, "metavar": "N|auto"},
    )

    #: model_type of the checkpoint if it told the adapter, else "".
    _model_type: str = PrivateAttr("")

    def identity(self) -> dict[str, Json]:
        """See StageConfig. Paths are absolute. Template and further options are left out if they are not set, so that older
        files keep their identity."""
        values = super().identity()
        values["model_path"] = place(self.model_path)
        values["adapter_options"] = {name: place(value) for name, value in self.adapter_options.items()}
        values["prompt"] = None if self._prompt is None or self._by_template else self._prompt.identity()
        for name in ("prompt_template", "prompt", "adapter_options", "template_options", "trust_remote_code"):
            if not values[name]:
                del values[name]
        return values

    @property
    def _by_template(self) -> bool:
        """Whether the prompt has the name of a template, which says it all."""
        return self.prompt is None

    def model_options(self) -> dict[str, Any]:
        """The options that the model's class gets. Those that are not set are left out: the model of a plugin need not have
        them, and the name of a model may set its own."""
        options = {
            "device": self.device if self.device != "auto" else None,
            "dtype": self.dtype if self.dtype != "auto" else None,
            "path": self.model_path,
            "device_map": self.device_map,
            "quantization": self.quantization,
            "attention": self.attention,
            "style": self.prompt_style,
            "template": self.prompt_template if self._prompt is None else None,
            "prompt": self._prompt,
            "compile": self.compile or None,
            "template_options": self.template_options or None,
            "trust_remote_code": self.trust_remote_code or None,
        }
        return {**{name: value for name, value in options.items() if value is not None}, **self.adapter_options}

    @property
    def model_name(self) -> str:
        """What tables and files call the model: the checkpoint's own name if there is a path, else the model's."""
        return checkpoint_name(self.model, self.model_path)

    def check_model(self, progress: Progress) -> None:
        """Says which adapter reads the checkpoint if the checkpoint told it. Raises PluginError for an unknown model."""
        load_registry().get("models", self.model)
        if self._model_type:
            progress.say(f"{self.model_name}: model_type {self._model_type}, read as --model {self.model}")

    def open_model(self, task: Task, **further: Any) -> Model:
        """The model, loaded with these options and `further` ones. One from a folder or file of the user's is tested with a
        first prompt of `task`. Raises ConfigError, and what loading raises."""
        options = {**self.model_options(), **further}
        model: Model = component("models", self.model, **options)
        if options.get("path") is not None:
            check_first_prompt(model, self.model, str(options["path"]), task)
        return model

    def prompt_renderer(self, **further: Any) -> PromptRenderer:
        """What writes the model's prompts with these options and `further` ones, without its weights. Raises ConfigError for a
        model that cannot do without them."""
        return load_registry().prompt_renderer(self.model, **{**self.model_options(), **further})

    def check_images(self, dataset: str, most: int) -> None:
        """ConfigError if the model reads fewer images per prompt than the `most` that an example of `dataset` has."""
        limit = getattr(load_registry().load("models", self.model), "images_per_prompt", None) if most > 1 else None
        if limit is not None and most > limit:
            raise ConfigError(
                f"model {self.model} reads {limit} image per prompt, and examples of {dataset} have up to {most}",
                "choose a model that reads several images, such as --model qwen2.5-vl-7b",
            )

    def image_store(self, model: Model | None) -> FeatureStore | None:
        """The file of encoded images, or None without --image-cache-disk."""
        if not self.image_cache_disk or model is None:
            return None
        return image_features_for(model, self.model, self.workspace, self.image_cache_disk_mb)

    @model_validator(mode="wrap")
    @classmethod
    def _adapter_of_path(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Without --model, the checkpoint tells which adapter reads it."""
        if isinstance(values, dict) and "model" not in values and isinstance(path := values.get("model_path"), str):
            adapter = adapter_of(path)
            config = handler({**values, "model": adapter.name})
            config._model_type = adapter.model_type
            return config
        return handler(values)

    @model_validator(mode="before")
    @classmethod
    def _fine_tuned(cls, values: Any) -> Any:
        """Accepts a fine-tuned model in place of a name: its checkpoint folder, that folder's name, or an exported folder."""
        if not isinstance(values, dict) or not isinstance(model := values.get("model"), str):
            return values
        workspace = Path(values.get("workspace") or cls.model_fields["workspace"].default)
        for folder in (Path(model), workspace / "checkpoints" / model):
            if model and (name := fine_tuned_name(folder)) is not None:
                if values.get("model_path") is not None:
                    raise ValueError(f"--model {model} is already a folder of weights: leave out --model-path")
                return {**values, "model": name, "model_path": str(folder)}
        if fault := _no_model(Path(model), workspace):
            raise ValueError(fault)
        return values

    @model_validator(mode="after")
    def _one_prompt(self) -> LvlmConfig:
        """Reads the prompt, so that workers on other machines have it too."""
        if self.prompt is not None:
            if self.prompt_template is not None:
                raise ValueError("--prompt and --prompt-template exclude each other: use one of them")
            self._prompt = read_prompt(self.prompt)
        elif self.prompt_template is not None and self.prompt_template not in self._own_templates():
            self._prompt = packaged_prompt("icltool.components.prompts", f"{self.prompt_template}.toml")
        return self

    def prompted(self, task: Task) -> Task:
        """The task with what the prompt says of its answers."""
        extract = None if self._prompt is None else self._prompt.extract
        return task if extract is None else task.model_copy(update={"extract": extract})

    def _own_templates(self) -> tuple[str, ...]:
        """The templates that the model's adapter has itself."""
        options = getattr(load_registry().load("models", self.model), "options_model", None)
        field = None if options is None else options.model_fields.get("template")
        return () if field is None else get_args(field.annotation)

    @model_validator(mode="after")
    def _one_place(self) -> LvlmConfig:
        if self.device_map is not None and self.device != "auto":
            raise ValueError("--device and --device-map exclude each other: use one of them")
        return self


def _no_model(path: Path, workspace: Path) -> str:
    """The problem with a path in place of a model's name; "" if it may be a name."""
    if path.is_file():
        if path.suffixes[-2:] == [".tar", ".gz"]:
            return f"{path} is an archive: unpack it, and name its folder"
        return f"{path} is a file: name the folder that contains it"
    if path.is_dir() and len(path.parts) > 1:
        return f"{path} does not contain a fine-tuned model: use --model for a name, and --model-path for a folder of weights"
    if len(path.parts) > 1 and not path.exists():
        return f"{path} does not exist: --model takes a name, or the folder of a fine-tuned model"
    return ""


class ModelConfig(LvlmConfig):
    """The options of commands whose prompts share prefixes."""

    prefix_cache_mb: int | None = Field(
        default=None,
        ge=0,
        description="memory for the prefix cache, the keys and values of what prompts share, in MB (2^20 bytes); 0 turns the "
        "cache off",
        json_schema_extra={
            **_SPEED,
            "default": "1024; on a GPU, an eighth of the memory that is free once the model is loaded",
        },
    )

    def open_session(
        self,
        task: Task,
        model: Model | None,
        generation: GenerationOptions,
        lookup: FeatureSource | None = None,
        corpus: Callable[[], Iterable[tuple[str, ...]]] | None = None,
        store: bool = True,
    ) -> Session:
        """A session with the caches of these options; see `engine.opening.open_session`. With `store` false, nothing is cached
        on disk. The session must be closed."""
        return open_session(
            task,
            model,
            generation,
            self.batch_size,
            self.image_cache_mb * 2**20,
            lookup,
            corpus,
            prefix_bytes=prefix_bytes(self.prefix_cache_mb, model),
            image_workers=self.image_workers,
            image_store=self.image_store(model) if store else None,
            letter=chosen_letter,
        )
