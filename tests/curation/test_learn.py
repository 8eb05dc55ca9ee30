"""Learning means of modes: groups come nearer to real images, and nothing else in the artifact changes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from d3hr_datasets import Artifact, D3HRDataset, GroupSamplingConfig
from d3hr_datasets.artifact.d3hr_json import MOMENTS, STATISTICS
from d3hr_datasets.artifact.facts import artifact_facts
from d3hr_datasets.build import KeptSums
from d3hr_datasets.curation.learn import learn_shifts
from d3hr_datasets.curation.matching import network_depth
from tests.cli.test_cli import d3hr, succeed
from tests.support.combining import build
from tests.support.curated import add_order, save_separate_artifact
from tests.support.learning import SETTINGS, learn, matcher_of
from tests.support.sets import image_digests
from tests.support.tiny import tiny_model
from tests.support.workers import file_digests

MODES = "t400.modes.mean"


@pytest.fixture(scope="module")
def made(artifact: Artifact, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Return the artifact with learned means. Tests only read it."""
    return learn(artifact, tmp_path_factory.mktemp("learned") / "new", photos)


def test_the_loss_of_draws_that_no_step_had_falls(made: Artifact) -> None:
    learned = made.info.learned
    assert learned is not None and learned.loss_after < learned.loss_before


def test_steps_gain_on_held_draws(artifact: Artifact) -> None:
    losses = []
    for iterations in (1, 25):
        settings = dataclasses.replace(SETTINGS, iterations=iterations, max_shift=2.0)
        losses.append(learn_shifts(matcher_of(artifact, tiny_model()), settings, progress=False)[1])
    assert losses[0][0] == losses[1][0] > losses[0][1] > losses[1][1]


def test_means_move_and_no_further_than_allowed(
    artifact: Artifact, made: Artifact, photos: Path, tmp_path: Path
) -> None:
    near = learn(artifact, tmp_path / "near", photos, max_shift=0.05)
    for found, limit in ((near, 0.05), (made, 0.5)):
        assert found.info.learned is not None
        before, after = artifact.modes(400), found.modes(400)
        shift = (after.mean - before.mean).abs() / before.variance.sqrt()[:, None]
        assert 0.9 * limit < float(shift.max()) < limit + 0.01  # the rounding of float16
        told = found.info.learned.shift
        assert float(shift.square().mean().sqrt()) == pytest.approx(told, rel=0.05)


def test_all_else_is_stored_as_before_in_as_many_bytes(artifact: Artifact, made: Artifact) -> None:
    before, after = (load_file(one.folder / STATISTICS) for one in (artifact, made))
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == [MODES]
    assert (made.folder / STATISTICS).stat().st_size == (artifact.folder / STATISTICS).stat().st_size
    assert dataclasses.replace(made.info, learned=None) == artifact.info
    models = [
        {name: digest for name, digest in one.sha256.items() if name != STATISTICS}
        for one in (artifact, made)
    ]
    assert models[0] == models[1]
    made.verify()


def test_integers_keep_their_steps_of_all_but_the_means(photos: Path, tmp_path: Path) -> None:
    artifact = save_separate_artifact(tmp_path / "int8", dtype="int8")
    made = learn(artifact, tmp_path / "new", photos, iterations=2)
    before, after = (load_file(one.folder / STATISTICS) for one in (artifact, made))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {MODES, f"{MODES}.scale"}


def test_learning_is_deterministic_and_hardly_depends_on_the_batch_size(
    artifact: Artifact, made: Artifact, photos: Path, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    again = learn(artifact, tmp_path / "again", photos)
    assert torch.equal(torch.get_rng_state(), state)
    assert file_digests(again.folder) == file_digests(made.folder)
    batches = [matcher_of(artifact, tiny_model(), batch_size=size) for size in (50, 2)]
    gradients = []
    for matcher in batches:
        shift = torch.zeros(3, 2, 3, 4, 4, requires_grad=True)
        matcher.loss({400: shift}, 0, 3, matcher.draw(1)).backward()
        assert shift.grad is not None
        gradients.append(shift.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-4)
    other = learn(artifact, tmp_path / "other", photos, seed=1, iterations=3)
    assert not torch.equal(other.modes(400).mean, made.modes(400).mean)


@pytest.mark.parametrize("ipc", [2, 3])
def test_gradients_are_those_of_the_sampled_images(ipc: int, artifact: Artifact) -> None:
    """Of groups in which no modes are joined, to which nothing is estimated."""
    matcher = matcher_of(artifact, tiny_model())
    draw = matcher.draw(1)
    shift = torch.zeros(3, 2, 3, 4, 4, requires_grad=True)
    loss = matcher.loss({400: shift}, 1, ipc, draw)
    loss.backward()
    assert shift.grad is not None and not shift.grad[0].any() and not shift.grad[2].any()
    direction = shift.grad / shift.grad.norm()
    low, high = (float(matcher.loss({400: step * direction}, 1, ipc, draw)) for step in (-0.02, 0.02))
    assert (high - low) / 0.04 == pytest.approx(float(shift.grad.norm()), rel=0.05)


def test_what_is_matched_is_what_users_sample(artifact: Artifact, tmp_path: Path) -> None:
    """The group of the loss is that of the sampler, whatever the gradients go by."""
    matcher, shift = matcher_of(artifact, tiny_model()), torch.zeros(3, 2, 3, 4, 4)
    losses = {ipc: float(matcher.loss({400: shift}, 0, ipc, matcher.draw(1))) for ipc in (1, 2, 3)}
    moved = matcher.moved(400, 0, shift[0])
    assert torch.equal(moved, artifact.modes(400).mean[0]) and len(set(losses.values())) == 3


def test_groups_of_modes_are_others_and_all_others_the_same(
    artifact: Artifact, made: Artifact, tmp_path: Path
) -> None:
    for method, same in (("modes", False), ("moment_matched", True)):
        sets = [
            D3HRDataset(one, tmp_path / method, 2, device="cpu", sampling=GroupSamplingConfig(method))  # type: ignore[arg-type]
            for one in (artifact, made)
        ]
        assert (image_digests(sets[0]) == image_digests(sets[1])) is same
    assert artifact.fingerprint != made.fingerprint


def test_an_order_and_what_shows_images_are_left_out_with_a_word(photos: Path, tmp_path: Path) -> None:
    plain = save_separate_artifact(tmp_path / "ordered")
    (plain.folder / "README.md").write_text("# Pictures of them\n")
    ordered = add_order(plain.folder)
    said: list[str] = []
    made = learn(ordered, tmp_path / "new", photos, iterations=1, notify=said.append)
    assert made.info.curation is None and "curation.safetensors" not in made.sha256
    assert not (made.folder / "README.md").exists()
    for text in ("order of curated images is left out", "README.md, curation.safetensors; `d3hr card`"):
        assert any(text in sentence for sentence in said), said


def test_sums_of_the_images_are_left_out_with_a_word(photos: Path, tmp_path: Path) -> None:
    """They are not those of learned means; nor do they stay behind in a copy that may be published."""
    built = build(tmp_path / "built", range(18), sums=KeptSums(), info={"num_modes": 2})
    said: list[str] = []
    made = learn(built, tmp_path / "new", photos, iterations=1, notify=said.append)
    assert MOMENTS in built.sha256 and MOMENTS not in made.sha256 and not (made.folder / MOMENTS).exists()
    assert any("sums of the images (moments.safetensors) are left out" in sentence for sentence in said)


def test_the_command_learns_and_info_says_so(artifact: Artifact, photos: Path, tmp_path: Path) -> None:
    options = ["--iterations", 1, "--ipc", 2, "--width", 4, "--num-images", 4, "--device", "cpu"]
    output = tmp_path / "new"
    said = succeed("learn", artifact.folder, "--images", photos, "--output", output, *options)
    made = Artifact.load(output)
    assert made.info.learned is not None and made.info.learned.ipc == (2,)
    assert said["learned"] == made.info.learned.to_dict() and said["fingerprint"] == made.fingerprint
    assert "learned from the artifact" in d3hr("info", output).stdout
    assert artifact.fingerprint in artifact_facts(made)["learned"]


@pytest.mark.parametrize(("size", "depth"), [(8, 3), (28, 3), (63, 3), (64, 4), (128, 5), (256, 6)])
def test_larger_images_have_deeper_networks(size: int, depth: int) -> None:
    assert network_depth(size) == depth
