"""Models that are trained for seconds: on latents with a structure that can be learned in so few steps."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion


def structured_latents(labels: torch.Tensor, shape: tuple[int, int, int], seed: int) -> torch.Tensor:
    """Return latents (B, *shape): a smooth pattern of their class, and smooth noise around it."""
    patterns = _smooth(torch.Generator().manual_seed(0), 3, shape)
    noise = _smooth(torch.Generator().manual_seed(seed), len(labels), shape)
    return patterns[labels] + 0.5 * noise


def _smooth(generator: torch.Generator, count: int, shape: tuple[int, int, int]) -> torch.Tensor:
    coarse = torch.randn(count, shape[0], 3, 3, generator=generator)
    return functional.interpolate(coarse, size=shape[1:], mode="bilinear")


def train_briefly(model: LatentDiffusion, steps: int = 200, batch_size: int = 16) -> list[float]:
    """Train a model's network on `structured_latents`, and return its losses."""
    network: Any = model.network
    network.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    generator, schedule, losses = torch.Generator().manual_seed(5), model.schedule, []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)  # dropout of labels
        for number in range(steps):
            labels = torch.randint(3, (batch_size,), generator=generator)
            clean = structured_latents(labels, model.latent_shape, seed=number + 1)
            noise = torch.randn(clean.shape, generator=generator)
            share = torch.rand(batch_size, generator=generator).clamp(0.001, 0.999)
            is_flow = schedule.grid_kind == "flow"
            steps_of = schedule.num_train_timesteps
            times = [float(x) if is_flow else int(x * steps_of) for x in share]
            levels = [schedule.level(time) for time in times]
            signal = torch.tensor([level.signal for level in levels]).view(-1, 1, 1, 1)
            sigma = torch.tensor([level.noise for level in levels]).view(-1, 1, 1, 1)
            target = noise - clean if is_flow else noise
            asked = torch.tensor([schedule.model_time(time) for time in times])
            condition = model.conditioning.inputs(labels, False)
            output = model.kind.predict(
                network, signal * clean + sigma * noise, asked, condition, 1.0, model.sample_size
            )
            loss = functional.mse_loss(output[:, : clean.shape[1]], target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    network.eval().requires_grad_(False)
    return losses
