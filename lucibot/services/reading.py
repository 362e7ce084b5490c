"""The object in what a model says: models think aloud before it, fence it in, or say too much."""

from __future__ import annotations

import json
import re
from typing import TypeVar

from pydantic import BaseModel, ValidationError

A = TypeVar("A", bound=BaseModel)

NO_OBJECT = "it holds no JSON object"
THOUGHT = re.compile(r".*</(?:think|thinking|thought|reasoning)>", re.DOTALL | re.IGNORECASE)
"""What some models write before their answer."""


def read_answer(answer: type[A], text: str) -> tuple[str, str]:
    """The JSON object of type `answer` in a text, and what is wrong ("" if nothing), in words that
    its author understands. Of several objects the last one that is valid is taken."""
    text = without_thought(text)
    found = objects(text)
    if not found:
        return "", NO_OBJECT
    for one in reversed(found):
        try:
            answer.model_validate_json(one)
        except ValidationError:
            continue
        return one, ""
    try:
        answer.model_validate_json(found[-1])
    except ValidationError as e:
        told = [f"{'.'.join(map(str, x['loc'])) or 'answer'}: {x['msg']}" for x in e.errors()[:5]]
        return "", "; ".join(told)
    raise AssertionError("one of them was valid")


def without_thought(text: str) -> str:
    return THOUGHT.sub("", text, count=1).strip()


def objects(text: str) -> list[str]:
    """The JSON objects in a text that lie in no other one, as they are written."""
    decoder, found, at = json.JSONDecoder(), [], text.find("{")
    while at >= 0:
        try:
            _, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            found.append(text[at:end])
        at = text.find("{", end)
    return found
