"""Models of every kind on the Hub: what is brought, in which order, and what is refused before that."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from d3hr_datasets.diffusion import untrusted_encoders
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.layout import INDEX
from d3hr_datasets.diffusion.model_folder import find_model, read_label_map
from d3hr_datasets.errors import MissingExtraError, ModelFormatError, ModelNotFoundError
from tests.support.hostile_hub import COMMIT, HostileHub, Reply
from tests.support.hub_server import HubServer
from tests.support.kinds import Kinds
from tests.support.tiny_kinds import PIPELINES, PROMPTS

REPO = "org/model"


def publish(hub: HubServer, folder: Path) -> str:
    return hub.add_folder(REPO, folder, "models")


def asked(hub: HubServer, method: str = "HEAD") -> list[str]:
    """Return the files that were asked for, in their order. Contents in LFS are asked for by other names."""
    paths = [path for found, path, _ in hub.requests if found == method and "/resolve/" in path]
    return list(dict.fromkeys(path.split("/resolve/")[1].split("/", 1)[1] for path in paths))


def load(revision: str, name: str = "sd-1", **options: Any) -> LatentDiffusion:
    prompts = None if name.startswith("dit") or "conditioning" in options else PROMPTS
    return LatentDiffusion.from_pretrained(REPO, revision=revision, device="cpu", prompts=prompts, **options)


def change_index(folder: Path, **changes: Any) -> None:
    path = folder / INDEX
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def sd(kinds: Kinds, tmp_path: Path) -> Path:
    return Path(shutil.copytree(kinds.folder("sd-1"), tmp_path / "sd"))


@pytest.mark.parametrize("name", PIPELINES)
def test_every_kind_comes_from_the_hub(name: str, kinds: Kinds, hub: HubServer) -> None:
    commit = publish(hub, kinds.folder(name))
    model = load(commit, name)
    assert model.inversion_fingerprint == kinds.model(name).inversion_fingerprint
    hub.requests.clear()
    assert load(commit, name, local_files_only=True).inversion_fingerprint == model.inversion_fingerprint
    assert not hub.requests


def test_the_kind_comes_first_and_weights_last(kinds: Kinds, hub: HubServer) -> None:
    load(publish(hub, kinds.folder("sd-3")), "sd-3")
    names = asked(hub)
    assert names[0] == INDEX
    weights = [name for name in names if name.endswith(".safetensors")]
    assert names[-len(weights) :] == weights and len(weights) == 5
    assert {"tokenizer/tokenizer.json", "tokenizer_3/tokenizer.json"} < set(names)


def test_what_reads_prompts_stays_there_where_it_is_not_needed(kinds: Kinds, hub: HubServer) -> None:
    load(publish(hub, kinds.folder("sd-1")), conditioning=kinds.model("sd-1").conditioning)
    assert not [name for name in asked(hub) if name.startswith(("text_encoder", "tokenizer"))]


def test_a_dit_may_have_no_index(kinds: Kinds, hub: HubServer, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(kinds.folder("dit"), tmp_path / "dit"))
    (folder / INDEX).unlink()
    assert load(publish(hub, folder), "dit").num_classes == 3


def test_an_encoder_in_several_files_is_brought(sd: Path, kinds: Kinds, hub: HubServer) -> None:
    kinds.pipeline("sd-1").text_encoder.save_pretrained(sd / "shards", max_shard_size="30KB")
    (sd / "text_encoder" / "model.safetensors").unlink()
    for path in (sd / "shards").glob("model*"):
        path.rename(sd / "text_encoder" / path.name)
    shutil.rmtree(sd / "shards")
    assert len(list((sd / "text_encoder").glob("model-*.safetensors"))) > 1
    model = load(publish(hub, sd))
    assert model.inversion_fingerprint == kinds.model("sd-1").inversion_fingerprint


@pytest.mark.parametrize("name", ["StableDiffusionInpaintPipeline", ["custom", "Pipe"], None])
def test_unsupported_kinds_are_refused_before_anything_is_brought(
    name: Any, sd: Path, hub: HubServer
) -> None:
    change_index(sd, _class_name=name)
    with pytest.raises(
        ModelFormatError,
        match=r"org/model is of .*not supported; accepted: DiT \(DiTPipeline\); Stable Diffusion 1.x .*FLUX",
    ) as caught:
        load(publish(hub, sd))
    assert repr(name)[:80] in str(caught.value) and asked(hub) == [INDEX]


@pytest.mark.parametrize(
    ("part", "entry"),
    [
        ("text_encoder", ["transformers", "BertModel"]),
        ("text_encoder", ["evil", "CLIPTextModel"]),
        ("text_encoder", [None, None]),
        ("tokenizer", ["transformers", "AutoTokenizer"]),
        ("tokenizer", "CLIPTokenizer"),
    ],
)
@pytest.mark.parametrize("on_hub", [True, False])
def test_encoders_of_other_classes_are_refused(
    part: str, entry: Any, on_hub: bool, sd: Path, hub: HubServer
) -> None:
    change_index(sd, **{part: entry})
    with pytest.raises(ModelFormatError, match=rf"{INDEX} of .*: {part} is .*; accepted: .*"):
        if on_hub:
            load(publish(hub, sd))
        else:
            LatentDiffusion.from_pretrained(sd, device="cpu", prompts=PROMPTS)
    assert not on_hub or asked(hub) == [INDEX]


def test_missing_libraries_are_named_before_weights_are_brought(
    kinds: Kinds, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = publish(hub, kinds.folder("sd-1"))
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(MissingExtraError, match=r"reading prompts for Stable Diffusion.*extra 'text'"):
        load(commit)
    assert asked(hub) == [INDEX]


def test_pickles_of_encoders_are_not_brought(sd: Path, hub: HubServer) -> None:
    (sd / "text_encoder" / "model.safetensors").rename(sd / "text_encoder" / "pytorch_model.bin")
    with pytest.raises(ModelNotFoundError, match=r"text_encoder/model\.safetensors"):
        load(publish(hub, sd))
    assert not [name for name in asked(hub) if name.endswith(".bin")]


def test_an_optional_encoder_may_be_missing_where_the_index_says_so(
    kinds: Kinds, hub: HubServer, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(kinds.folder("sd-3"), tmp_path / "sd3"))
    for part in ("text_encoder_3", "tokenizer_3"):
        shutil.rmtree(folder / part)
    with pytest.raises(ModelNotFoundError, match=r"text_encoder_3 is missing or empty.*null"):
        LatentDiffusion.from_pretrained(folder, device="cpu", prompts=PROMPTS)
    with pytest.raises(ModelNotFoundError, match=r"text_encoder_3/config.json"):
        load(publish(hub, folder), "sd-3")
    change_index(folder, text_encoder_3=[None, None], tokenizer_3=[None, None])
    assert load(publish(hub, folder), "sd-3").num_classes == 3


@pytest.mark.parametrize("token", [True, False])
def test_a_gated_model_says_where_its_terms_are_and_how_to_log_in(
    token: bool, kinds: Kinds, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = publish(hub, kinds.folder("sd-1"))
    hub.repository(REPO, "models").gated = True
    if not token:
        monkeypatch.delenv("HF_TOKEN")
    message = rf"gated: accept its terms at {hub.url}/org/model, then log in with `hf auth login`.*HF_TOKEN"
    for revision in (commit, None):
        with pytest.raises(ModelNotFoundError, match=message):
            find_model(REPO, revision)
    with pytest.raises(ModelNotFoundError, match=message):
        read_label_map(REPO, commit)


def test_a_private_model_says_how_to_log_in(
    kinds: Kinds, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = publish(hub, kinds.folder("sd-1"))
    hub.repository(REPO, "models").private = True
    assert load(commit).num_classes == 3
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ModelNotFoundError, match=r"if it is private, log in with `hf auth login`.*HF_TOKEN"):
        find_model(REPO, None)


def test_the_size_of_a_tokenizer_is_bounded(
    sd: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("d3hr_datasets.diffusion.download.MAX_TOKENIZER_BYTES", 1000)
    with pytest.raises(ModelFormatError, match=r"tokenizer/vocab.json of org/model has .*at most 1,000"):
        load(publish(hub, sd))
    assert "tokenizer/vocab.json" not in asked(hub, "GET")


def test_the_size_of_an_encoder_is_bounded_by_what_it_describes(
    sd: Path, hub: HubServer, tmp_path: Path
) -> None:
    path = sd / "text_encoder" / "model.safetensors"
    with path.open("ab") as file:
        file.write(bytes(8 * 2**20))
    with pytest.raises(ModelFormatError, match=r"text_encoder/model.safetensors of org/model has .*at most"):
        load(publish(hub, sd))
    assert hashlib.sha256(path.read_bytes()).hexdigest() not in "".join(hub.sent)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_hidden_layers", 97, "num_hidden_layers = 97"),
        ("num_hidden_layers", 60_000, "num_hidden_layers = 60000"),
        ("vocab_size", 2**21, "vocab_size = 2097152"),
        ("vocab_size", 2**20, "describes an encoder of|has .* bytes"),
        ("num_attention_heads", 3, "describes no CLIPTextModel"),
        ("hidden_act", "nothing", "describes no CLIPTextModel"),
    ],
)
def test_encoders_are_as_large_as_their_weights(key: str, value: Any, message: str, sd: Path) -> None:
    path = sd / "text_encoder" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(ModelFormatError, match=message):
        LatentDiffusion.from_pretrained(sd, device="cpu", prompts=PROMPTS)


def test_prompts_are_as_long_as_clip_reads_them(sd: Path) -> None:
    path = sd / "tokenizer" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_max_length": 10**9}))
    with pytest.raises(ModelFormatError, match=r"tokenizer: model_max_length = 1,000,000,000; accepted"):
        LatentDiffusion.from_pretrained(sd, device="cpu", prompts=PROMPTS)


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "tokenizer_config.json"])
def test_damaged_tokenizers_are_refused(name: str, sd: Path) -> None:
    (sd / "tokenizer" / name).write_text("{")
    with pytest.raises(ModelFormatError):
        LatentDiffusion.from_pretrained(sd, device="cpu", prompts=PROMPTS)


def test_nothing_but_known_files_of_a_tokenizer_is_opened(sd: Path, kinds: Kinds) -> None:
    assert set(untrusted_encoders.TOKENIZER_CLASSES) >= {"CLIPTokenizer", "T5TokenizerFast", "GemmaTokenizer"}
    (sd / "tokenizer" / "evil.py").write_text("raise SystemExit")
    (sd / "tokenizer" / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "auto_map": {"AutoTokenizer": ["evil.Evil", None]},
                "model_max_length": 77,
                "pad_token": "<|endoftext|>",
            }
        )
    )
    model = LatentDiffusion.from_pretrained(sd, device="cpu", prompts=PROMPTS)
    assert model.inversion_fingerprint == kinds.model("sd-1").inversion_fingerprint


@pytest.mark.parametrize(
    ("name", "reply"),
    [
        (INDEX, Reply(b"{}", stated=10**10)),
        (INDEX, Reply(b"{}", stated=2, endless=True)),
        (INDEX, Reply(b"[" * 200_000)),
        ("text_encoder/config.json", Reply(b"{}", stated=2, endless=True)),
        ("text_encoder/model.safetensors", Reply(b"", stated=10**10)),
        ("text_encoder/model.safetensors", Reply(b"", stated=-1, endless=True)),
        ("text_encoder/model.safetensors", Reply(b"", etag="..")),
        ("tokenizer/vocab.json", Reply(b"{}", stated=-1, endless=True)),
        ("tokenizer/merges.txt", Reply(b"", stated=2**27)),
        ("tokenizer/merges.txt", Reply(b"", etag="../../x")),
    ],
)
def test_lies_about_what_reads_prompts_are_bounded(
    name: str, reply: Reply, kinds: Kinds, hostile: HostileHub, tmp_path: Path
) -> None:
    hostile.serve(kinds.folder("sd-1"), {name: reply})
    start = time.monotonic()
    with pytest.raises(ModelFormatError, match=r"not accepted|no JSON"):
        load(COMMIT)
    kept = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert time.monotonic() - start < 30 and sum(path.stat().st_size for path in kept) < 2**21


@pytest.mark.parametrize("shard", ["../../../x.safetensors", "/etc/passwd", "x.bin", "a/b.safetensors"])
def test_shards_of_encoders_lie_beside_their_index(shard: str, kinds: Kinds, hostile: HostileHub) -> None:
    index = json.dumps({"weight_map": {"x": shard}}).encode()
    hostile.serve(kinds.folder("sd-1"), {"text_encoder/model.safetensors.index.json": Reply(index)})
    del hostile.replies["text_encoder/model.safetensors"]
    with pytest.raises(ModelFormatError, match="files beside it"):
        load(COMMIT)


def test_shards_of_a_folder_lie_beside_their_index(sd: Path) -> None:
    index = json.dumps({"weight_map": {"x": "../../victim.safetensors"}})
    (sd / "text_encoder" / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ModelFormatError, match="not beside it"):
        LatentDiffusion.from_pretrained(sd, device="cpu", prompts=PROMPTS)
