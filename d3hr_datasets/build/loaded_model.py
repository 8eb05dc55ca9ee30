"""The model of a build, loaded, with the classes of its artifact: its own, or those of the source."""

from __future__ import annotations

from dataclasses import dataclass

from d3hr_datasets.artifact.embeddings import as_stored
from d3hr_datasets.build.class_matching import match_to_model, match_to_source
from d3hr_datasets.build.joined_processes import join_processes
from d3hr_datasets.build.model_facts import model_classes, model_license, model_place
from d3hr_datasets.build.plan_options import PlanOptions
from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.config.prompts import Prompts
from d3hr_datasets.diffusion.adapters import AdapterDescription, read_description
from d3hr_datasets.diffusion.conditioning import PromptEmbeddings
from d3hr_datasets.diffusion.kinds.kind import ModelKind
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.model_folder import read_kind
from d3hr_datasets.errors import ConfigError, ModelFormatError
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.sources.opening import OpenedSource
from d3hr_datasets.sources.records import Images


def check_kind(model: str, options: PlanOptions) -> ModelKind:
    """Return the kind of a model, after a look at whether prompts and adapter go with it; nothing is loaded.

    Raises:
        ConfigError: It takes prompts and there are none, or the other way round.
        ModelFormatError: It is of no kind that is known, or the adapter of another one.
        ModelNotFoundError: The Hub cannot be asked, or there is no adapter.
    """
    kind = read_kind(*model_place(model))
    options.prompts.check_kind(kind, model)
    described = _described(options)
    if described is not None and described.kind != kind.name:
        raise ModelFormatError(
            f"the adapter is of a model of the kind {described.kind}, and the model is of the kind "
            f"{kind.name}; "
            "give the model it was trained on"
        )
    return kind


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model with the classes of a build.

    Args:
        diffusion: The model.
        classes: Of the artifact, in the order of its class labels.
        images: With these labels.
        prompts: Of the classes, where the model takes some.
        noted: What the artifact's `source` says of it: its licence, where it is known.
        note: What to tell the user where it is not.
    """

    diffusion: LatentDiffusion
    classes: ClassList
    images: Images
    prompts: Prompts | None
    noted: dict[str, str]
    note: str | None


@neutral()
def load_model(
    model: str, kind: ModelKind, opened: OpenedSource, options: PlanOptions, is_named: bool
) -> LoadedModel:
    """Load the model of a build, and fit the classes of its source to it.

    Args:
        model: A folder in diffusers' layout, or "ORG/NAME@COMMIT".
        kind: Its kind.
        opened: The source.
        options: Those of the build.
        is_named: Whether the source was given by its name.

    Raises:
        ConfigError: Classes do not match, or have no prompts.
        ModelNotFoundError: The model is missing; likewise `ModelFormatError`, where it cannot be used, or the
            adapter is of another one, or of another number of classes than the source.
    """
    license_name, note = model_license(model)
    noted = {} if license_name is None else {"model_license": license_name}
    described = _described(options)
    new_classes = None if described is None else described.num_classes
    learned = () if described is None else described.classes
    if not kind.takes_prompts and (new_classes is None or learned):
        diffusion = _load(model, options, None)
        if learned:  # labels mean what they meant to whoever trained the adapter
            known: ClassList | None = ClassList(learned)
        else:
            known = model_classes(model, options.classes.class_list)
        _check_public(opened, known, options)
        matched = match_to_model(opened, known, diffusion.num_classes, options.classes, is_named)
        return LoadedModel(diffusion, *matched, None, noted, note)
    _check_public(opened, None, options)
    classes, images = match_to_source(opened, options.classes, is_named)
    if new_classes not in (None, len(classes.names)):
        raise ModelFormatError(
            f"the adapter was trained on {new_classes} classes, and the source has {len(classes.names)} "
            f"({', '.join(classes.names[:5])}{', ...' if len(classes.names) > 5 else ''}); build from the "
            "classes it was trained on, in their order: "
            "--class-map with null leaves others out"
        )
    prompts = options.prompts.for_classes(classes.names) if kind.takes_prompts else None
    return LoadedModel(_load(model, options, prompts), classes, images, prompts, noted, note)


def _check_public(opened: OpenedSource, known: ClassList | None, options: PlanOptions) -> None:
    """Check that a private build does not take its classes from the images themselves.

    Raises:
        ConfigError: It does.
    """
    given = known is not None or options.classes.class_list is not None
    if options.privacy is not None and opened.occurring and not given:
        raise ConfigError(
            "the classes would be those that occur among the images, which no privacy budget covers: one "
            "image more may add one; give --class-list, a JSON list of all names or the name of a data set"
        )


def _described(options: PlanOptions) -> AdapterDescription | None:
    return None if options.adapter is None else read_description(options.adapter)


def _load(model: str, options: PlanOptions, prompts: Prompts | None) -> LatentDiffusion:
    where, revision = model_place(model)
    diffusion = LatentDiffusion.from_pretrained(
        where,
        revision=revision,
        device=options.model.device or join_processes().device,
        torch_dtype=options.model.torch_dtype,
        allow_bin=options.model.allow_bin,
        prompts=None if prompts is None else dict(enumerate(prompts.per_class)),
        negative_prompt=options.prompts.negative,
        adapter=options.adapter,
        cpu_offload=options.model.cpu_offload,
    )
    conditioning = diffusion.conditioning
    if options.prompts.store_embeddings and isinstance(conditioning, PromptEmbeddings):
        rounded = as_stored(conditioning)  # images are inverted with what they will be made with
        conditioning.embeddings, conditioning.negative = rounded.embeddings, rounded.negative
    if options.model.torch_compile:
        diffusion.compile()
    return diffusion
