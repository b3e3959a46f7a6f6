"""A conversation with a model: pictures are shown, questions asked, answers remembered."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import torch
from PIL import Image

from ..errors import DataError
from ..language.turns import Dialogue, ImagePart, Part, TextPart, Turn
from .generate import Decoding, Prompt, answers, generate, to_device

_PATIENCE = 600.0  # seconds for the next piece of an answer


class Talk:
    """One conversation.

    Args:
        model: A stack, in eval mode.
        decoding: How tokens are chosen.
    """

    def __init__(self, model: Any, decoding: Decoding | None = None) -> None:
        self.model, self.decoding = model, decoding or Decoding()
        self.turns: list[Turn] = []
        self.images: list[Image.Image] = []
        self._waiting: list[int] = []  # pictures that no question has shown yet

    def forget(self) -> None:
        """Begins anew, without pictures."""
        self.turns, self.images, self._waiting = [], [], []

    def show(self, image: Image.Image, name: str = "the picture") -> None:
        """Shows a picture with the next question.

        Args:
            image: The picture.
            name: What messages call it.

        Raises:
            DataError: If it is no picture.
        """
        if not isinstance(image, Image.Image):
            raise DataError(f"{name}: a PIL picture is wanted, not {type(image).__name__}; open its file with Image.open")
        self.images.append(image)
        self._waiting.append(len(self.images) - 1)

    def ask(self, question: str) -> str:
        """Asks, and remembers question and answer.

        Raises:
            DataError: If the conversation does not fit the model.
        """
        asked = self.asked(question)
        answer = answers(self.model, [Prompt(asked, self.images)], self.decoding)[0]
        self._remember(asked, answer)
        return answer

    def stream(self, question: str) -> Iterator[str]:
        """Asks; gives the answer piece by piece, and remembers it at the end.

        Raises:
            DataError: If the conversation does not fit the model.
        """
        from transformers import TextIteratorStreamer

        asked = self.asked(question)
        example = self.model.prepare()("prompt", asked, self.images, prompt=True)
        batch = to_device(self.model.collate("left")([example]), self.model.device)
        streamer = TextIteratorStreamer(
            self.model.language.tokenizer, skip_prompt=False, timeout=_PATIENCE, skip_special_tokens=True
        )
        failed: list[BaseException] = []

        def run() -> None:
            try:
                with torch.inference_mode():
                    generate(self.model, batch, self.decoding, streamer)
            except BaseException as error:  # handed over, whatever it is
                failed.append(error)
                streamer.end()

        thread = threading.Thread(target=run, daemon=True, name="modalign-answer")
        thread.start()
        said = ""
        for piece in streamer:
            said += piece
            yield piece
        thread.join()
        if failed:
            raise failed[0]
        self._remember(asked, said.strip())

    def asked(self, question: str) -> Dialogue:
        """The conversation with a question at its end, which shows the pictures that wait."""
        parts: tuple[Part, ...] = tuple(ImagePart(number) for number in self._waiting)
        text = TextPart(f"\n{question}" if parts else question)
        return Dialogue((*self.turns, Turn("user", (*parts, text))))

    def _remember(self, asked: Dialogue, answer: str) -> None:
        self.turns = [*asked.turns, Turn("assistant", (TextPart(answer),))]
        self.shown()

    def shown(self) -> None:
        """Notes that the turns show all pictures so far."""
        self._waiting = []
