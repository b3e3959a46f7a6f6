"""`modalign chat MODEL --image x.jpg "question"`: one question, or a conversation at the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from ..console import console
from ..data_kind import DIALOGUE
from ..device import pick_device
from ..kinds import only


def chat(
    model: str,
    question: str = "",
    image: list[str] | None = None,
    device: str = "auto",
    system: str | None = None,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    top_p: float = 1.0,
    stream: bool = True,
) -> None:
    """Asks a model about pictures.

    Without a question it is a conversation: a line is a turn, `/image FILE` shows another picture, `/new` begins anew, an empty line ends.

    Args:
        model: A run folder, a release, or a LLaVA folder of transformers.
        question: What to ask.
        image: A picture, or several.
        device: Where to compute: cpu, cuda, cuda:1, mps; default the fastest there is.
        system: A system message; default the model's own.
        max_new_tokens: Most tokens of an answer.
        temperature: 0 takes the likeliest token each time; above 0 tokens are drawn.
        top_p: With a temperature, draw among the likeliest tokens with this share of the probability.
        stream: Print an answer as it comes.
    """
    from modalign import zoo
    from modalign.zoo.stack.generate import Decoding
    from modalign.zoo.stack.talk import Talk

    loaded = only(zoo.load(model, pick_device(device)), DIALOGUE, "chat")
    if system is not None:
        loaded.config.chat.system = system
    talk = Talk(loaded, Decoding(max_new_tokens, temperature, top_p))
    for file in image or []:
        talk.show(opened(file), file)
    if question:
        _answer(talk, question, stream)
        return
    console.print("a line is a turn; /image FILE shows a picture, /new begins anew, an empty line ends")
    _converse(talk, stream, sys.stdin.readline)


def opened(file: str) -> Any:
    """A picture of a file.

    Raises:
        DataError: If there is none, or it cannot be read.
    """
    from pathlib import Path

    from modalign.datasets.decoding.table import decode_image
    from modalign.zoo.errors import DataError

    path = Path(file)
    if not path.is_file():
        raise DataError(f"{file}: there is no such file; give the path of a picture")
    try:
        return decode_image(path.read_bytes())
    except DataError as error:
        raise DataError(f"{file}: {error}") from None


def _answer(talk: Any, question: str, stream: bool) -> None:
    if not stream:
        print(talk.ask(question))
        return
    for piece in talk.stream(question):
        print(piece, end="", flush=True)
    print()


def _converse(talk: Any, stream: bool, read: Callable[[], str]) -> None:
    from modalign.zoo.errors import ModalignError

    while True:
        print("> ", end="", flush=True)
        line = read().strip()
        if not line:
            return
        try:
            _one(talk, line.split(maxsplit=1), line, stream)
        except ModalignError as error:
            print(f"error: {error}", file=sys.stderr)


def _one(talk: Any, words: Sequence[str], line: str, stream: bool) -> None:
    if words[0] == "/new":
        talk.forget()
    elif words[0] == "/image":
        talk.show(opened(words[1] if len(words) > 1 else ""), words[-1])
    else:
        _answer(talk, line, stream)
