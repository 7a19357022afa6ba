"""OpenAI's moderations, images and audio.

Sources: platform.openai.com/docs/api-reference/moderations, …/images/create,
…/audio/createSpeech and …/audio/createTranscription.
"""

import struct as packing
import zlib
from base64 import b64encode
from collections.abc import Iterator, Mapping
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any, Final

from broker.simulate import samples
from broker.simulate.answers import Answer, Wanted
from broker.simulate.api import Body, Job, Refused, Sent, refuse, route, sse
from broker.simulate.openai_shapes import image_url
from broker.simulate.openai_words import OPENAI, authorize
from broker.simulate.shapes import (
    FILLED,
    TEXT,
    Shape,
    anything,
    boolean,
    either,
    integer,
    listed,
    number,
    one_of,
    struct,
    tagged,
    text,
)

CATEGORIES: Final = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm",
    "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip
MODERATIONS: Final[Mapping[str, Shape]] = {
    "model": TEXT,
    "input": either(
        TEXT,
        listed(TEXT, 1),
        listed(
            tagged(
                "type",
                {
                    "text": struct({"type": TEXT, "text": TEXT}, "text"),
                    "image_url": struct({"type": TEXT, "image_url": struct({"url": image_url}, "url")}, "image_url"),
                },
            ),
            1,
        ),
    ),
}
IMAGES: Final[Mapping[str, Shape]] = {
    "prompt": text(1, 32_000),
    "model": TEXT,
    "background": one_of("transparent", "opaque", "auto"),
    "complexity": anything,
    "frame_count": integer(1),
    "frame_duration_ms": integer(1),
    "moderation": one_of("low", "auto"),
    "n": integer(1, 10),
    "output_compression": integer(0, 100),
    "output_format": one_of("png", "jpeg", "webp", "gif", "svg"),
    "partial_images": integer(0, 3),
    "quality": one_of("standard", "hd", "low", "medium", "high", "auto"),
    "response_format": one_of("url", "b64_json"),
    "safety_identifier": TEXT,
    "size": TEXT,
    "stream": boolean,
    "style": one_of("vivid", "natural"),
    "svg": anything,
    "user": TEXT,
}
SPEECH: Final[Mapping[str, Shape]] = {
    "input": text(1, 4096),
    "model": FILLED,
    "voice": either(FILLED, struct({"id": FILLED}, "id")),
    "instructions": text(0, 4096),
    "response_format": one_of("mp3", "opus", "aac", "flac", "wav", "pcm"),
    "speed": number(0.25, 4),
    "stream_format": one_of("sse", "audio"),
}
SOUNDS: Final = frozenset({"flac", "m4a", "mp3", "mp4", "mpeg", "mpga", "oga", "ogg", "wav", "webm"})
FORMS: Final = frozenset({"json", "text", "srt", "verbose_json", "vtt", "diarized_json"})
TRANSCRIPTION: Final = frozenset(
    {
        "chunking_strategy", "file", "include[]", "keywords[]", "known_speaker_names[]", "known_speaker_references[]",
        "language", "languages[]", "model", "prompt", "response_format", "stream", "temperature",
        "timestamp_granularities[]",
    }
)  # fmt: skip
"""Fields of the form; a list repeats its name with `[]`."""
WORDS: Final = "the quick brown fox"


def moderations(sent: Sent) -> Job:
    """Check a moderation request: what holds the word `violence` is flagged for it."""
    body: Body = sent.body()
    struct(MODERATIONS, "input")(body, ())
    given = body["input"]
    inputs = given if isinstance(given, list) else [given]
    if inputs and isinstance(inputs[0], dict):
        inputs = [" ".join(str(part.get("text", "")) for part in inputs)]
    wanted = Wanted(body.get("model") or "omni-moderation-latest", "".join(map(str, inputs)), generates=False)

    def whole(answer: Answer) -> dict[str, Any]:
        results = []
        for told in inputs:
            hit = "violence" in str(told).lower()
            flags = {name: hit and name == "violence" for name in CATEGORIES}
            results.append(
                {
                    "flagged": hit,
                    "categories": flags,
                    "category_scores": {name: 0.97 if flag else 0.0001 for name, flag in flags.items()},
                    "category_applied_input_types": {name: ["text"] for name in CATEGORIES},
                }
            )
        return {"id": f"modr-{answer.plan.identity}", "model": wanted.model, "results": results}

    return Job(wanted, whole)


def images(sent: Sent) -> Job:
    """Check a request for pictures."""
    body: Body = sent.body()
    struct(IMAGES, "prompt")(body, ())
    model = body.get("model") or "dall-e-2"
    dalle = model.startswith("dall-e")
    if model == "dall-e-3" and (body.get("n") or 1) > 1:
        refuse("Invalid 'n': integer above maximum value. Expected a value <= 1.", "n", "integer_above_max_value")
    if not dalle and body.get("response_format") is not None:
        refuse("Unknown parameter: 'response_format'.", "response_format", "unknown_parameter")
    size = body.get("size") or "1024x1024"
    if size != "auto" and not all(part.isdigit() for part in size.split("x")):
        refuse(f"Invalid value: '{size}'. Supported values are: '1024x1024' and others.", "size", "invalid_value")
    count, by_url = body.get("n") or 1, dalle and body.get("response_format") != "b64_json"
    wanted = Wanted(model, body["prompt"], streams=body.get("stream") is True, generates=False)

    def whole(answer: Answer) -> dict[str, Any]:
        picture: dict[str, Any] = {"b64_json": b64encode(png()).decode()}
        if by_url:
            picture = {"url": f"https://simulated.invalid/{answer.plan.identity}.png"}
        told: dict[str, Any] = {"created": answer.plan.created, "data": [picture] * count}
        if not dalle:
            told |= {
                "background": "opaque",
                "output_format": "png",
                "quality": "low",
                "size": size if size != "auto" else "1024x1024",
            }
            told["usage"] = _picture_usage(answer, count)
        return told

    def events(answer: Answer) -> Iterator[bytes]:
        kind = "image_generation.completed"
        fields = {"background": "opaque", "created_at": answer.plan.created, "output_format": "png", "quality": "low",
                  "size": "1024x1024", "b64_json": b64encode(png()).decode(),
                  "usage": _picture_usage(answer, 1)}  # fmt: skip
        yield sse({"type": kind, **fields}, kind)

    return Job(wanted, whole, None if dalle else events)


def _picture_usage(answer: Answer, count: int) -> dict[str, Any]:
    prompt, told = answer.prompt_tokens, 272 * count
    return {"input_tokens": prompt, "input_tokens_details": {"text_tokens": prompt, "image_tokens": 0},
            "output_tokens": told, "total_tokens": prompt + told}  # fmt: skip


def png() -> bytes:
    """Return a picture of one grey pixel."""

    def part(kind: bytes, data: bytes) -> bytes:
        return packing.pack(">I", len(data)) + kind + data + packing.pack(">I", zlib.crc32(kind + data))

    header = packing.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(b"\x00\x80")) + part(b"IEND", b"")


def speech(sent: Sent) -> Job:
    """Check a request for speech: whatever the format, a tiny WAV of silence answers it."""
    body: Body = sent.body()
    struct(SPEECH, "input", "model", "voice")(body, ())
    wanted = Wanted(body["model"], body["input"], streams=body.get("stream_format") == "sse", generates=False)

    def events(answer: Answer) -> Iterator[bytes]:
        yield sse({"type": "speech.audio.delta", "audio": b64encode(samples.wav()).decode()})
        usage = {"input_tokens": answer.prompt_tokens, "output_tokens": 2, "total_tokens": answer.prompt_tokens + 2}
        yield sse({"type": "speech.audio.done", "usage": usage})

    return Job(wanted, lambda _: samples.wav(), events, media="audio/wav")


def _form(sent: Sent) -> tuple[dict[str, str], tuple[str, bytes] | None]:
    """Return the fields of a multipart form, and name and bytes of its file. Raises `Refused`."""
    media = sent.headers.get("content-type", "")
    if not media.startswith("multipart/form-data"):
        raise Refused(f"Unsupported content type: '{media}'. This API method only accepts 'multipart/form-data'.")
    told = BytesParser(policy=HTTP).parsebytes(b"content-type: " + media.encode("latin-1") + b"\r\n\r\n" + sent.raw)
    fields: dict[str, str] = {}
    file = None
    for part in told.iter_parts():
        name, data = part.get_param("name", header="content-disposition"), part.get_payload(decode=True)
        raw = data if isinstance(data, bytes) else b""
        if part.get_filename() is not None and name == "file":
            file = (str(part.get_filename()), raw)
        else:
            fields[str(name)] = raw.decode("utf-8", "replace")
    return fields, file


def _sound(sent: Sent) -> tuple[dict[str, str], bytes]:
    """Return the fields of a form and the sound it brings. Raises `Refused`."""
    fields, file = _form(sent)
    for name in fields:
        if name not in TRANSCRIPTION:
            refuse(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
    if file is None or not file[1]:
        refuse("Missing required parameter: 'file'.", "file", "missing_required_parameter")
    if not fields.get("model"):
        refuse("you must provide a model parameter", "model", "missing_required_parameter")
    if file[0].rpartition(".")[2].lower() not in SOUNDS:
        refuse(f"Unrecognized file format. Supported formats: {sorted(SOUNDS)}", "file", "invalid_value")
    return fields, file[1]


def transcriptions(sent: Sent) -> Job:
    """Check a sound that is to be written down."""
    fields, sound = _sound(sent)
    form = fields.get("response_format") or "json"
    if form not in FORMS:
        refuse(f"Invalid value: '{form}'. Supported values are: {sorted(FORMS)}.", "response_format", "invalid_value")
    _temperature(fields.get("temperature"))
    wanted = Wanted(
        fields["model"], fields.get("prompt") or "", streams=fields.get("stream") == "true", generates=False
    )
    tokens = max(1, len(sound) // 320)

    def whole(answer: Answer) -> object:
        del answer
        if form in {"text", "srt", "vtt"}:
            return {"text": WORDS + "\n", "srt": f"1\n00:00:00,000 --> 00:00:01,000\n{WORDS}\n",
                    "vtt": f"WEBVTT\n\n00:00.000 --> 00:01.000\n{WORDS}\n"}[form].encode()  # fmt: skip
        if form == "verbose_json":
            segment = {"id": 0, "seek": 0, "start": 0.0, "end": 1.0, "text": WORDS, "tokens": [1], "temperature": 0.0,
                       "avg_logprob": -0.1, "compression_ratio": 1.0, "no_speech_prob": 0.01}  # fmt: skip
            return {"task": "transcribe", "language": "english", "duration": 1.0, "text": WORDS, "segments": [segment],
                    "usage": {"type": "duration", "seconds": 1}}  # fmt: skip
        return {"text": WORDS, "usage": _heard(tokens)}

    def events(answer: Answer) -> Iterator[bytes]:
        for piece in answer.pieces(WORDS):
            yield sse({"type": "transcript.text.delta", "delta": piece})
        yield sse({"type": "transcript.text.done", "text": WORDS, "usage": _heard(tokens)})

    plain = form in {"text", "srt", "vtt"}
    return Job(wanted, whole, events, media="text/plain; charset=utf-8" if plain else "application/json")


def _temperature(told: str | None) -> None:
    try:
        good = told is None or 0 <= float(told) <= 1
    except ValueError:
        good = False
    if not good:
        refuse("Invalid 'temperature': expected a number between 0 and 1.", "temperature", "invalid_value")


def _heard(tokens: int) -> dict[str, Any]:
    return {"type": "tokens", "input_tokens": tokens, "output_tokens": 5, "total_tokens": tokens + 5,
            "input_token_details": {"text_tokens": 0, "audio_tokens": tokens}}  # fmt: skip


ROUTES: Final = (
    route(OPENAI, "/v1/moderations", authorize, moderations),
    route(OPENAI, "/v1/images/generations", authorize, images),
    route(OPENAI, "/v1/audio/speech", authorize, speech),
    route(OPENAI, "/v1/audio/transcriptions", authorize, transcriptions),
)
