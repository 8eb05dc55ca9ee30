"""Tiny text encoders of random weights, and tokenizers that are trained here: nothing is downloaded."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

WIDTH = 16  # of what all encoders make
TEXT = "a photo of an ant the bee or wasp cat dog blurry picture small large red green blue house tree"
ENCODER_STD = 0.3  # of weights
START, END = "<|startoftext|>", "<|endoftext|>"


def sentences() -> list[str]:
    """Return text of the words of `TEXT`, the same each time."""
    words = TEXT.split()
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(len(words), (400, 6), generator=generator).tolist()
    return [" ".join(words[index] for index in row) for row in rows]


@cache
def _clip_files() -> tuple[str, str]:
    """Return what `vocab.json` and `merges.txt` of a CLIP tokenizer hold."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocab = model["vocab"]
    for token in [f"{letter}</w>" for letter in sorted(pre_tokenizers.ByteLevel.alphabet())] + [START, END]:
        vocab.setdefault(token, len(vocab))
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]
    return json.dumps(vocab, ensure_ascii=False), "\n".join(["#version: 0.2", *merges, ""])


@cache
def sentencepiece_model() -> bytes:
    """Return a sentencepiece model, as `spiece.model` of T5 holds one."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences()),
        model_writer=model,
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
        num_threads=1,
    )
    return model.getvalue()


def write_clip_files(folder: Path) -> None:
    """Write a CLIP tokenizer as Stable Diffusion 1.5 has it: without `tokenizer.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab, merges = _clip_files()
    (folder / "vocab.json").write_text(vocab, encoding="utf-8")
    (folder / "merges.txt").write_text(merges, encoding="utf-8")
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": END}
    tokens = {"bos_token": START, "eos_token": END, "unk_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, **tokens}))


def write_t5_files(folder: Path) -> None:
    """Write a T5 tokenizer as PixArt has it: `spiece.model`, which sentencepiece reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(sentencepiece_model())
    settings = {"tokenizer_class": "T5Tokenizer", "extra_ids": 100, "model_max_length": 512}
    tokens = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, **tokens}))


def clip_tokenizer() -> Any:
    """Return a CLIP tokenizer of 77 tokens."""
    from transformers import CLIPTokenizer

    with TemporaryDirectory() as folder:
        write_clip_files(Path(folder))
        return CLIPTokenizer.from_pretrained(folder)


def t5_tokenizer() -> Any:
    """Return a T5 tokenizer."""
    from transformers import T5Tokenizer

    with TemporaryDirectory() as folder:
        write_t5_files(Path(folder))
        return T5Tokenizer.from_pretrained(folder)


def gemma_tokenizer() -> Any:
    """Return a Gemma tokenizer: BPE with bytes for what it does not know."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import GemmaTokenizer

    tokenizer = Tokenizer(models.BPE(byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_previous")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(
        sentences(), trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    )
    model = json.loads(tokenizer.to_str())["model"]
    return GemmaTokenizer(vocab=model["vocab"], merges=_pairs(model["merges"]))


def _pairs(merges: list[Any]) -> Any:
    return [tuple(pair) for pair in merges]


def fill(module: Any, std: float, seed: int = 0) -> Any:
    """Draw all weights anew, but for those of norms: so a module sees what it is given."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        mean = 1.0 if "norm" in name and name.endswith("weight") and parameter.dim() == 1 else 0.0
        torch.nn.init.normal_(parameter, mean=mean, std=std, generator=generator)
    return module.eval()


def clip_encoder(tokenizer: Any, width: int = WIDTH, projection: bool = False, seed: int = 0) -> Any:
    """Return a CLIP text encoder of two layers, as wide as `width`."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=WIDTH,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    encoder = CLIPTextModelWithProjection if projection else CLIPTextModel
    return fill(encoder(config), ENCODER_STD, seed)


def t5_encoder(tokenizer: Any) -> Any:
    """Return a T5 encoder of one layer."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=len(tokenizer), d_model=WIDTH, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    return fill(T5EncoderModel(config), ENCODER_STD)


def gemma_encoder(tokenizer: Any) -> Any:
    """Return a Gemma 2 of one layer."""
    from transformers import Gemma2Config, Gemma2Model

    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return fill(Gemma2Model(config), ENCODER_STD)
