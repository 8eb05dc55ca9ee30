"""The average of weights: the formula, and checkpoints of trainings that began before it was diffusers'."""

from __future__ import annotations

from pathlib import Path

import torch

from d3hr_datasets.runs.run_folder import RunFolder
from recipes.common.ema import averaged_weights, restore_average, weight_average
from recipes.common.training_loop import TrainingLoop, TrainingSettings


def network(seed: int) -> torch.nn.Module:
    """Return a module with parameters that are trained and one that is not."""
    torch.manual_seed(seed)
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    module[1].bias.requires_grad_(False)
    return module


def change(module: torch.nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))


def by_formula(
    average: dict[str, torch.Tensor], module: torch.nn.Module, decay: float, step: int
) -> dict[str, torch.Tensor]:
    """Return the average after a step: min(decay, (1 + n) / (10 + n)) of the one before, the rest of now."""
    kept = min(decay, (1 + step) / (10 + step))
    state = module.state_dict()
    new = {name: kept * average[name] + (1 - kept) * state[name].double() for name in average}
    return {**new, "1.bias": state["1.bias"].double()}  # is not trained


def check_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6)


def test_the_average_warms_up_to_its_decay() -> None:
    module = network(0)
    average = weight_average(module, 0.9)
    expected = {name: value.double() for name, value in module.state_dict().items()}
    for step in range(1, 200):  # 0.9 is reached at step 80
        change(module, step)
        average.step(module.parameters())
        expected = by_formula(expected, module, 0.9, step)
        assert average.cur_decay_value == min(0.9, (1 + step) / (10 + step))
        check_close(averaged_weights(average, module), expected)


def test_an_average_goes_on_after_its_steps() -> None:
    module = network(0)
    whole, weights = weight_average(module, 0.9995), {}
    for step in range(1, 60):
        if step == 31:
            weights = {name: value.clone() for name, value in averaged_weights(whole, module).items()}
            before = {name: value.clone() for name, value in module.state_dict().items()}
        change(module, step)
        whole.step(module.parameters())
    other = network(1)
    resumed = weight_average(other, 0.9995)
    other.load_state_dict(before)
    restore_average(resumed, other, weights, 30)
    for step in range(31, 60):
        change(other, step)
        resumed.step(other.parameters())
    for name, tensor in averaged_weights(whole, module).items():
        assert torch.equal(averaged_weights(resumed, other)[name], tensor)


class Sum:
    """The sum of a module's outputs."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module

    def loss(self, index: torch.Tensor, step: int) -> torch.Tensor:
        total: torch.Tensor = self.module(index[:, None].float().expand(-1, 3) + step).square().mean()
        return total

    def metrics(self) -> dict[str, float]:
        return {}


def test_a_checkpoint_with_the_average_as_a_state_is_gone_on_with(tmp_path: Path) -> None:
    """Such a one is of 0.1.0: weights by name, steps counted once, and nothing else of the average."""
    settings = TrainingSettings(
        output=str(tmp_path / "run"),
        source="none",
        image_size=1,
        padding=0,
        epochs=10,
        batch_size=2,
        learning_rate=0.01,
        ema_decay=0.9995,
        minutes_between_checkpoints=0.0,
    )
    module, averaged = network(0), network(1).state_dict()
    optimizer = torch.optim.AdamW(module.parameters())
    state = {
        "transformer": module.state_dict(),
        "step": 12,
        "optimizer": optimizer.state_dict(),
        "average": averaged,
    }
    run = RunFolder(settings.output, settings)
    torch.save(state, run.checkpoint)
    other = network(2)
    loop = TrainingLoop(run, settings, "transformer", other, torch.optim.AdamW(other.parameters()))
    assert loop.step == 12 and list(loop.averaged_weights()) == list(averaged)
    for name, tensor in averaged.items():
        assert torch.equal(loop.averaged_weights()[name], tensor)
        assert torch.equal(other.state_dict()[name], module.state_dict()[name])
    expected = {name: tensor.double() for name, tensor in averaged.items()}
    for step in loop.steps(Sum(other), 4, lambda step, total: 1.0):
        expected = by_formula(expected, other, 0.9995, step)
        check_close(loop.averaged_weights(), expected)
    assert loop.step == 20  # two steps an epoch
    saved = torch.load(run.checkpoint, weights_only=True)
    assert saved.keys() == state.keys() and saved["average"].keys() == averaged.keys()
    assert torch.equal(saved["average"]["0.weight"], loop.averaged_weights()["0.weight"])


def test_a_folder_that_was_moved_is_gone_on_with(tmp_path: Path) -> None:
    values = {"source": "none", "image_size": 1, "padding": 0, "epochs": 1, "batch_size": 2}
    rates = {"learning_rate": 0.01, "ema_decay": 0.9}
    for output in ("first", "second"):
        settings = TrainingSettings(output=str(tmp_path / output), **values, **rates)  # type: ignore[arg-type]
        assert RunFolder(settings.output, settings).path == tmp_path / output
        if output == "first":
            (tmp_path / "first").rename(tmp_path / "second")
