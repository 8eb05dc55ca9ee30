"""The command `d3hr build`: labelled images and a diffusion model -> an artifact.

In: arguments. Out: the folder of the artifact, on stdout. `accelerate launch -m d3hr_datasets.build` and
`torchrun -m d3hr_datasets.build` take the same arguments, and share the work between processes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from d3hr_datasets.build.build_settings import SET_BY_REFERENCE, BuildSettings, ClassOptions
from d3hr_datasets.build.prompt_options import PromptOptions
from d3hr_datasets.cli_common import build_options as of_build
from d3hr_datasets.cli_common.artifact_options import (
    AllowBinOption,
    ClassListOption,
    DecodeGuidanceOption,
    DecodeIntervalOption,
    DecodeNumStepsOption,
    DecodeSolverOption,
    DecodeSpacingOption,
    DecodeTimestepOption,
    LicenseOption,
    ModelOption,
    NameOption,
    OutputOption,
    print_artifact,
)
from d3hr_datasets.cli_common.command_group import command_group
from d3hr_datasets.cli_common.error_lines import OTHER_NAMES
from d3hr_datasets.cli_common.output import CpuOffloadOption, EstimateOption, JsonOption, print_estimate
from d3hr_datasets.config.defaults import CHUNK_SIZE, NUM_READERS

DEFAULT = BuildSettings()

if TYPE_CHECKING:
    from d3hr_datasets.build.model_options import ModelOptions


def build(
    context: typer.Context,
    source: of_build.SourceArgument,
    model: ModelOption,
    output: OutputOption,
    name: NameOption = None,
    split: of_build.SplitOption = "train",
    download: of_build.DownloadOption = False,
    streaming: of_build.StreamingOption = False,
    image_column: of_build.ImageColumnOption = None,
    label_column: of_build.LabelColumnOption = None,
    class_list: ClassListOption = None,
    class_map: of_build.ClassMapOption = None,
    class_order: of_build.ClassOrderOption = "match",
    timesteps: of_build.TimestepsOption = None,
    steps: of_build.StepsOption = DEFAULT.num_inference_steps,
    num_steps: of_build.NumStepsOption = DEFAULT.num_steps,
    spacing: of_build.SpacingOption = DEFAULT.spacing,
    guidance_scale: of_build.GuidanceOption = DEFAULT.guidance_scale,
    inversion: of_build.InversionOption = DEFAULT.method,
    evaluations_per_step: of_build.EvaluationsOption = DEFAULT.evaluations_per_step,
    noise_timestep: of_build.NoiseTimestepOption = DEFAULT.noise_timestep,
    latent: of_build.LatentOption = DEFAULT.latent,
    seed: of_build.SeedOption = DEFAULT.seed,
    modes: of_build.ModesOption = None,
    decode_timestep: DecodeTimestepOption = None,
    decode_guidance_scale: DecodeGuidanceOption = DEFAULT.decode_guidance_scale,
    decode_solver: DecodeSolverOption = None,
    decode_num_steps: DecodeNumStepsOption = None,
    decode_spacing: DecodeSpacingOption = None,
    decode_guidance_interval: DecodeIntervalOption = None,
    prompt: of_build.PromptOption = None,
    prompts: of_build.PromptsOption = None,
    negative_prompt: of_build.NegativePromptOption = None,
    store_embeddings: of_build.StoreEmbeddingsOption = False,
    adapter: of_build.AdapterOption = None,
    shrinkage: of_build.ShrinkageOption = "auto",
    budgets: of_build.BudgetsOption = None,
    image_size: of_build.ImageSizeOption = None,
    work: of_build.WorkOption = None,
    batch_size: of_build.BuildBatchSizeOption = None,
    chunk_size: of_build.ChunkSizeOption = CHUNK_SIZE,
    readers: of_build.ReadersOption = NUM_READERS,
    skip_unreadable: of_build.SkipUnreadableOption = 0,
    device: of_build.DeviceOption = None,
    dtype: of_build.DtypeOption = "float32",
    compiled: of_build.CompileOption = False,
    cpu_offload: CpuOffloadOption = False,
    allow_bin: AllowBinOption = False,
    license_name: LicenseOption = None,
    reference_code: of_build.ReferenceOption = False,
    tolerance: of_build.ToleranceOption = None,
    moments: of_build.KeepSumsOption = False,
    membership: of_build.MembershipOption = None,
    membership_key: of_build.MembershipKeyOption = None,
    epsilon: of_build.EpsilonOption = None,
    delta: of_build.DeltaOption = None,
    estimate: EstimateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Build an artifact from labelled images and a diffusion model, and print its folder.

    Goes on where it was interrupted. Under `accelerate launch -m d3hr_datasets.build` all processes share the
    work.
    """
    from d3hr_datasets.build import join_processes, plan_build
    from d3hr_datasets.build.kept_sums import kept_sums
    from d3hr_datasets.build.private_build import batch_note, batch_size_of
    from d3hr_datasets.privacy.settings import privacy_settings
    from d3hr_datasets.sources.opening import SourceOptions

    if reference_code:
        _check_alone(context)
    settings = BuildSettings(
        timesteps=tuple(timesteps) if timesteps else None,
        num_inference_steps=steps,
        num_steps=num_steps,
        spacing=spacing,
        guidance_scale=guidance_scale,
        method=inversion,
        evaluations_per_step=evaluations_per_step,
        noise_timestep=noise_timestep,
        latent=latent,
        seed=seed,
        num_modes=modes,
        decode_timestep=decode_timestep,
        decode_guidance_scale=decode_guidance_scale,
        decode_solver=decode_solver,
        decode_num_steps=decode_num_steps,
        decode_spacing=decode_spacing,
        decode_guidance_interval=decode_guidance_interval,
        budgets=budgets or (),
        shrinkage=of_build.parse_shrinkage(shrinkage),
        image_size=image_size,
        name=name,
        license_name=license_name,
        reference=reference_code,
        moments=moments,
        tolerance=tolerance,
    )
    plan = plan_build(
        source,
        model,
        output,
        settings,
        work=work,
        source_options=SourceOptions(split, download, streaming, image_column, label_column),
        class_options=ClassOptions(class_list, class_map, class_order == "same"),
        model_options=_model_options(device, dtype, allow_bin, compiled, adapter, cpu_offload),
        prompt_options=PromptOptions(prompt, prompts, negative_prompt, store_embeddings),
        sums=kept_sums(moments, membership, membership_key),
        privacy=privacy_settings(epsilon, delta),
    )
    processes = join_processes()
    batch_size = batch_size_of(plan.info, batch_size)
    notes = filter(None, (*plan.notes, batch_note(plan.info, batch_size)))
    for note in notes if processes.is_main_process else ():
        typer.echo(f"d3hr: {note}", err=True)
    if estimate:
        from d3hr_datasets.build.estimate import estimate_build

        sharing = processes.num_processes
        found = estimate_build(plan, batch_size, chunk_size, num_readers=readers, processes=sharing)
        if processes.is_main_process:
            print_estimate(found, as_json)
        processes.destroy_process_group()
        return
    artifact = plan.run(batch_size, chunk_size, skip_unreadable=skip_unreadable, num_readers=readers)
    if processes.is_main_process:
        print_artifact(artifact, as_json)
    processes.destroy_process_group()


def _model_options(
    device: str | None,
    dtype: str,
    allow_bin: bool,
    compiled: bool,
    adapter: Path | None,
    cpu_offload: bool,
) -> ModelOptions:
    import torch

    from d3hr_datasets.build import ModelOptions

    return ModelOptions(device, getattr(torch, dtype), allow_bin, compiled, adapter, cpu_offload)


def _check_alone(context: typer.Context) -> None:
    """Refuse options beside --reference that it would overrule, also where they say what is meant anyway."""
    from d3hr_datasets.errors import ConfigError

    names = [
        next(name for name in (setting, *OTHER_NAMES.get(setting, ())) if name in context.params)
        for setting in SET_BY_REFERENCE
    ]
    given = [name for name in names if _is_given(context, name)]
    if given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ConfigError(f"--reference sets what {options} would; leave out one of them")


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _take_no_options() -> None:
    """Be a group, as `d3hr` is, so that errors are lines here, too."""


if __name__ == "__main__":  # `accelerate launch -m d3hr_datasets.build ...`
    app = command_group("Build an artifact.")
    app.callback()(_take_no_options)
    app.command()(build)
    app(["build", *sys.argv[1:]])
