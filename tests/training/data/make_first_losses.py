"""Make `first_losses.json`: the first losses of a small training by the code that made the embedded model.

    git worktree add CHECKOUT 9d7509a
    python tests/training/data/make_first_losses.py CHECKOUT

Images, VAE and settings are drawn here from seeds; the losses are those of CHECKOUT's `recipes.train_dit`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image

STEPS = 50
CLASSES = ("ant", "bee", "cat")
SETTINGS: dict[str, Any] = {
    "image_size": 14,
    "padding": 1,
    "patch_size": 2,
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "epochs": 9,
    "batch_size": 4,
    "learning_rate": 2e-3,
    "label_dropout": 0.2,
    "snr_gamma": 5.0,
    "ema_decay": 0.99,
    "log_every": 1,
    "seed": 3,
}


def write_inputs(folder: Path) -> tuple[Path, Path]:
    """Write an image folder of three classes, and a VAE; return both folders."""
    from diffusers import AutoencoderKL

    generator = torch.Generator().manual_seed(0)
    for label, name in enumerate(CLASSES):
        (folder / "images" / name).mkdir(parents=True)
        for index in range(8):
            pixels = torch.randint(256, (14, 14, 3), generator=generator, dtype=torch.uint8)
            pixels[..., label] = 255
            Image.fromarray(pixels.numpy()).save(folder / "images" / name / f"{index}.png")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(4, 8, 8),
            latent_channels=4,
            norm_num_groups=4,
            sample_size=16,
            scaling_factor=0.8,
        )
    vae.save_pretrained(folder / "vae")
    return folder / "images", folder / "vae"


def main() -> None:
    checkout, target = Path(sys.argv[1]).resolve(), Path(__file__).with_name("first_losses.json")
    sys.path.insert(0, str(checkout))
    from recipes import train_dit  # type: ignore[attr-defined]  # of the checkout

    torch.set_num_threads(1)
    losses: list[float] = []
    backward: Any = torch.Tensor.backward

    def note(tensor: torch.Tensor, *arguments: Any, **named: Any) -> None:
        losses.append(tensor.item())
        backward(tensor, *arguments, **named)

    torch.Tensor.backward = note  # type: ignore[assignment, method-assign]
    with tempfile.TemporaryDirectory() as folder:
        images, vae = write_inputs(Path(folder))
        places = {"source": str(images), "vae": str(vae), "output": f"{folder}/run"}
        train_dit.train(train_dit.DiTSettings(**SETTINGS, **places))
        rows = (Path(folder) / "run" / "metrics.csv").read_text(encoding="utf-8").splitlines()[1:]
    errors = [float(row.split(",")[1]) for row in rows]
    values = {"commit": "9d7509a", "losses": losses[:STEPS], "mse": errors[:STEPS]}
    target.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
