"""Adapters: small weights beside a model's own (LoRA) -> the model as it was adapted.

In: a network, and a folder with `adapter_config.json` and `adapter_model.safetensors` as peft writes them,
and `d3hr_adapter.json`, which says of which model it is. Out: the network, with the adapter merged into its
weights. Only JSON and safetensors are read, and of the former only what is named here.

Source: LoRA (arXiv 2106.09685). A DiT's classes get new embeddings, one table in each block, which are stored
whole beside it.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from d3hr_datasets.config.checks import check_int, check_number
from d3hr_datasets.config.json_settings import JsonSettings
from d3hr_datasets.config.model_reference import ModelReference
from d3hr_datasets.diffusion.kinds.kind import ModelKind
from d3hr_datasets.diffusion.layout import WEIGHTS
from d3hr_datasets.errors import ArtifactFormatError, ConfigError, ModelFormatError, ModelNotFoundError
from d3hr_datasets.io.atomic import replace_text
from d3hr_datasets.io.extras import needs_extra
from d3hr_datasets.io.untrusted_files import file_sha256, is_file, read_header, read_json
from d3hr_datasets.numerics.torch_settings import neutral

PEFT_CONFIG = "adapter_config.json"
PEFT_WEIGHTS = "adapter_model.safetensors"
DESCRIPTION = "d3hr_adapter.json"
LOADED = re.compile(rf"{WEIGHTS}(-\d+-of-\d+)?\.safetensors")
FILES = (PEFT_CONFIG, PEFT_WEIGHTS, DESCRIPTION)
CLASS_TABLE = "class_embedder"  # of each block of a DiT
MAX_RANK = 1024
# Settings of peft that are not read here, as plain LoRA has them.
PLAIN = {
    "peft_type": "LORA",
    "bias": "none",
    "use_dora": False,
    "use_rslora": False,
    "rank_pattern": {},
    "alpha_pattern": {},
}
# What LoRA is put beside: projections of attention, and the two layers after it, where diffusers names them.
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
# And where classes are new: what turns an embedding of a class into scales and shifts of a DiT's block.
CLASS_TARGETS = ("norm1.linear",)


@dataclass(frozen=True)
class AdapterDescription(JsonSettings):
    """What an adapter says of itself.

    Args:
        kind: Kind of its model, by name.
        weights_sha256: Of the network of the model it was trained on; see `network_digest`.
        num_classes: Classes that have new embeddings; None where classes are prompts.
        classes: Their names, in the order of the new labels; none where nobody said them.
        repo_id: Repository of that model, where it has one.
        revision: Its commit.
        steps: Steps it was trained for.
    """

    kind: str
    weights_sha256: str
    num_classes: int | None = None
    classes: tuple[str, ...] = ()
    repo_id: str | None = None
    revision: str | None = None
    steps: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or not isinstance(self.weights_sha256, str):
            raise ConfigError("kind and weights_sha256 must be strings")
        if self.num_classes is not None:
            check_int("num_classes", self.num_classes, 1, 65_536)
        check_int("steps", self.steps, 0)
        if not isinstance(self.classes, tuple) or len(self.classes) not in (0, self.num_classes):
            raise ConfigError(f"classes must be a list of {self.num_classes} names, or none")
        if not all(isinstance(name, str) and name for name in self.classes):
            raise ConfigError("classes must be non-empty strings")
        if self.repo_id is not None:
            ModelReference(self.repo_id, self.revision)


def network_digest(folder: Path, kind: ModelKind) -> str:
    """Return the SHA-256 of the weights of a model's network, in hexadecimal.

    Args:
        folder: Of the model, in diffusers' layout.
        kind: Of the model.

    Raises:
        ModelFormatError: Its weights are no safetensors.
    """
    digest = hashlib.sha256()
    # Variants such as "fp16" are not loaded; in the Hub's cache they may be there or not.
    found = (folder / kind.network[0]).glob(f"{WEIGHTS}*.safetensors")
    paths = sorted(path for path in found if LOADED.fullmatch(path.name))
    if not paths:
        raise ModelFormatError(
            f"the model {folder} has no weights in safetensors, by which an adapter knows it; save it again "
            f"with `{kind.pipelines[0]}.save_pretrained`"
        )
    for path in paths:
        digest.update(f"{path.name} {file_sha256(path)}\n".encode())
    return digest.hexdigest()


def read_description(folder: Path) -> AdapterDescription:
    """Return what the adapter in a folder says of itself.

    Raises:
        ModelNotFoundError: There is no adapter.
        ModelFormatError: It is not what `d3hr adapt` wrote.
    """
    for name in FILES:
        if not is_file(folder / name):
            raise ModelNotFoundError(
                f"{folder / name} is missing: an adapter is a folder with {', '.join(FILES)}, as `d3hr "
                "adapt` writes it"
            )
    try:
        return AdapterDescription.from_dict(read_json(folder / DESCRIPTION))
    except (ConfigError, ArtifactFormatError) as error:
        raise ModelFormatError(f"{folder / DESCRIPTION}: {error}") from error


def check_base(
    description: AdapterDescription, folder: Path, kind: ModelKind, repo_id: str | None, revision: str | None
) -> None:
    """Check that an adapter is of a model.

    Args:
        description: Of the adapter.
        folder: Of the model.
        kind: Of the model.
        repo_id: Of the model, where it is from the Hub.
        revision: Its commit.

    Raises:
        ModelFormatError: It is of another one.
    """
    if repo_id is not None and (description.repo_id, description.revision) == (repo_id, revision):
        return
    found = network_digest(folder, kind)
    if description.kind != kind.name or description.weights_sha256 != found:
        base = "another model"
        if description.repo_id is not None:
            base = f"{description.repo_id}@{description.revision}"
        raise ModelFormatError(
            f"the adapter was trained on {base} (kind {description.kind}, weights "
            f"{description.weights_sha256[:16]}), and the model {repo_id or folder} is of kind {kind.name} "
            f"with weights {found[:16]}; give the model it was trained on, or train an adapter of this one"
        )


@neutral()
def add_adapter(network: Any, rank: int, alpha: float | None = None, num_classes: int | None = None) -> Any:
    """Return a network with an adapter beside its weights, which alone is trained.

    Args:
        network: diffusers' transformer or UNet.
        rank: Of each pair of matrices.
        alpha: Their product is scaled by alpha / rank; by default the rank.
        num_classes: Classes that get new embeddings; None leaves what the network has.

    Returns:
        peft's model; its state without the network's own is `adapter_state`.

    Raises:
        ModelFormatError: The network has no layer of the names that adapters are put beside.
        MissingExtraError: peft is not installed.
    """
    with needs_extra("adapt", "adapters need peft"):
        from peft import LoraConfig, get_peft_model
    check_int("rank", rank, 1, MAX_RANK)
    saved = None
    if num_classes is not None:
        renew_classes(network, num_classes)
        saved = [CLASS_TABLE]
    config = LoraConfig(
        r=rank,
        lora_alpha=rank if alpha is None else alpha,  # type: ignore[arg-type]
        target_modules=[*TARGETS, *(CLASS_TARGETS if num_classes is not None else ())],
        modules_to_save=saved,
    )
    try:
        return get_peft_model(network, config)
    except ValueError as error:
        raise ModelFormatError(f"adapters cannot be put beside the layers of the network: {error}") from error


@neutral()
def renew_classes(network: Any, num_classes: int) -> None:
    """Give a DiT new embeddings of classes, drawn anew, with one of no class after them.

    Raises:
        ModelFormatError: The network takes no class labels.
    """
    tables = [(name, module) for name, module in network.named_modules() if name.endswith(f".{CLASS_TABLE}")]
    if not tables:
        raise ModelFormatError("the network takes no class labels, so it has no classes to be renewed")
    for name, table in tables:
        width = table.embedding_table.embedding_dim
        new = type(table)(num_classes, width, table.dropout_prob)
        old = table.embedding_table.weight.detach().float()
        # As far apart as the old ones, to which the blocks are used: ones near zero are not heard.
        torch.nn.init.normal_(new.embedding_table.weight, std=float(old.std()))
        with torch.no_grad():
            new.embedding_table.weight[-1].copy_(old[-1])
        parent = network.get_submodule(name.rpartition(".")[0])
        setattr(parent, CLASS_TABLE, new.to(table.embedding_table.weight))
    network.register_to_config(num_embeds_ada_norm=num_classes)


def adapter_state(model: Any) -> dict[str, torch.Tensor]:
    """Return the weights of the adapter of a `peft` model, by name."""
    from peft import get_peft_model_state_dict

    state: dict[str, torch.Tensor] = get_peft_model_state_dict(model)
    return state


def save_adapter(model: Any, description: AdapterDescription, folder: Path) -> None:
    """Write the adapter of a `peft` model.

    Args:
        model: Of `add_adapter`.
        description: What it says of itself.
        folder: Made if it is missing.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft looks for the base model's configuration on the Hub
        model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's template of a card
    replace_text(folder / DESCRIPTION, json.dumps(description.to_dict(), indent=1) + "\n")


def _check_plain(config: dict[str, Any]) -> None:
    """Refuse what peft has beside plain LoRA: `d3hr adapt` writes none, and it is not applied."""
    for name, plain in PLAIN.items():
        if config.get(name) and config[name] != plain:
            raise ConfigError(
                f"{name} = {config[name]!r:.80}, and plain LoRA alone is accepted; train it with `d3hr adapt`"
            )


@neutral()
def apply_adapter(network: Any, folder: Path) -> Any:
    """Return a network with the adapter of a folder merged into its weights.

    Raises:
        ModelFormatError: The adapter is not what `d3hr adapt` wrote, or not of such a network.
        ModelNotFoundError: There is none.
        MissingExtraError: peft is not installed.
    """
    from safetensors.torch import load_file

    description = read_description(folder)
    with needs_extra("adapt", "adapters need peft"):
        from peft import set_peft_model_state_dict
    try:
        config = read_json(folder / PEFT_CONFIG)
        rank = check_int("r", config.get("r"), 1, MAX_RANK)
        alpha = check_number("lora_alpha", config.get("lora_alpha"), 0.0)
        _check_plain(config)
        read_header(folder / PEFT_WEIGHTS)
        state = load_file(folder / PEFT_WEIGHTS)
    except (ConfigError, ArtifactFormatError) as error:
        raise ModelFormatError(f"the adapter {folder} is damaged: {error}") from error
    model = add_adapter(network, rank, alpha, description.num_classes)
    expected = adapter_state(model)
    wrong = sorted(
        name
        for name in expected.keys() | state.keys()
        if name not in expected or name not in state or expected[name].shape != state[name].shape
    )
    if wrong:
        raise ModelFormatError(
            f"the adapter {folder} does not fit the network: {wrong[:3]} differ; give the model that it was "
            "trained on, or adapt this one with `d3hr adapt`"
        )
    broken = [name for name, value in state.items() if not value.is_floating_point()]
    broken += [name for name, value in state.items() if not bool(value.isfinite().all())]
    if broken:
        raise ModelFormatError(
            f"the adapter {folder} has weights that are no finite floating-point numbers ({broken[:3]}); "
            "download or train it again"
        )
    set_peft_model_state_dict(model, state)
    merged: Any = model.merge_and_unload()
    return merged
