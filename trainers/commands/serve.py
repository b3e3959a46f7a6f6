"""`modalign serve MODEL`: a page to talk to a model, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..console import console
from ..data_kind import DIALOGUE
from ..device import pick_device
from ..kinds import only

_HOST = "127.0.0.1"


def serve(
    model: str,
    port: int = 7860,
    device: str = "auto",
    upload_mb: float = 16.0,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
) -> None:
    """Opens a page (Gradio, on this machine alone) with a picture, a conversation, and a search for places in the picture.

    The page is never shared with other machines; to reach it from one, make a tunnel, such as `ssh -L 7860:127.0.0.1:7860`.

    Args:
        model: A run folder, a release, or a LLaVA folder of transformers.
        port: Where it listens.
        device: Where to compute: cpu, cuda, cuda:1, mps; default the fastest there is.
        upload_mb: Largest picture that is taken, in megabytes.
        max_new_tokens: Most tokens of an answer.
        temperature: 0 takes the likeliest token each time; above 0 tokens are drawn.
    """
    from modalign import zoo
    from modalign.zoo.errors import RecipeError
    from modalign.zoo.stack.generate import Decoding

    if not 1 <= port <= 65535 or upload_mb <= 0:
        raise RecipeError(f"--port {port} must be from 1 to 65535, --upload_mb {upload_mb:g} above 0")
    loaded = only(zoo.load(model, pick_device(device)), DIALOGUE, "serve")
    page = build_page(loaded, model, Decoding(max_new_tokens, temperature))
    console.print(f"http://{_HOST}:{port}   (Ctrl-C ends it)")
    try:
        page.launch(
            server_name=_HOST, server_port=port, share=False, max_file_size=int(upload_mb * 1e6), show_error=True, quiet=True
        )
    except OSError as error:
        raise RecipeError(f"--port {port}: the page cannot be opened there ({error}); give another --port") from None


def build_page(model: Any, name: str, decoding: Any) -> Any:
    """The page.

    Args:
        model: A stack.
        name: What the page calls it.
        decoding: How tokens are chosen.

    Raises:
        RecipeError: If Gradio is not installed.
    """
    from modalign.zoo.errors import RecipeError

    try:
        import gradio
    except ImportError:
        raise RecipeError("modalign serve needs Gradio: pip install 'modalign[demo]'") from None
    import inspect

    name = Path(name).name if Path(name).exists() else name  # where it lies is nobody's business
    # newer versions have a button that sends conversations elsewhere
    plain = {"buttons": ["copy"]} if "buttons" in inspect.signature(gradio.Chatbot.__init__).parameters else {}
    with gradio.Blocks(title=f"modalign: {name}", analytics_enabled=False) as page:
        gradio.Markdown(
            f"### {name}\n`{model.family}`; answers may be wrong, and may speak of things that are not in the picture."
        )
        with gradio.Row():
            picture = gradio.Image(type="pil", label="picture", sources=["upload", "clipboard"], height=360)
            with gradio.Column():
                said = gradio.Chatbot(label="conversation", height=300, **plain)
                question = gradio.Textbox(label="question", placeholder="What is in the picture?", autofocus=True)
                with gradio.Row():
                    ask, clear = gradio.Button("ask", variant="primary"), gradio.Button("begin anew")
        with gradio.Row():
            phrase = gradio.Textbox(label="where is …", placeholder="the dog")
            find = gradio.Button("find")
        found = gradio.Image(label="found", interactive=False, height=360)
        turns = [picture, question, said]
        for event in (ask.click, question.submit):
            event(_answering(model, decoding), turns, [said, question])
        clear.click(lambda: ([], ""), None, [said, question])
        find.click(_finding(model, decoding), [picture, phrase], found)
    return page.queue(max_size=16, default_concurrency_limit=1)


def _answering(model: Any, decoding: Any) -> Any:
    """Answers with all turns before; the page keeps them, the model nothing."""
    from modalign.zoo.language.turns import TextPart, Turn
    from modalign.zoo.stack.talk import Talk

    def answer(picture: Any, question: str, said: list[dict[str, Any]]) -> Any:
        if not question.strip():
            yield said, ""
            return
        talk = Talk(model, decoding)
        if picture is not None:
            talk.show(picture.convert("RGB"))
        earlier = [(message["role"], _text(message["content"])) for message in said]
        if earlier:
            first = talk.asked(earlier[0][1])
            talk.turns = [first.turns[0], *(Turn(role, (TextPart(text),)) for role, text in earlier[1:])]  # type: ignore[arg-type]
            talk.shown()
        said = [*said, {"role": "user", "content": question}, {"role": "assistant", "content": ""}]
        for piece in _told(talk, question):
            said[-1]["content"] += piece
            yield said, ""

    return answer


def _text(content: Any) -> str:
    """What a message of the page says; some versions wrap it."""
    if isinstance(content, list):
        return "".join(_text(part) for part in content)
    return str(content.get("text", "")) if isinstance(content, dict) else str(content)


def _told(talk: Any, question: str) -> Any:
    """The pieces of an answer; what is wrong is said on the page."""
    import gradio

    from modalign.zoo.errors import ModalignError

    try:
        yield from talk.stream(question)
    except ModalignError as error:
        raise gradio.Error(str(error)) from None


def _finding(model: Any, decoding: Any) -> Any:
    import gradio

    from modalign.zoo.errors import ModalignError
    from modalign.zoo.stack.talk import Talk

    from .ground import asked_for, box_in, draw

    def find(picture: Any, phrase: str) -> Any:
        if picture is None or not phrase.strip():
            raise gradio.Error("give a picture and say what to look for")
        talk = Talk(model, decoding)
        rgb = picture.convert("RGB")
        talk.show(rgb)
        try:
            answer = talk.ask(asked_for(model, phrase, None))
        except ModalignError as error:
            raise gradio.Error(str(error)) from None
        box = box_in(model, answer, rgb.size)
        if box is None:
            raise gradio.Error(f"the model named no place; it said: {answer}")
        return draw(rgb, box, phrase)

    return find
