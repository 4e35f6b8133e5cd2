"""Keys of the language models and of the store of generations."""

from dataclasses import dataclass, field
from typing import Literal

from ..registry import bounded, part


@dataclass
class LLMConfig:
    kind: str = "???"
    """The engine that runs the model."""
    model: str = "???"
    """The name of the model; part of every key of the store."""


@part("llm", "project.llm.engines.llamacpp:LlamaCppEngine", concurrency="slots")
@dataclass
class LlamaCppConfig(LLMConfig):
    kind: str = "llamacpp"
    path: str | None = None
    """A GGUF file; null takes it from the packages below."""
    packages: list[str] = field(default_factory=list)
    """Installed Python packages that contain the file: one with the complete file, or its parts in order."""
    sha256: str | None = None
    """Digest of the complete file; a file with another digest is refused."""
    install: str = "install it, or give llm.path=/path/to/model.gguf"
    """What to do if a package is missing; part of the error message."""
    context: int = bounded(2048, minimum=1)
    """Context window of each slot, in tokens."""
    threads: int = bounded(0, minimum=0)
    """Processor threads; 0 measures on this machine which number is fastest."""
    slots: int = bounded(0, minimum=0)
    """Concurrent requests; 0 measures which number is fastest."""


@part("llm", "project.llm.engines.openai_server:OpenAIEngine", concurrency="concurrency", remote=True)
@dataclass
class OpenAIConfig(LLMConfig):
    kind: str = "openai"
    served: str | None = None
    """The name of the model on the server; null takes llm.model."""
    base_url: str = "???"
    """Address of the server, such as http://localhost:8000/v1."""
    key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; if it is unset, a dummy key is sent, which local servers accept."""
    concurrency: int = bounded(64, minimum=1)
    """Concurrent requests."""
    timeout: float = bounded(120.0, minimum=0.001)
    """Seconds until a request without an answer is cancelled and retried."""
    retries: int = bounded(6, minimum=0)
    """Maximum number of retries of a failed request, with growing pauses."""
    structured: Literal["json_schema", "json_object", "none"] = "json_schema"
    """How the shape of an answer is requested from the server; none relies on the prompt only."""
    price_prompt: float = bounded(0.0, minimum=0)
    """Price of a million prompt tokens, for the estimate of a dry run."""
    price_completion: float = bounded(0.0, minimum=0)
    """Price of a million completion tokens, for the estimate of a dry run."""


@part("llm", "project.llm.engines.hf_transformers:TransformersEngine", concurrency="batch_size")
@dataclass
class HFTransformersConfig(LLMConfig):
    kind: str = "transformers"
    path: str = "???"
    """A hub id, or a folder with safetensors and a tokenizer that has a chat template."""
    revision: str | None = None
    """Commit of the hub repository; null takes the newest, which may change."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Type of the weights, or of the arithmetic if the weights are quantized."""
    quantize: Literal["none", "4bit"] = "none"
    """4bit takes a quarter of the memory, on NVIDIA GPUs with bitsandbytes."""
    device_map: str = "auto"
    """Device of the weights: auto spreads them over the GPUs; or cpu, cuda, cuda:1."""
    batch_size: int = bounded(16, minimum=1)
    """Prompts per batch; halved when they exceed the memory."""


@dataclass
class StoreConfig:
    path: str = "outputs/store"
    """Folder of the generations, to which this run adds."""
    recorded: str | None = None
    """A second folder that is only read, such as the recording data/demo of the repository."""
    engine: bool = True
    """Generate texts that the store lacks; false makes a missing text an error."""
    takeover_seconds: float = bounded(120.0, minimum=0)
    """Seconds without a new text from other jobs after which a job generates the texts that it waits for."""
