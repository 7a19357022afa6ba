"""`model_list` → deployments by alias, in LiteLLM's words. Imports no I/O."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from broker.config import clouds, known
from broker.config.models import Capabilities, Deployment, Prices, ProviderRow
from broker.config.price_names import is_price
from broker.config.problems import kind
from broker.config.reading import Reading, Yaml
from broker.topics import ALIAS_PATTERN

LIMIT_FIELDS: Final = ("rpm", "tpm", "itpm", "otpm", "rpd", "tpd")
"""May stand at the entry, in its parameters or in its model_info: LiteLLM looks in all three, in this order."""

PLAIN_FIELDS: Final = (
    "api_key",
    "max_parallel_requests",
    "timeout",
    "stream_timeout",
    "weight",
    "order",
    "tags",
    "drop_params",
    "additional_drop_params",
    "allowed_openai_params",
)
"""Parameters that a deployment calls by the same name."""


def alias_name(name: str) -> str:
    """Return the alias for a model name: characters that Kafka forbids in a topic become `-`."""
    return "".join(char if ALIAS_PATTERN.fullmatch(char) else "-" for char in name)


def split_model(model: str, provider: str | None = None) -> tuple[str, str]:
    """Return provider and model of LiteLLM's `provider/model`; with no slash it is OpenAI's.

    Only the first part is the provider; further slashes belong to the model. With `provider` given
    (`custom_llm_provider`) the model keeps every part but a repeated provider.
    """
    if provider:
        return provider, model.removeprefix(f"{provider}/")
    head, slash, rest = model.partition("/")
    return (head, rest) if slash else ("openai", model)


def read_model_list(
    reading: Reading,
    value: object,
    credentials: Mapping[str, Mapping[str, Any]],
    defaults: Mapping[str, Any],
    rows: Mapping[str, ProviderRow],
) -> dict[str, list[Deployment]]:
    """Return deployments by model name as written, in the file's order; `defaults` serve where an entry is silent.

    `rows` are the configuration's own providers by name.
    """
    found: dict[str, list[Deployment]] = {}
    for index, entry in enumerate(reading.items(value, "model_list")):
        path = f"model_list[{index}]"
        fields = reading.section(
            entry,
            path,
            known.ENTRY_ACTED,
            known.listed("model_list"),
            general="model_list[]",
            nested=known.ENTRY_NESTED,
        )
        name = fields.get("model_name")
        if not isinstance(name, str) or not name:
            reading.problem(f"{path}.model_name", f"a name is needed, not {kind(name)}")
            continue
        siblings = found.setdefault(name, [])
        deployment = _Entry(reading, path, fields, credentials).deployment(alias_name(name), len(siblings), defaults)
        if deployment is not None:
            siblings.append(deployment.model_copy(update={"row": rows.get(deployment.provider)}))
    return found


def _names(sources: Mapping[str, clouds.Source]) -> dict[str, str]:
    return {field: source.parameter for field, source in sources.items()}


class _Entry:
    """One entry of `model_list` on its way to a deployment."""

    def __init__(
        self,
        reading: Reading,
        path: str,
        fields: dict[str, Any],
        credentials: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self._reading = reading
        self._path = path
        self._entry = fields
        self._where = "litellm_params" if "litellm_params" in fields or "params" not in fields else "params"
        if "litellm_params" in fields and "params" in fields:
            reading.problem(f"{path}.params", "it means the same as litellm_params; only one of them may stand here")
        self._params = self._read_params(fields.get(self._where), credentials)
        self._info = self._read_info(fields.get("model_info"))

    def deployment(self, alias: str, index: int, defaults: Mapping[str, Any]) -> Deployment | None:
        """Return the deployment, or None where a problem was noted."""
        model = self._params.get("model")
        if not isinstance(model, str) or not model:
            self._reading.problem(f"{self._path}.{self._where}.model", f"a model is needed, not {kind(model)}")
            return None
        provider, model = split_model(model, self._params.get("custom_llm_provider"))
        name = self._info.get("id")
        values = {
            "name": str(name) if name is not None else f"{alias}/{index}",
            "alias": alias,
            "provider": provider,
            "model": model,
            "base_model": self._first("base_model", self._info, self._params),
            "headers": self._headers(),
            "prices": self._prices(),
            "region": self._first("region", self._params, self._info),
            "model_info": self._capabilities(),
            "extra_body": self._extra_body(),
            **{field: self._first(field, self._params, defaults) for field in PLAIN_FIELDS},
            **{field: self._first(field, self._entry, self._params, self._info) for field in LIMIT_FIELDS},
            **self._endpoint(provider),
            **self._cloud(provider),
        }
        return self._reading.build(Deployment, values, f"{self._path}.{self._where}", {"name": "model_info.id"})

    def _read_params(self, value: object, credentials: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        path = f"{self._path}.{self._where}"
        general = f"model_list[].{self._where}"
        named = value if isinstance(value, dict) else {}
        provider, _ = split_model(str(named.get("model", "")), named.get("custom_llm_provider"))
        acted = known.PARAMS_ACTED | known.listed("body") | clouds.parameters(clouds.of(provider)) | _prices_in(value)
        others = known.listed("litellm_params") | clouds.PARAMETERS
        params = self._reading.section(value, path, acted, others, general=general)
        name = params.get("litellm_credential_name")
        if name is None:
            return params
        if name not in credentials:
            self._reading.problem(f"{path}.litellm_credential_name", f"no credential {name!r} in credential_list")
        return {**credentials.get(name, {}), **params}

    def _read_info(self, value: object) -> dict[str, Any]:
        """LiteLLM takes any key in model_info, so an unknown one is noted, unless it looks like one we act on."""
        path = f"{self._path}.model_info"
        info = self._reading.mapping(value, path)
        free = known.free_info_keys(info)
        acted = known.INFO_ACTED | _prices_in(info)
        return self._reading.section(
            info, path, acted, known.listed("model_info") | free, general="model_list[].model_info"
        )

    def _endpoint(self, provider: str) -> dict[str, Any]:
        """Where to and with what credential; as in LiteLLM, the provider's own variables serve where nothing is said.

        The credential of the environment goes to the provider's own address only: an address that the file names may
        belong to someone else. A cloud's own addresses are known by their hosts. A file that says how a deployment
        proves who calls is not overruled by a key of the environment.
        """
        base, key = self._address(), self._params.get("api_key")
        variables = known.PROVIDER_VARIABLES.get(provider)
        cloud = clouds.of(provider)
        if variables is not None and (base is None or clouds.is_own(cloud, str(base))):
            key = self._from_environment(variables.key) if not self._proven(cloud) else key
            base = base if base is not None else self._from_environment(variables.base)
        return {"api_base": base, "api_key": key}

    def _address(self) -> Yaml:
        return self._first("api_base", self._params) or self._params.get("base_url")

    def _proven(self, cloud: str | None) -> bool:
        """Whether the file itself says how the deployment proves who calls."""
        sources = clouds.CLOUDS[cloud][1].values() if cloud else ()
        own = [source.parameter for source in sources if source.credential]
        return any(self._params.get(name) is not None for name in ("api_key", *own))

    def _may_prove(self, cloud: str) -> bool:
        """Whether the environment's credentials would go to the cloud itself; signatures give nothing away."""
        base, authority = self._address(), self._params.get(clouds.AZURE["authority"].parameter)
        if cloud not in clouds.OWN_HOSTS:
            return True
        return (base is None or clouds.is_own(cloud, str(base))) and (
            authority is None or clouds.is_authority(str(authority))
        )

    def _cloud(self, provider: str) -> dict[str, Any]:
        """What its cloud wants; variables that prove who calls serve only where the file says nothing of that."""
        name = clouds.of(provider)
        if name is None:
            return {}
        model, sources, _ = clouds.CLOUDS[name]
        values = {field: self._params.get(source.parameter) for field, source in sources.items()}
        proven = self._proven(name) or not self._may_prove(name)
        for field, source in sources.items():
            if values[field] is None and not (source.credential and proven):
                values[field] = self._from_environment(source.variables)
        if isinstance(values.get("credentials"), dict):
            values["credentials"] = orjson.dumps(values["credentials"]).decode()
        return {name: self._reading.build(model, values, f"{self._path}.{self._where}", _names(sources))}

    def _from_environment(self, names: Iterable[str]) -> str | None:
        return next((self._reading.environ[name] for name in names if self._reading.environ.get(name)), None)

    def _headers(self) -> dict[str, str]:
        given = self._reading.mapping(self._params.get("extra_headers"), f"{self._path}.{self._where}.extra_headers")
        headers = {name: str(value) for name, value in given.items() if value is not None}
        if self._params.get("organization") is not None:
            headers["OpenAI-Organization"] = str(self._params["organization"])
        return headers

    def _prices(self) -> Prices | None:
        names = _prices_in(self._params) | _prices_in(self._info)
        values = {name: self._first(name, self._params, self._info) for name in sorted(names)}
        return self._reading.build(Prices, values, f"{self._path}.{self._where}")

    def _capabilities(self) -> Capabilities | None:
        """Return what model_info says the model can do; LiteLLM's older `max_tokens` is the most it writes."""
        values = {field: self._info.get(field) for field in Capabilities.model_fields}
        values["max_output_tokens"] = self._first("max_output_tokens", self._info) or self._info.get("max_tokens")
        stated = any(value is not None for value in values.values())
        names = {"max_output_tokens": "max_tokens"} if self._info.get("max_output_tokens") is None else {}
        return self._reading.build(Capabilities, values, f"{self._path}.model_info", names) if stated else None

    def _extra_body(self) -> dict[str, Any]:
        path = f"{self._path}.{self._where}.extra_body"
        named = {key: self._params[key] for key in sorted(known.listed("body")) if self._params.get(key) is not None}
        return {**named, **self._reading.mapping(self._params.get("extra_body"), path)}

    @staticmethod
    def _first(key: str, *sources: Mapping[str, Any]) -> Yaml:
        return next((source[key] for source in sources if source.get(key) is not None), None)


def _prices_in(section: object) -> frozenset[str]:
    return frozenset(str(name) for name in section if is_price(str(name))) if isinstance(section, dict) else frozenset()
