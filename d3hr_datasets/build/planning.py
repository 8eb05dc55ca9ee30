"""Planning a build: images, a diffusion model and settings -> all that a build needs, checked, not yet run.

In: a source, a model and a folder, as people name them. Out: a `BuildPlan`: images with the model's class
labels, the model loaded, the description of the artifact, and what to tell the user. Nothing is written until
it is run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.artifact.info_texts import MAX_TEXT
from d3hr_datasets.build.artifact_folder import written_folder
from d3hr_datasets.build.build import build_artifact, check_images, check_sizes
from d3hr_datasets.build.build_settings import BuildSettings, ClassOptions
from d3hr_datasets.build.joined_processes import join_processes, wait_for_processes
from d3hr_datasets.build.kept_sums import KeptSums
from d3hr_datasets.build.loaded_model import LoadedModel, check_kind, load_model
from d3hr_datasets.build.mode_count import choose_num_modes
from d3hr_datasets.build.model_facts import (
    describe_artifact,
    image_frame,
    model_reference,
    model_state,
    whole_name,
)
from d3hr_datasets.build.model_options import ModelOptions
from d3hr_datasets.build.notes import model_notes, moments_note, shrinkage_note, tolerance_note
from d3hr_datasets.build.output_folders import BuildPlaces, check_places, choose_places
from d3hr_datasets.build.plan_options import PlanOptions
from d3hr_datasets.build.private_build import check_private, private_notes, with_privacy
from d3hr_datasets.build.prompt_options import PromptOptions
from d3hr_datasets.build.reference_import import as_reference
from d3hr_datasets.build.shrinkage_choice import Shrinkage
from d3hr_datasets.config.defaults import CHUNK_SIZE, NUM_READERS
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io.text import check_text
from d3hr_datasets.numerics.allocator import kept_memory
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.privacy.settings import PrivacySettings
from d3hr_datasets.sources.opening import OpenedSource, SourceOptions, open_source
from d3hr_datasets.sources.records import Images
from d3hr_datasets.sources.user_datasets import ImageStream, TorchvisionLike, told_apart


@dataclass(frozen=True)
class BuildPlan:
    """A build that has not begun; `dataclasses.replace` changes what is not wanted so.

    Args:
        images: With the model's class labels.
        model: A folder in diffusers' layout, or "ORG/NAME@COMMIT"; a folder is copied into the artifact.
        diffusion: The same, loaded.
        info: What the artifact says of itself; its images have not been counted.
        output: Folder of the artifact.
        work: Folder of finished chunks.
        license_name: Licence of the images.
        notes: What the user should know of what was chosen, a sentence each.
        adapter: Folder of the model's adapter, which is copied into the artifact.
        shrinkage: How far variances are drawn towards those that all classes share.
        noted: What else the artifact's `source` says: licence and kind of the model, where they are known.
        sums: That the sums behind the statistics are kept, and whose they are; None keeps none.
        tolerance: Share of its spread to which the means of a class are wanted; None inverts all images.
    """

    images: Images
    model: str
    diffusion: LatentDiffusion
    info: ArtifactInfo
    output: Path
    work: Path
    license_name: str | None = None
    notes: tuple[str, ...] = ()
    adapter: Path | None = None
    shrinkage: Shrinkage = "none"
    noted: Mapping[str, str] = field(default_factory=dict)
    sums: KeptSums | None = None
    tolerance: float | None = None
    _model_state: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "output", Path(self.output))
        object.__setattr__(self, "work", Path(self.work))
        object.__setattr__(self, "_model_state", model_state(self.model, self.adapter))
        if self.license_name is not None:
            check_text("license_name", self.license_name, MAX_TEXT)  # before hours of work
        if model_reference(self.model) != self.info.model:
            raise ConfigError(
                f"the plan's model is {self.model!r:.300}, and its info says {self.info.model}; plan anew "
                "to build with another model"
            )
        if (self.adapter is not None) != self.info.adapter:
            raise ConfigError(
                f"the plan's adapter is {str(self.adapter)!r:.300}, and its info says adapter = "
                f"{self.info.adapter}; plan anew to build with another adapter"
            )

    @neutral()
    def run(
        self,
        batch_size: int | None = None,
        chunk_size: int = CHUNK_SIZE,
        progress: bool = True,
        *,
        skip_unreadable: int = 0,
        num_readers: int = NUM_READERS,
    ) -> Artifact:
        """Build the artifact; goes on from finished chunks. Arguments and errors as `build_artifact`.

        An artifact that is at `output` stays as it is until the new one is finished. Under
        `accelerate launch` or `torchrun` every process calls this, and the first one writes.
        """
        check_sizes(self.info, batch_size, chunk_size, skip_unreadable, num_readers)
        check_places(self.output, self.work, self.model, self.adapter)
        if self.sums is not None:
            self.sums.check(self.info, self.output)
        if self._model_state != model_state(self.model, self.adapter):
            raise ConfigError(f"the model {self.model} has changed since the build was planned; plan it anew")
        processes = join_processes()
        info, noted = self.info, dict(self.noted)
        if self.license_name is not None:
            noted["license"] = self.license_name
        if info.privacy is not None:  # nothing is added when it has been released
            info, noted = dataclasses.replace(info, source={**info.source, **noted}), {}
        writing = written_folder(
            self.output,
            self.model,
            self.diffusion,
            adapter=self.adapter,
            with_embeddings=info.embeddings,
            noted=noted,
        )
        is_first = processes.is_main_process
        restored = self.sums.restored(self.output) if is_first and self.sums is not None else nullcontext()
        with kept_memory(), restored, writing if is_first else nullcontext(self.output) as place:
            build_artifact(
                self.images,
                self.diffusion,
                place,
                info,
                self.work,
                batch_size,
                chunk_size,
                progress,
                skip_unreadable=skip_unreadable,
                num_readers=num_readers,
                shrinkage=self.shrinkage,
                sums=self.sums,
                tolerance=self.tolerance,
            )
        wait_for_processes(processes)
        return Artifact.load(self.output)


@neutral()
def plan_build(
    source: str | Path | TorchvisionLike | ImageStream,
    model: str | Path,
    output: str | Path,
    settings: BuildSettings | None = None,
    *,
    work: str | Path | None = None,
    source_options: SourceOptions | None = None,
    class_options: ClassOptions | None = None,
    model_options: ModelOptions | None = None,
    prompt_options: PromptOptions | None = None,
    sums: KeptSums | None = None,
    privacy: PrivacySettings | None = None,
) -> BuildPlan:
    """Open images and model, fit them to each other, and return what `d3hr build` would build of them.

    Under `accelerate launch` or `torchrun` every process calls this with the same arguments.

    Args:
        source: A folder with one folder per class, "torchvision:NAME[:ROOT]", or "datasets:NAME"; or a data
            set of (PIL image, label), whose labels are the model's where it does not name its classes.
        model: Diffusion model: a folder in diffusers' layout, or "ORG/NAME@COMMIT" on the Hub.
        output: Folder of the artifact.
        settings: What is built.
        work: Folder of finished chunks, shared by all machines; by default OUTPUT.chunks.
        source_options: How to open a source that is given by its name.
        class_options: How its classes become those of the model.
        model_options: How the model is loaded and run, and with which adapter.
        prompt_options: What a model of prompts is told of each class. Its classes are those of the source.
        sums: Keep the sums behind the statistics, as `settings.moments` does, and note whose they are.
        privacy: Promise the images so much; without modes, sums, or more than one timestep.

    Raises:
        ConfigError: A value is not accepted, folders lie in each other, or classes or prompts do not match.
        SourceError: The source cannot be opened.
        ModelNotFoundError: The model is missing; likewise `ModelFormatError`, where it cannot be used.

    Example:
        >>> settings = BuildSettings(timesteps=(400,), num_modes=10)
        >>> plan = plan_build("torchvision:CIFAR10", "my-model", "my-cifar10", settings)
        >>> print(plan.info.inversion, *plan.notes)
        >>> artifact = plan.run()
    """
    given = (settings, source_options, class_options, model_options, prompt_options, sums, privacy)
    options = PlanOptions(*given)
    model = whole_name(model)  # before anything is opened
    named = str(source) if isinstance(source, str | Path) else None
    places = choose_places(named, output, work, model, options.adapter)
    kind = check_kind(model, options)
    opened = _open(source, options)
    loaded = load_model(model, kind, opened, options, named is not None)
    return _as_plan(model, loaded, opened, options, places)


def _as_plan(
    model: str, loaded: LoadedModel, opened: OpenedSource, options: PlanOptions, places: BuildPlaces
) -> BuildPlan:
    info, notes = _describe(model, loaded, opened, options, places)
    return BuildPlan(
        loaded.images,
        model,
        loaded.diffusion,
        info,
        places.output,
        places.work,
        options.settings.license_name,
        tuple(filter(None, (*notes, loaded.note))),
        options.adapter,
        options.settings.shrinkage_used,
        loaded.noted | ({"model_kind": loaded.diffusion.kind.name} if info.needs_format_2 else {}),
        options.sums,
        options.settings.tolerance,
    )


def _open(source: str | Path | TorchvisionLike | ImageStream, options: PlanOptions) -> OpenedSource:
    with join_processes().main_process_first():  # it may download
        opened = open_source(source, options.source, allow_empty=options.privacy is not None)
    if isinstance(source, str | Path):
        return opened
    return dataclasses.replace(opened, images=told_apart(opened.images))


def _describe(
    model: str, loaded: LoadedModel, opened: OpenedSource, options: PlanOptions, places: BuildPlaces
) -> tuple[ArtifactInfo, list[str | None]]:
    """Return the description of the artifact, and what to tell the user of it."""
    diffusion, settings, output = loaded.diffusion, options.settings, places.output
    padding, disagreement = image_frame(model, diffusion.sample_size, settings.image_size)
    inversion = settings.inversion(diffusion.schedule)
    info = describe_artifact(
        model,
        diffusion,
        loaded.classes,
        padding,
        inversion,
        settings.decode(inversion),
        name=settings.name_of(output),
        source=opened.description,
        producer=settings.producer,
        prompts=loaded.prompts,
        embeddings=options.prompts.store_embeddings,
        adapter=options.adapter is not None,
    )
    info = with_privacy(info, options.privacy, settings.num_modes, diffusion.schedule)
    diffusion.forward_passes(info.decode)  # says before hours of work how it cannot be decoded
    asked = info if settings.num_modes is None else dataclasses.replace(info, num_modes=settings.num_modes)
    check_images(loaded.images, asked, exact=options.sums is not None, tolerance=settings.tolerance)
    info, why = _complete(info, loaded.images, settings)
    check_private(info, output, settings.shrinkage_used, options.sums, settings.tolerance)
    shrinkage = shrinkage_note(loaded.images, info, settings)
    if options.sums is not None:
        options.sums.check(info, output)
    moments = moments_note(info, options.sums)
    tolerance = tolerance_note(loaded.images, info, settings.tolerance)
    private = private_notes(info, loaded.images, places.work)
    notes = [disagreement, why, *model_notes(info, diffusion), shrinkage, moments, tolerance]
    return info, [*notes, *private]


def _complete(info: ArtifactInfo, images: Images, settings: BuildSettings) -> tuple[ArtifactInfo, str | None]:
    """Return the description with modes and budgets, and why there are so many modes where nobody said."""
    if settings.reference:
        return as_reference(info), None
    if info.privacy is not None:
        return settings.with_budgets(info), None
    num_modes, why = (
        choose_num_modes(images, info, settings.tolerance)
        if settings.num_modes is None
        else (settings.num_modes, None)
    )
    return settings.with_budgets(dataclasses.replace(info, num_modes=num_modes)), why
