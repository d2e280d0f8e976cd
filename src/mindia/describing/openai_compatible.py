"""Describers of pictures behind an HTTP interface like OpenAI's."""

from __future__ import annotations

import base64
import re
import zlib
from datetime import timedelta

from mindia._http import JsonClient
from mindia.describing.base import Picture, check_frames
from mindia.describing.metadata import MetadataDescriber
from mindia.embedding.base import checked_model_name
from mindia.errors import InvalidError, ProviderError

PROMPT = (
    "Describe this picture for a search index in one to three plain sentences: what and who is to be seen, doing what, "
    "where, and any text that can be read. No introduction, no guesses."
)

_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)


class OpenAICompatibleDescriber(MetadataDescriber):
    """Asks `POST {base_url}/chat/completions` of a model that sees: OpenAI, Ollama, vLLM, LM Studio, llama.cpp, others.

    It is shown images and frames of videos, made small, and nothing else of an item: neither its name nor what persons
    say. What it says is untrusted text: whatever can be read in a picture may steer it. It is kept apart from what
    persons say, and is searched with the rest.

    Args:
        model: The name by which the server knows the model.
        base_url: Where the server is: `https://api.openai.com/v1`, `http://localhost:11434/v1` for Ollama.
        api_key_env: The name of the environment variable that has the key; None where the server wants none.
        prompt: What the model is asked.
        max_side: The longest side of the pictures that are sent, in pixels.
        max_tokens: How long an answer may be.
        frame_interval: The time between two frames of a video.
        max_frames: How many frames of a video are sent at most; those of a long one are further apart.
        timeout_s: How long one request may take.
        max_retries: How often a request is repeated that failed for a reason that passes.
        name: Names the descriptions; by default the model, with a mark of what else changes them. Where it changes,
            `library.index.reindex("all")` has pictures described anew.

    Raises:
        InvalidError: An argument is not what it should be.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str,
        api_key_env: str | None = None,
        prompt: str = PROMPT,
        max_side: int = 768,
        max_tokens: int = 300,
        frame_interval: timedelta = timedelta(seconds=10),
        max_frames: int = 12,
        timeout_s: float = 120.0,
        max_retries: int = 2,
        name: str | None = None,
    ) -> None:
        check_frames(max_side=max_side, frame_interval=frame_interval, max_frames=max_frames)
        if max_tokens < 1:
            raise InvalidError(f"max_tokens must be at least 1, not {max_tokens}")
        self._client = JsonClient(base_url, api_key_env=api_key_env, timeout_s=timeout_s, max_retries=max_retries)
        self._model = model
        self._prompt = prompt
        self._max_tokens = max_tokens
        self.max_side = max_side
        self.frame_interval = frame_interval
        self.max_frames = max_frames
        mark = "" if prompt == PROMPT else f"+{zlib.crc32(prompt.encode()):08x}"
        self.model_name = checked_model_name(name if name is not None else f"{model}{mark}")

    def __repr__(self) -> str:
        return f"<OpenAICompatibleDescriber {self.model_name!r} at {self._client.base_url}>"

    def describe_picture(self, picture: Picture) -> str:
        """Return what there is to see.

        Raises:
            ProviderError: The server refused, cannot be reached, or said nothing.
        """
        url = f"data:image/jpeg;base64,{base64.b64encode(picture.content).decode()}"
        answer = self._client.post(
            "chat/completions",
            {
                "model": self._model,
                "max_tokens": self._max_tokens,
                "temperature": 0,
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": self._prompt},
                            {"type": "image_url", "image_url": {"url": url}},
                        ],
                    }
                ],
            },
        )
        said = _said(answer)
        if not said:
            raise ProviderError(f"{self!r} said nothing of the picture", status=200)
        return said


def _said(answer: object) -> str:
    try:
        content = answer["choices"][0]["message"]["content"]  # type: ignore[index]  # of whatever the server sent
    except (KeyError, IndexError, TypeError):
        return ""
    if isinstance(content, list):
        content = " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return _THOUGHT.sub("", content).strip() if isinstance(content, str) else ""
