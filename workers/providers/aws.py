"""Where a Bedrock deployment is called and in which region, and how LiteLLM's users spell its model. Pure.

Sources: docs.aws.amazon.com/general/latest/gr/bedrock.html for endpoints, docs.litellm.ai/docs/providers/bedrock for
spellings.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from broker.config import Deployment
from broker.errors import ConfigError
from workers.providers.place import Place, url_parts
from workers.providers.provider import Provider

SUFFIXES: Final = (
    ("cn-", "amazonaws.com.cn"), ("eusc-", "amazonaws.eu"), ("us-isob-", "sc2s.sgov.gov"),
    ("us-isof-", "csp.hci.ic.gov"), ("us-iso-", "c2s.ic.gov"), ("eu-isoe-", "cloud.adc-e.uk"), ("", "amazonaws.com"),
)  # fmt: skip
"""Beginning of a region's name and the domain of its partition: botocore's `partitions.json`."""

ROUTES: Final = frozenset(
    {"bedrock", "bedrock_converse", "converse", "converse_like", "invoke", "1-month-commitment", "6-month-commitment"}
)
"""LiteLLM's words for a provider (of a `base_model`), an API or a price, before the model. Converse serves them all."""
FAMILIES: Final = {
    "anthropic": "anthropic.claude", "llama": "meta.llama", "nova": "amazon.nova", "nova-2": "amazon.nova-2",
    "deepseek_r1": "deepseek.r1", "qwen2": "qwen.qwen2", "qwen3": "qwen.qwen3", "openai": "openai.gpt-oss",
}  # fmt: skip
"""LiteLLM's words for the family of a model that an ARN names, and the beginning of that family's ids."""

_REGION: Final = re.compile(r"[a-z]{2,4}(-[a-z]+)+-\d{1,2}")
_HOST: Final = re.compile(r"[a-z0-9.-]*\bbedrock-runtime(?:-fips)?\.(" + _REGION.pattern + r")\.")
_ARN_REGION: Final = 3


@dataclass(frozen=True, slots=True)
class Spelled:
    """A model as it is written in the configuration. Empty texts where it says nothing."""

    id: str
    """What Bedrock calls it: an id, an inference profile, an ARN."""
    family: str
    """The beginning of the ids of its family, where the spelling tells one."""
    region: str


@lru_cache(maxsize=4096)
def spelled(model: str) -> Spelled:
    """Take a model's spelling apart: `converse/…`, `us-east-1/…`, `nova/arn:…`, in any order before the id."""
    family = region = ""
    rest = model
    while not rest.startswith("arn:") and "/" in rest:
        head, _, tail = rest.partition("/")
        if head in FAMILIES:
            family = FAMILIES[head]
        elif _REGION.fullmatch(head):
            region = head
        elif head not in ROUTES:
            break
        rest = tail
    parts = rest.split(":") if rest.startswith("arn:") else []
    return Spelled(rest, family, region or (parts[_ARN_REGION] if len(parts) > _ARN_REGION else ""))


def region(deployment: Deployment) -> str:
    """Return the region that serves a deployment: its model's spelling tells, then the configuration, then its address.

    Empty where nobody does.
    """
    named = spelled(deployment.model).region or (deployment.aws.region if deployment.aws else None)
    if named:
        return named
    found = _HOST.match(urlsplit(_own_address(deployment) or "").hostname or "")
    return found.group(1) if found else ""


def place(deployment: Deployment, provider: Provider) -> Place:
    """Return where a deployment is called, and check that its calls can be authorised.

    Raises `ConfigError` naming the deployment and the parameter that is missing.
    """
    aws, where = deployment.aws, region(deployment)
    if deployment.api_key is None:
        given = {
            "aws_access_key_id": aws.access_key_id if aws else None,
            "aws_secret_access_key": aws.secret_access_key if aws else None,
        }
        missing = [name for name, value in given.items() if value is None or not value.get_secret_value().strip()]
        if missing:
            raise ConfigError(
                f"deployment {deployment.name}: bedrock needs `{missing[0]}`, or a Bedrock API key in `api_key`"
            )
    own = _own_address(deployment)
    if not where and (deployment.api_key is None or own is None):
        raise ConfigError(f"deployment {deployment.name}: bedrock needs `aws_region_name`")
    suffix = next(domain for beginning, domain in SUFFIXES if where.startswith(beginning))
    base = (own or f"https://bedrock-runtime.{where}.{suffix}").strip().rstrip("/")
    url_parts(base, deployment, "api_base")
    return Place(base, provider)


def _own_address(deployment: Deployment) -> str | None:
    return deployment.api_base or (deployment.aws.endpoint if deployment.aws else None)
