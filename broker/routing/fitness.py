"""Which deployments of an alias can serve a request, told before any call (`enable_pre_call_checks`). Pure state.

A deployment is ruled out only where it surely cannot: an ability its model is known to lack, an input that is too long
by every measure. What is not known rules nothing out, and the provider's own 400 tells the rest.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from broker.config import Alias, Capabilities, Deployment, Settings
from broker.errors import ContextLengthExceeded, InvalidRequest, RequestError
from broker.routing.capabilities import LONGER_WINDOWS, capabilities
from broker.routing.needs import Needs, has_more_words, is_trimmed
from schemas.request import CHAT, COMPLETIONS, EMBEDDINGS, RERANK, RESPONSES

SURELY_TOO_LONG: Final = 1.25
"""Words an input must have for each token of the window before it is refused without a call.

A word between white space is at least a token in the tokenizers that are published: tiktoken's patterns cut a text
before they merge (tiktoken_ext/openai_public.py), and SentencePiece does so unless told otherwise (its doc/options.md,
`split_by_whitespace`). A tokenizer that merges across spaces needs up to a third fewer tokens (SuperBPE, arXiv
2503.13423), about 0.9 a word instead of 1.3; a quarter more than the window leaves room for that. So English is refused
from about 1.6 windows on, and a script without spaces never is.
"""

WORDS_A_GUESSED_TOKEN: Final = 2
"""No text has more words than half its characters, which is twice the estimate of four characters a token."""

REFUSES_LONG_ANSWERS: Final = frozenset({"openai", "azure", "anthropic"})
"""Providers that answer 400 where more tokens are asked for than the model writes; others write less without a word."""

IGNORES_PARAMETERS: Final = frozenset({"openrouter"})
"""Providers that leave out parameters the chosen model does not have (openrouter.ai/docs, parameters)."""

MAKES_TOOLS_OF_SCHEMAS: Final = frozenset(
    {"anthropic", "azure_ai", "bedrock", "bedrock_converse", "cohere", "cohere_chat", "vertex_ai", "vertex_ai_beta"}
)
"""Providers in whose dialect a tool stands in for a schema that the model cannot be held to."""

ONE_ANSWER: Final = frozenset({"anthropic"})
"""Providers whose API has no `n`."""

SERVED: Final[Mapping[str, frozenset[str]]] = {
    CHAT: frozenset({"chat", "responses"}),
    COMPLETIONS: frozenset({"chat", "responses"}),
    RESPONSES: frozenset({"chat", "responses"}),
    EMBEDDINGS: frozenset({"embedding"}),
    RERANK: frozenset({"rerank"}),
}
"""Endpoint → what a model may be made for to serve it."""

KINDS: Final = frozenset({"chat", "responses", "embedding", "rerank"})
"""What a model may be made for; any other word of `mode` says nothing."""

RESPONSES_ALONE: Final = frozenset({"openai", "azure"})
"""Providers whose models for Responses answer 404 to a chat (`gpt-5-pro`); elsewhere the word promises less."""

_WORDS: Final = {
    "supports_function_calling": "call functions",
    "supports_parallel_function_calling": "call several functions at once",
    "supports_vision": "take images",
    "supports_pdf_input": "take PDF files",
    "supports_audio_input": "take audio",
    "supports_audio_output": "answer with audio",
    "supports_video_input": "take video",
    "supports_response_schema": "be held to a JSON schema",
    "supports_reasoning": "reason",
    "supports_web_search": "search the web",
}


@dataclass(frozen=True, slots=True)
class Lack:
    """Why a deployment cannot serve a request: what it cannot do, and the place of the body that asks for it.

    `window` is set, in tokens, where the input is too long for it.
    """

    cannot: str
    param: str
    window: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an alias can do for a request.

    `unfit` names the deployments that are not to be called; `error`, where there is no other, is why.
    """

    unfit: frozenset[str] = frozenset()
    error: RequestError | None = None


ALL_FIT: Final = Verdict()


class Fitness:
    """What the deployments of one configuration can do. Reads the data of models when it is first asked."""

    __slots__ = ("_found", "_settings")

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._found: dict[str, Capabilities] = {}
        if any(alias.enable_pre_call_checks for alias in settings.aliases.values()):
            # Now, while nobody waits: it takes some milliseconds.
            for alias in settings.aliases.values():
                for deployment in alias.deployments:
                    self.of(deployment)

    def of(self, deployment: Deployment) -> Capabilities:
        """Return what the deployment can do."""
        found = self._found.get(deployment.name)
        if found is None:
            found = self._found[deployment.name] = capabilities(deployment)
        return found

    def judge(self, alias: Alias, needs: Needs, body: Mapping[str, Any]) -> Verdict:
        """Tell which deployments of `alias` are not to be called for this request.

        Where none is left that can serve it, the error is `ContextLengthExceeded` when a larger window would do, else
        `InvalidRequest`. Where it is only likely that the input does not fit, it goes to those it fits, if any.
        """
        lacks: dict[str, Lack] = {}
        tight: list[str] = []
        for deployment in alias.deployments:
            can = self.of(deployment)
            lack = _lacking(deployment, can, needs) or _too_long(deployment, can, needs, body)
            if lack is not None:
                lacks[deployment.name] = lack
            elif _is_tight(deployment, can, needs):
                tight.append(deployment.name)
        if not lacks and not tight:
            return ALL_FIT
        if len(lacks) == len(alias.deployments):
            return Verdict(frozenset(lacks), _error(alias, needs, lacks.values()))
        roomy = len(alias.deployments) > len(lacks) + len(tight)
        return Verdict(frozenset((*lacks, *tight)) if roomy else frozenset(lacks))


def _lacking(deployment: Deployment, can: Capabilities, needs: Needs) -> Lack | None:
    """Return what the model cannot do, whatever the length of the input."""
    if not _serves_endpoint(deployment, can, needs.endpoint):
        return Lack(f"serve {needs.endpoint}", "endpoint")
    for ability, place in needs.abilities:
        if getattr(can, ability) is False and not _does_without(deployment, can, ability, place):
            return Lack(_WORDS[ability], place)
    if needs.answers > 1 and deployment.provider in ONE_ANSWER and not _drops(deployment, "n"):
        return Lack("give more than one answer", "n")
    bound, most = needs.output_tokens, can.max_output_tokens
    if (
        bound is not None
        and most is not None
        and bound > most
        and needs.endpoint == CHAT
        and deployment.provider in REFUSES_LONG_ANSWERS
        and not _drops(deployment, needs.output_param)
        and not _has_header(deployment, LONGER_WINDOWS)
    ):
        return Lack(f"write {bound} tokens (at most {most})", needs.output_param)
    return None


def _serves_endpoint(deployment: Deployment, can: Capabilities, endpoint: str) -> bool:
    served = SERVED.get(endpoint)
    if served is None or can.mode not in KINDS:
        return True
    if can.mode == "responses" and endpoint in {CHAT, COMPLETIONS}:
        return deployment.provider not in RESPONSES_ALONE
    return can.mode in served


def _does_without(deployment: Deployment, can: Capabilities, ability: str, place: str) -> bool:
    """Whether the request can be served although the model lacks an ability: the parameter is not sent, or replaced."""
    if "." in place:
        return False  # a part of a message is never left out
    if _drops(deployment, place) or deployment.provider in IGNORES_PARAMETERS:
        return True
    return (
        ability == "supports_response_schema"
        and deployment.provider in MAKES_TOOLS_OF_SCHEMAS
        and can.supports_function_calling is not False
    )


def _drops(deployment: Deployment, param: str) -> bool:
    return deployment.drop_params or param in deployment.additional_drop_params


def _has_header(deployment: Deployment, name: str) -> bool:
    return any(each.lower() == name for each in deployment.headers)


def _trims(deployment: Deployment, needs: Needs) -> bool:
    """Whether what is too long is cut, by the caller's wish, by the configuration's, or as embedding servers do."""
    if needs.trimmed or is_trimmed(deployment.extra_body):
        return True
    return needs.endpoint == EMBEDDINGS and deployment.provider not in REFUSES_LONG_ANSWERS


def _too_long(deployment: Deployment, can: Capabilities, needs: Needs, body: Mapping[str, Any]) -> Lack | None:
    window = can.max_input_tokens
    if window is None or needs.input_tokens * WORDS_A_GUESSED_TOKEN <= window or _trims(deployment, needs):
        return None
    if not has_more_words(needs.endpoint, body, int(window * SURELY_TOO_LONG)):
        return None
    return Lack("", _INPUTS.get(needs.endpoint, "input"), window)


def _is_tight(deployment: Deployment, can: Capabilities, needs: Needs) -> bool:
    """Whether input and asked output together are likely to be over the window."""
    window = can.max_input_tokens
    return (
        window is not None
        and needs.input_tokens + (needs.output_tokens or 0) > window
        and not _trims(deployment, needs)
    )


_INPUTS: Final = {CHAT: "messages", COMPLETIONS: "prompt"}


def _error(alias: Alias, needs: Needs, lacks: Iterable[Lack]) -> RequestError:
    windows = [(lack.window, lack.param) for lack in lacks if lack.window is not None]
    if windows:
        window, param = max(windows)
        return ContextLengthExceeded(
            f"the input has about {needs.input_tokens} tokens; the largest context window of alias {alias.name} takes "
            f"{window}",
            param=param,
        )
    first = next(iter(lacks))
    return InvalidRequest(f"no deployment of alias {alias.name} can {first.cannot}", param=first.param)
