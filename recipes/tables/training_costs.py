"""What a training costs, computed from its sizes, and written into the header of its settings file.

    python -m recipes.tables.training_costs

Nothing is run: networks have shapes only. Operations are those of `torch.utils.flop_counter`, in which an
addition and a multiplication are two. A backward pass costs twice a forward one where all weights are
trained, and as much as one where only an adapter is (gradients of the frozen weights are not computed).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DiTTransformer2DModel, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from d3hr_datasets.dataset.artifact_registry import embedded_artifact
from d3hr_datasets.io.atomic import replace_text
from d3hr_datasets.runs.settings_files import read_yaml
from d3hr_datasets.training.settings import SIZES
from recipes.common.program import program
from recipes.evaluate.dit_xl import LATENT_SHAPE, make_transformer, make_vae

CONFIGS = Path(__file__).parents[2] / "d3hr_datasets" / "training" / "configs"
# Images of the sources that these files name; of a folder of one's own, an example.
IMAGES = {
    "torchvision:CIFAR10": 50_000,
    "torchvision:CIFAR100": 50_000,
    "tiny-imagenet-200/train": 100_000,
    "images": 1_000,
    "fashion-mnist": 60_000,
}
PEAK = 989e12  # operations a second of a H100 (SXM) in bfloat16, dense, by its data sheet
UTILISATION = 0.4  # assumed
HOURS = re.compile(r"([0-9.,]+|less than 0\.01) hours of one H100")
COST = re.compile(r"^# Cost: .*\n(?:#   .*\n)*", re.MULTILINE)


@dataclass(frozen=True)
class Operations:
    """Operations of one image.

    Args:
        network: As the header names it.
        forward: Of the network.
        encode: Of the VAE.
    """

    network: str
    forward: float
    encode: float


def count_operations() -> dict[str, Operations]:
    """Return what the networks that the files are for compute for one image of their size, by `kind_of`."""
    with torch.device("meta"):
        vae = make_vae()
        latents = torch.zeros(1, *LATENT_SHAPE, dtype=torch.float16)
        time, label = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
        transformer = make_transformer()
        labelled = _count(lambda: transformer(latents, timestep=time, class_labels=label))
        # The sizes of Stable Diffusion 1.5.
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8).half()
        prompt = torch.zeros(1, 77, 768, dtype=torch.float16)
        large = torch.zeros(1, 4, 64, 64, dtype=torch.float16)
        prompted = _count(lambda: unet(large, time, encoder_hidden_states=prompt))
        encode = {
            side: _count(lambda side=side: vae.encode(torch.zeros(1, 3, side, side, dtype=torch.float16)))  # type: ignore[misc]
            for side in (256, 512)
        }
        settings = read_yaml(CONFIGS / "fashion-mnist.yaml")
        sizes = {size: settings[size] for size in SIZES}
        small = DiTTransformer2DModel(in_channels=12, sample_size=8, num_embeds_ada_norm=10, **sizes)
        tiny = torch.zeros(1, 12, 8, 8)
        scratch = _count(lambda: small(tiny, timestep=time, class_labels=label))
        folder = embedded_artifact("fashion-mnist") / "model" / "vae"
        embedded = AutoencoderKL.from_config(AutoencoderKL.load_config(folder))
        encoded = _count(lambda: embedded.encode(torch.zeros(1, 1, 32, 32)))
    return {
        "scratch": Operations("the embedded DiT at 32 pixels", scratch, encoded),
        "labels": Operations("DiT-XL/2 at 256 pixels", labelled, encode[256]),
        "prompts": Operations("Stable Diffusion 1.5 at 512 pixels", prompted, encode[512]),
    }


def _count(run: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def cost_lines(path: Path, counted: dict[str, Operations]) -> str:
    """Return the lines of the header that say what a training costs; empty for a shared file."""
    settings = read_yaml(path)
    if "source" not in settings:
        return ""
    is_new = settings["start"] == "scratch"
    one = counted["scratch" if is_new else "prompts" if "prompt" in settings else "labels"]
    images, epochs = IMAGES[settings["source"]], settings["epochs"]
    passes = 2 if settings["start"] == "lora" else 3
    total = images * (passes * one.forward * epochs + one.encode)
    hours = total / (PEAK * UTILISATION) / 3600
    example = ", as an example" if settings["source"] == "images" else ""
    return (
        f"# Cost: {_scientific(total)} FLOP, {_hours(hours)} hours of one H100 at {UTILISATION:.0%} of its "
        f"{PEAK / 1e12:.0f} TFLOP/s.\n"
        f"#   {epochs} epochs of {images:,} images{example}, by {one.network}:\n"
        f"#   {passes} x {one.forward / 1e9:,.4g} GFLOP for each in each epoch, and "
        f"{one.encode / 1e9:,.4g} to encode it once.\n"
        f"#   Assumed: the utilisation. {'On a GPU n' if is_new else 'N'}othing of this was run.\n"
    )


def with_costs(path: Path, counted: dict[str, Operations]) -> str:
    """Return the text of a settings file with what it costs, before its first setting."""
    text = COST.sub("", path.read_text(encoding="utf-8"))
    lines = text.splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return "".join(lines[:first]) + cost_lines(path, counted) + "".join(lines[first:])


def _hours(hours: float) -> str:
    return f"{hours:,.2g}" if hours >= 0.01 else "less than 0.01"


def _scientific(number: float) -> str:
    mantissa, exponent = f"{number:.1e}".split("e")
    return f"{mantissa} x 10^{int(exponent)}"


@program
def main() -> None:
    counted = count_operations()
    for path in sorted(CONFIGS.glob("*.yaml")):
        text = with_costs(path, counted)
        if text != path.read_text(encoding="utf-8"):
            replace_text(path, text)
            print(path)


if __name__ == "__main__":
    main()
