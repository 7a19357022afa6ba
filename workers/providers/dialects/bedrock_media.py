"""Images, documents, videos and sounds of an OpenAI message as Converse's blocks. Pure.

Converse takes bytes or an object in S3, and nothing else that stands at a URL. Formats are those of botocore's model.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from broker.errors import InvalidRequest
from workers.providers.catalog import ResolvedDeployment
from workers.providers.conversation import Media, bad, media
from workers.providers.dialect import cannot_take

Block = dict[str, Any]

IMAGES: Final = {
    "image/png": "png", "image/jpeg": "jpeg", "image/jpg": "jpeg", "image/gif": "gif", "image/webp": "webp",
}  # fmt: skip
VIDEOS: Final = {
    "video/x-matroska": "mkv", "video/mkv": "mkv", "video/quicktime": "mov", "video/mov": "mov", "video/mp4": "mp4",
    "video/webm": "webm", "video/x-flv": "flv", "video/flv": "flv", "video/mpeg": "mpeg", "video/mpg": "mpg",
    "video/x-ms-wmv": "wmv", "video/wmv": "wmv", "video/3gpp": "three_gp", "video/3gp": "three_gp",
}  # fmt: skip
DOCUMENTS: Final = {
    "application/pdf": "pdf", "text/csv": "csv", "application/csv": "csv", "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx", "text/html": "html",
    "text/plain": "txt", "text/markdown": "md", "text/x-markdown": "md",
}  # fmt: skip
SOUNDS: Final = frozenset(
    {"mp3", "opus", "wav", "aac", "flac", "mp4", "ogg", "mkv", "mka", "x-aac", "m4a", "mpeg", "mpga", "pcm", "webm"}
)
EXTENSIONS: Final = {
    **{form: ("image", form) for form in IMAGES.values()},
    "jpg": ("image", "jpeg"),
    **{form: ("video", form) for form in VIDEOS.values()},
    "3gp": ("video", "three_gp"),
    **{form: ("document", form) for form in DOCUMENTS.values()},
    "htm": ("document", "html"),
    "markdown": ("document", "md"),
}
"""Block and format by the extension of a file or an object's key."""
KINDS: Final = {
    **{kind: ("image", form) for kind, form in IMAGES.items()},
    **{kind: ("video", form) for kind, form in VIDEOS.items()},
    **{kind: ("document", form) for kind, form in DOCUMENTS.items()},
}
"""Block and format by media type."""

MAX_NAME: Final = 200
S3: Final = "s3://"


class Names:
    """Names of documents: unique in a request, and neutral, of letters, digits, spaces, `-`, `()` and `[]`."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def neutral(self, name: str) -> str:
        """Return a name made of `name` that is not taken yet; its extension is left out, the format tells it."""
        stem = name.rpartition(".")[0] or name
        plain = re.sub(r"[^A-Za-z0-9()\[\]-]+", " ", stem).strip()[: MAX_NAME - 8].strip() or "document"
        found, number = plain, 1
        while found in self._taken:
            number += 1
            found = f"{plain} {number}"
        self._taken.add(found)
        return found


def block_of(target: ResolvedDeployment, part: Mapping[str, Any], param: str, names: Names) -> Block | None:
    """Return the block of a part of type `image_url`, `video_url`, `input_audio` or `file`.

    Raises `InvalidRequest` naming its place for a format Converse does not have, and for what still stands at a URL;
    where the deployment drops what it cannot take, that is None.
    """
    kind = part["type"]
    stored = _in_s3(part, kind)
    if stored is not None:
        return _stored(stored, kind, param, names)
    found = _film(part, param) if kind == "video_url" else media(part, param)
    place = f"{param}.{kind}" + (".url" if kind.endswith("_url") else "")
    if found.url:
        cannot_take(target, place, "Bedrock takes bytes (a data URL) or an s3:// URL")
        return None
    if not found.data:
        bad(place, "it is empty")
    if kind == "input_audio":
        form = found.media_type.removeprefix("audio/")
        if form not in SOUNDS:
            bad(f"{param}.input_audio.format", f"Bedrock takes {', '.join(sorted(SOUNDS))}")
        return {"audio": {"format": form, "source": {"bytes": found.data}}}
    return _written(_shape(found, kind, place), {"bytes": found.data}, found.name, names)


def _film(part: Mapping[str, Any], param: str) -> Media:
    """Read a `video_url`, which OpenAI has no part for: LiteLLM's users write it as they write an image."""
    try:
        return media({"type": "image_url", "image_url": part.get("video_url")}, param)
    except InvalidRequest as error:
        place = str(error.param).replace(".image_url", ".video_url")
        bad(place, error.message.partition(": ")[2])


def _shape(found: Media, kind: str, place: str) -> tuple[str, str]:
    media_type = found.media_type.lower()
    extension = found.name.rpartition(".")[2].lower()
    shape = KINDS.get(media_type)
    if kind == "file" and extension in EXTENSIONS and media_type in {"application/octet-stream", "application/pdf"}:
        shape = EXTENSIONS[extension]  # bytes without a type of their own count as a PDF until their name says more
    if shape is None:
        bad(place, f"Bedrock does not take {found.media_type}")
    if kind != "file" and shape[0] == "document":
        bad(place, f"{found.media_type} is a document: send it as a file")
    return shape


def _in_s3(part: Mapping[str, Any], kind: str) -> str | None:
    value = part.get(kind)
    listed = [value.get(name) for name in ("url", "file_data", "file_id")] if isinstance(value, dict) else [value]
    return next((each for each in listed if isinstance(each, str) and each.startswith(S3)), None)


def _stored(uri: str, kind: str, param: str, names: Names) -> Block:
    name = uri.rpartition("/")[2]
    extension = name.rpartition(".")[2].lower()
    if extension not in EXTENSIONS:
        bad(f"{param}.{kind}", "the object's key has to end in the format it has, as .png or .pdf")
    return _written(EXTENSIONS[extension], {"s3Location": {"uri": uri}}, name, names)


def _written(shape: tuple[str, str], source: Block, name: str, names: Names) -> Block:
    kind, form = shape
    block: Block = {"format": form, "source": source}
    if kind == "document":
        block["name"] = names.neutral(name)
    return {kind: block}
