"""Layouts of conversations that have a name: what stands around the turns.

Source: the conversation styles of LLaVA and LLaVA-NeXT. Sentences that a checkpoint was trained with, such as a system message, are
settings, never part of a layout.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

#: stands for a medium in a written conversation; of Unicode's private use, so that no text has it
MARK = "\ue000"
END = "\ue001"  # stands for the tokenizer's end token in a layout
START = "\ue002"  # and for its start token


@dataclass(frozen=True)
class Layout:
    """What stands around the turns.

    Attributes:
        system: Around a system message.
        user: Around what the user says; `{system}` is the place of a system message that stands inside the first turn.
        later: In front of every turn of the user but the first.
        opening: What the assistant's turn begins with: the end of a prompt.
        answer: Around the answer; learnt as a whole.
        closing: Behind the answer, not learnt.
        keeps_user: Off where only the media of the user's turn are kept.
    """

    system: str = "{}"
    user: str = "{}"
    later: str = ""
    opening: str = ""
    answer: str = "{}" + END
    closing: str = ""
    keeps_user: bool = True


_CHATML = Layout(
    system="<|im_start|>system\n{}<|im_end|>",
    user="<|im_start|>user\n{}<|im_end|>",
    opening="<|im_start|>assistant\n",
    answer="{}<|im_end|>",
)
_INST = Layout(user="[INST] {system}{} [/INST]", answer=" {} " + END)
LAYOUTS: dict[str, Layout] = {
    "plain": Layout(answer="{}\n", keeps_user=False),
    "vicuna_v1": Layout(system="{} ", user="USER: {} ", opening="ASSISTANT:", answer=" {}" + END),
    "llava_llama_2": replace(_INST, later=START),
    "mistral_instruct": _INST,
    "mpt": _CHATML,
    "chatml_direct": _CHATML,
    "qwen_1_5": Layout(
        system="<|im_start|>system\n{}<|im_end|>\n",
        user="<|im_start|>user\n{}<|im_end|>\n",
        opening="<|im_start|>assistant\n",
        answer="{}<|im_end|>",
        closing="\n",
    ),
}
