"""Tiny parts of stacks, written by the libraries they come from: tokenizers, language models, image encoders, pictures."""

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedTokenizerFast,
)

CORPUS = ["USER: What is it? ASSISTANT: A red apple on a table.", "How many birds are there? Two birds sit on the wire."] * 4
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def tokenizer(kind="bytes", chat_template=None, start=True, bos="<s>", eos="</s>"):
    """A tokenizer trained on two sentences: `bytes` as GPT-2's, `pieces` as Llama's, which puts a blank in front of a text."""
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=kind == "pieces"))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = list(SPECIAL)
    if kind == "bytes":
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace()  # while it is trained, so that no token crosses a blank
        made.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        alphabet, special = [], [*special, *(f"<0x{byte:02X}>" for byte in range(256))]
    made.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=330, special_tokens=special, initial_alphabet=alphabet))
    if kind == "pieces":
        made.pre_tokenizer = None
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    if start:
        made.post_processor = processors.TemplateProcessing(f"{bos} $A", None, [(bos, made.token_to_id(bos))])
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token=bos,
        eos_token=eos,
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        chat_template=chat_template,
    )


LLAMA_LIKE = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
SIZES = {
    "gpt2": {
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": 512,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    },
    "opt": {"hidden_size": 16, "ffn_dim": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "word_embed_proj_dim": 16},
    "cohere": {**LLAMA_LIKE, "logit_scale": 0.25},
    "gemma2": {**LLAMA_LIKE, "head_dim": 8, "final_logit_softcapping": 0.5, "sliding_window": 64},
}


def language_config(kind="llama", **more):
    """A tiny configuration; `llama`, `qwen2`, `mistral`, `gpt2`, `opt`, `cohere` or `gemma2`."""
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
    positions = {} if kind == "gpt2" else {"max_position_embeddings": 512}
    return AutoConfig.for_model(kind, **{"vocab_size": 336, **SIZES.get(kind, LLAMA_LIKE), **ends, **positions, **more})


def write_language(folder, kind="llama", words=None, *, seed=0, **more):
    """A folder with a random causal language model and a tokenizer; its weights are large, so that nothing is equal by chance."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(language_config(kind, **more))
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    (words or tokenizer()).save_pretrained(folder)
    return folder


VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 7,
}


def write_clip(folder, *, seed=0, **more):
    """A folder with a random CLIP image encoder of 4 by 4 patches and its processor."""
    torch.manual_seed(seed)
    config = CLIPVisionConfig(**{**VISION, **more})
    model = CLIPVisionModel(config)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    side = config.image_size
    CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side}).save_pretrained(folder)
    return folder


def photo(width, height, seed=0):
    """A smooth picture of some size."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
