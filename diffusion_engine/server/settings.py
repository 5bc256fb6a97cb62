"""`Settings`: how a server is run, from flags, the environment and a file, in this order."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from .. import checks

PREFIX = "DIFFUSION_ENGINE_"
# Variables of the package that are no settings of a server.
OTHERS = ("CACHE", "DEBUG", "NVTX")
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
KEY = re.compile(r"[!-~]{16,512}")
KEYS = "a key is 16 to 512 printable ASCII characters without spaces"

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=1)]
Names = Annotated[list[str], NoDecode]


class Settings(BaseSettings):
    """Settings of a server; a variable of the environment is DIFFUSION_ENGINE_ and a name in capitals."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="address to listen on; any but loopback needs a key")
    port: int = Field(8000, ge=0, le=65535, description="0 takes a free one")
    uds: Path | None = Field(None, description="Unix socket to listen on instead, mode 0600")
    hosts: Names = Field(
        [], description="names that a proxy puts into Host, where a server on loopback has no key"
    )
    key: SecretStr | None = Field(
        None, description="bearer key that every route but health asks for"
    )
    key_file: Path | None = Field(None, description="file of keys, one a line")

    models: Annotated[dict[str, str], NoDecode] = Field(
        {"digits": "digits"},
        description="networks by the name that clients use: what --model of `sample` takes",
    )
    default_model: str | None = Field(None, description="of requests that name none; the first one")
    labels: dict[str, list[str]] = Field(
        {}, description="names of a model's classes, in their order, which prompts may use"
    )
    devices: Names = Field(
        [], description="one worker each: cpu, cuda:0; every GPU, or else the CPU"
    )
    capacity: int = Field(16, ge=1, le=4096, description="samples of one batch")
    executor: Literal["eager", "graph", "native", "onnxruntime", "openvino", "auto"] = Field(
        "eager", description="as of Sampler"
    )
    batch: Literal["bucket", "fixed"] = Field("bucket", description="as of Engine")
    accelerate: bool = Field(False, description="fused ops in networks, where that is faster")
    threads: int | Literal["measured"] | None = Field(
        None, description="of the CPU that run the network: a number, or measured; torch's own"
    )
    dtype: Literal["auto", "float16", "bfloat16", "float32", "float64"] | None = Field(
        None,
        description="in which networks are computed; auto: as suits the device; the module's own",
    )

    worker_memory: Bytes | None = Field(
        None, description="bytes that a worker may take of the host's memory; as many as there are"
    )
    hang: Seconds = Field(5.0, description="seconds without a row after which a worker hangs")
    retries: int = Field(2, ge=0, description="workers more that a request may see lost")
    quarantine: Seconds = Field(3600.0, description="seconds that one like it is refused then")

    max_queue: int = Field(1024, ge=1, description="requests that wait or run; beyond it 429")
    max_cost: int = Field(
        2_000_000, ge=1, description="entries x rows of the samples of one request; beyond it 413"
    )
    max_samples: int = Field(64, ge=1, le=65536, description="of one request; beyond it 422")
    max_steps: int = Field(1000, ge=1, le=4096, description="of a Spec; beyond it 422")
    max_rows: int = Field(
        10_000, ge=1, description="of a plan, as far as its Spec tells; beyond it 422"
    )
    max_seconds: Seconds = Field(600.0, description="a request may take; the deadline of all")
    max_open: int = Field(
        2048, ge=1, description="requests that are answered at once; beyond it 503"
    )
    max_connections: int = Field(4096, ge=1, description="connections; those beyond it are closed")
    max_body: Bytes = Field(32 << 20, description="bytes of a request's body; beyond it 413")
    max_bodies: Bytes = Field(
        512 << 20, description="bytes of the bodies of all requests at a time; beyond it 503"
    )
    max_header: Bytes = Field(16 << 10, description="bytes of its head; beyond it 431")
    header_timeout: Seconds = Field(10.0, description="seconds for the head of a request; 408")
    body_timeout: Seconds = Field(30.0, description="seconds for its body; 408")
    write_timeout: Seconds = Field(30.0, description="seconds that a client may read nothing")
    keep_alive: Seconds = Field(15.0, description="seconds that an idle connection stays")
    drain: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        30.0, description="seconds for what was accepted when the server ends"
    )
    keep_seconds: Seconds = Field(600.0, description="that results of wait=false are kept")
    keep_bytes: Bytes = Field(256 << 20, description="of such results; the oldest go first")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)  # `read` puts the others in

    @classmethod
    def read(cls, file: Path | None = None, flags: Mapping[str, Any] | None = None) -> Self:
        """The settings of a command.

        file   TOML
        flags  by name; they go before the environment, which goes before the file
        Raises ValueError in a sentence, which names an unknown key and the nearest known one.
        """
        known = cls.model_fields
        told = {k[len(PREFIX) :] for k in os.environ if k.startswith(PREFIX)} - {*OTHERS}
        _known("the environment", {n.lower(): PREFIX + n for n in told}, known)
        asked = {} if file is None else _toml(file)
        _known(str(file), {name: name for name in asked}, known)
        sources = (flags or {}, EnvSettingsSource(cls)(), InitSettingsSource(cls, asked)())
        made: dict[str, Any] = {}
        for source in reversed(sources):
            made |= source
        try:
            return cls(**made)
        except ValidationError as error:
            raise ValueError(_sentence(error)) from None

    @field_validator("*", mode="before")
    @classmethod
    def _no_flag(cls, given: Any, info: ValidationInfo) -> Any:
        """True is no number of anything."""
        if isinstance(given, bool) and info.field_name != "accelerate":
            raise ValueError(f"{info.field_name}={given}: it is no flag")
        return given

    @field_validator("models", mode="before")
    @classmethod
    def _models(cls, given: Any) -> Any:
        """Of a text "digits,mine=package.module:network" and a list of its parts, too."""
        parts = _listed(given)
        if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
            return given
        named: dict[str, str] = {}
        for part in parts:
            name, equals, text = part.partition("=")
            if not equals and not re.fullmatch(NAME, name):
                raise ValueError(f"models: {part!r} needs a name that clients use: name={part}")
            if name in named:
                raise ValueError(f"models: two are called {name!r}; give them different names")
            named[name] = text if equals else name
        return named

    @field_validator("models")
    @classmethod
    def _named(cls, models: dict[str, str]) -> dict[str, str]:
        if not models:
            raise ValueError("models names none; give one, such as digits")
        for name, text in models.items():
            if not re.fullmatch(NAME, name) or not text:
                raise ValueError(
                    f"models: {name!r}={text!r}: a name is letters, digits, '.', '_' and '-', at most 64, "
                    "and behind it stands what --model of `sample` takes"
                )
        return models

    @field_validator("devices", "hosts", mode="before")
    @classmethod
    def _lists(cls, given: Any) -> Any:
        return _listed(given)

    @field_validator("threads", mode="before")
    @classmethod
    def _threads(cls, given: Any) -> Any:
        threads = int(given) if isinstance(given, str) and given.isdecimal() else given
        if threads not in (None, "measured"):
            checks.whole("threads", threads, 1, "a number of threads, or measured")
        return threads

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.default_model is not None and self.default_model not in self.models:
            near = checks.nearest([self.default_model], self.models)
            raise ValueError(f"default_model={self.default_model!r} is none of the models{near}")
        _known("labels", {name: name for name in self.labels}, self.models)
        if not self.secrets and not self.local:
            raise ValueError(
                f"host={self.host!r} is reached from other machines: give a key (DIFFUSION_ENGINE_KEY, or "
                "--key-file), or listen on 127.0.0.1"
            )
        return self

    @property
    def local(self) -> bool:
        """Whether only this machine reaches the server."""
        if self.uds is not None or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """The keys. Raises ValueError where one is none."""
        given = [] if self.key is None else [self.key.get_secret_value()]
        if self.key_file is not None:
            try:
                lines = self.key_file.read_text().splitlines()
            except (OSError, UnicodeDecodeError):
                raise ValueError(f"key_file={str(self.key_file)!r} cannot be read") from None
            given += (found := [line.strip() for line in lines if line.strip()])
            if not found:
                raise ValueError(f"key_file={str(self.key_file)!r} holds no key; write one a line")
        if not all(KEY.fullmatch(key) for key in given):
            raise ValueError(KEYS)
        return tuple(key.encode() for key in given)

    @property
    def model(self) -> str:
        """Of requests that name none."""
        return self.default_model or next(iter(self.models))

    def to_toml(self) -> str:
        """As a file of settings; keys are masked."""
        lines = []
        for name, value in self.model_dump(mode="json").items():
            if value is not None:
                lines.append(f"{'# ' if name == 'key' else ''}{name} = {_written(value)}")
        return "\n".join(lines)


def _listed(given: Any) -> Any:
    return [p.strip() for p in given.split(",") if p.strip()] if isinstance(given, str) else given


def _known(where: str, found: Mapping[str, str], known: Mapping[str, Any]) -> None:
    """Raises ValueError on a name that is not known."""
    if unknown := sorted(found.keys() - known.keys()):
        near = checks.nearest(unknown, known) or f"; there are {', '.join(known)}"
        raise ValueError(f"{where} has an unknown {', '.join(found[n] for n in unknown)}{near}")


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error.strerror}); name a TOML file") from None
    except ValueError as error:
        raise ValueError(f"{file} is no TOML ({error})") from None


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    where = ".".join(map(str, first["loc"][:1]))
    said = "it" if where == "key" else checks.said(first["input"])
    return f"{where}={said}: {first['msg'][0].lower()}{first['msg'][1:]}"


def _written(value: Any) -> str:
    """A value in TOML: a text of JSON is one of TOML."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {_written(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, value)) + "]"
    return json.dumps(value)
