"""The average of weights: the formula, and checkpoints of trainings that began before it was diffusers'."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.runs.run_folder import RunFolder
from d3hr_datasets.training.batches import shuffled_batches
from d3hr_datasets.training.diffusion import training_accelerator
from d3hr_datasets.training.loop import Drawn, TrainingLoop
from d3hr_datasets.training.settings import FREE, DiffusionTraining, TrainingSettings, earlier_settings
from d3hr_datasets.training.weight_average import averaged_weights, restore_average, weight_average


def network(seed: int) -> torch.nn.Module:
    """Return a module with parameters that are trained and one that is not."""
    torch.manual_seed(seed)
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    module[1].bias.requires_grad_(False)
    return module


def named(module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return dict(module.named_parameters())


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
    average = weight_average(named(module), 0.9)
    expected = {name: value.double() for name, value in module.state_dict().items()}
    for step in range(1, 200):  # 0.9 is reached at step 80
        change(module, step)
        average.step(module.parameters())
        expected = by_formula(expected, module, 0.9, step)
        assert average.cur_decay_value == min(0.9, (1 + step) / (10 + step))
        check_close(averaged_weights(average, named(module)), expected)


def test_an_average_goes_on_after_its_steps() -> None:
    module = network(0)
    whole, weights = weight_average(named(module), 0.9995), {}
    for step in range(1, 60):
        if step == 31:
            weights = {name: value.clone() for name, value in averaged_weights(whole, named(module)).items()}
            before = {name: value.clone() for name, value in module.state_dict().items()}
        change(module, step)
        whole.step(module.parameters())
    other = network(1)
    resumed = weight_average(named(other), 0.9995)
    other.load_state_dict(before)
    restore_average(resumed, named(other), weights, 30)
    for step in range(31, 60):
        change(other, step)
        resumed.step(other.parameters())
    for name, tensor in averaged_weights(whole, named(module)).items():
        assert torch.equal(averaged_weights(resumed, named(other))[name], tensor)


class Sum:
    """The sum of a module's outputs."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module

    def draw(self, count: int, step: int) -> Drawn:
        return {"step": torch.full((count, 1), float(step))}

    def loss(self, index: torch.Tensor, drawn: Drawn) -> torch.Tensor:
        inputs = index[:, None].float().expand(-1, 3) + drawn["step"]
        total: torch.Tensor = self.module(inputs).square().mean()
        return total

    def metrics(self) -> dict[str, torch.Tensor]:
        return {"sum": torch.zeros(())}


def test_a_checkpoint_with_the_average_as_a_state_is_gone_on_with(tmp_path: Path) -> None:
    """Such a one is of 0.1.0: weights by name, steps counted once, and nothing else of the average."""
    settings = TrainingSettings(
        output=str(tmp_path / "run"),
        source="none",
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
    loop = TrainingLoop(
        run, settings, "transformer", other, torch.optim.AdamW(other.parameters()), training_accelerator()
    )
    assert loop.step == 12 and list(loop.averaged_weights()) == list(averaged)
    for name, tensor in averaged.items():
        assert torch.equal(loop.averaged_weights()[name], tensor)
        assert torch.equal(other.state_dict()[name], module.state_dict()[name])
    expected = {name: tensor.double() for name, tensor in averaged.items()}
    batches = partial(shuffled_batches, 4, settings.batch_size, settings.seed)
    for step in loop.steps(Sum(other), batches, lambda step, total: 1.0, settings.total_steps(4)):
        expected = by_formula(expected, other, 0.9995, step)
        check_close(loop.averaged_weights(), expected)
    assert loop.step == 20  # two steps an epoch
    saved = torch.load(run.checkpoint, weights_only=True)
    assert saved.keys() == state.keys() and saved["average"].keys() == averaged.keys()
    assert torch.equal(saved["average"]["0.weight"], loop.averaged_weights()["0.weight"])


def test_a_folder_that_was_moved_is_gone_on_with(tmp_path: Path) -> None:
    values = {"source": "none", "epochs": 1, "batch_size": 2}
    rates = {"learning_rate": 0.01, "ema_decay": 0.9}
    for output in ("first", "second"):
        settings = TrainingSettings(output=str(tmp_path / output), **values, **rates)  # type: ignore[arg-type]
        assert RunFolder(settings.output, settings).path == tmp_path / output
        if output == "first":
            (tmp_path / "first").rename(tmp_path / "second")


def test_the_folder_of_an_earlier_version_is_gone_on_with(tmp_path: Path) -> None:
    """It says `bf16` and `decay_share` where there are more choices today, and nothing of what is new."""
    settings = DiffusionTraining(
        output=str(tmp_path / "run"),
        source="fashion-mnist",
        vae="vae",
        image_size=28,
        padding=2,
        patch_size=2,
        num_layers=6,
        num_attention_heads=3,
        attention_head_dim=64,
        epochs=400,
        batch_size=128,
        learning_rate=1e-3,
        ema_decay=0.9995,
        mixed_precision="bf16",
        torch_compile=True,
        schedule="warmup_stable_decay",
        decay_share=0.2,
    )
    before = {"bf16": True, "torch_compile": True, "decay_share": 0.2, "epochs": 100, "label_dropout": 0.1}
    for name in ("output", "source", "vae", "image_size", "padding", "batch_size", "learning_rate"):
        before[name] = getattr(settings, name)
    for name in ("patch_size", "num_layers", "num_attention_heads", "attention_head_dim", "ema_decay"):
        before[name] = getattr(settings, name)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.yaml").write_text(yaml.safe_dump(before))
    for changes in ({"mixed_precision": "no"}, {"schedule": "one_cycle"}, {"label_dropout": 0.2}):
        with pytest.raises(ConfigError, match=next(iter(changes))):
            RunFolder(settings.output, replace(settings, **changes), FREE, earlier_settings)
    RunFolder(settings.output, settings, FREE, earlier_settings)
    RunFolder(settings.output, settings, FREE, earlier_settings)  # in today's words from then on
    assert earlier_settings({"bf16": False, "decay_share": None}) == {"mixed_precision": "no"}


def test_rows_that_will_be_made_again_are_forgotten(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run", Nothing())
    run.forget_after(3)
    for step in (1, 2, 3, 4):
        run.log(step=step, mse=1.0 / step)
    with (tmp_path / "run" / "metrics.csv").open("a") as file:
        file.write("5")  # killed while it wrote
    run.forget_after(3)
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "1", "2", "3"]
    run.forget_after(0)
    assert not (tmp_path / "run" / "metrics.csv").exists()


@dataclass
class Nothing:
    """Settings without any."""
