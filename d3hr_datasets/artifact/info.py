"""What an artifact describes: the contents of `d3hr.json`, validated on construction."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from d3hr_datasets.artifact.curation import Curation
from d3hr_datasets.artifact.info_texts import ADDED, MAX_TEXT, check_classes, check_name, check_wnids
from d3hr_datasets.artifact.learned import Learned
from d3hr_datasets.artifact.privacy import Privacy
from d3hr_datasets.artifact.tolerance import Tolerance
from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.config.budgets import Budget, check_order, named_budget, read_budgets
from d3hr_datasets.config.checks import check_choice, check_int, check_number
from d3hr_datasets.config.json_settings import without_defaults
from d3hr_datasets.config.model_reference import ModelReference
from d3hr_datasets.config.prompts import Prompts
from d3hr_datasets.config.settings import DecodeConfig, GroupSamplingConfig, InversionConfig
from d3hr_datasets.config.timesteps import check_on_grid
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io.text import check_text, check_texts

MAX_MODES = 1024  # of a class

ImageMode = Literal["L", "RGB"]
StatisticsDtype = Literal["float16", "bfloat16", "float32", "int8"]


@dataclass(frozen=True)
class ArtifactInfo:
    """Everything `d3hr.json` says apart from the format and the checksums.

    Args:
        name: Short name, used in folders: lower-case letters, digits, "-", "_", "."; up to 100 characters.
        classes: Class names in the order of the model's class labels 0..K-1, up to 200 characters each.
        image_size: Side of the images in pixels.
        image_mode: "L" or "RGB".
        padding: Black frame in pixels around the image when it is encoded, taken off after decoding.
        latent_shape: (C, H, W).
        model: The diffusion model.
        inversion: How the images were inverted, with the timesteps that are stored.
        decode: How to decode unless the user says otherwise.
        counts: Images behind each class; none before they are counted, as in what is about to be built.
        source: Where the images come from, with a `fingerprint`; free, printable text otherwise.
        producer: Name and version of what wrote it.
        wnids: WordNet IDs of the classes, or None.
        dtype: How means and variances are stored; "int8" is half the size of "float16": integers, with a step
            for each channel of each class or mode.
        num_modes: Modes per class whose means are stored beside the class Gaussians; 1 stores none.
        prompts: Of a model that text describes classes to; its encoders are those of `model`.
        embeddings: Whether what the encoders made of the prompts is stored, so that they are not needed.
        adapter: Whether `adapter/` changes the weights of the model.
        shrinkage: Share by which each class's variances were drawn towards those of all classes, if any.
        budgets: Rules for sets of few images per class, by `max_ipc` from the smallest: the first that is
            not exceeded holds, and above the last one `decode` and `default_sampling` do. So they do for
            nested sets of all sizes, whose images must not change with the size, and in place of a rule of
            curated images for seeds other than 0 and fresh groups.
        curation: How the images of an order of each class were chosen, where the artifact has one.
        tolerance: To what precision means were asked for, where the build stopped when they were known.
        privacy: What is promised to the images, where statistics and counts have noise.
        learned: How the means of modes were moved after the build, where they were.
    """

    name: str
    classes: tuple[str, ...]
    image_size: int
    image_mode: ImageMode
    padding: int
    latent_shape: tuple[int, int, int]
    model: ModelReference
    inversion: InversionConfig
    decode: DecodeConfig
    counts: tuple[int, ...] = ()
    source: dict[str, Any] = field(default_factory=dict)
    producer: str = ""
    wnids: tuple[str, ...] | None = None
    dtype: StatisticsDtype = "float16"
    num_modes: int = 1
    prompts: Prompts | None = None
    embeddings: bool = False
    adapter: bool = False
    shrinkage: tuple[float, ...] = ()
    budgets: tuple[Budget, ...] = ()
    curation: Curation | None = None
    tolerance: Tolerance | None = None
    privacy: Privacy | None = None
    learned: Learned | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        check_classes(self.classes)
        check_int("image_size", self.image_size, 1, 4096)
        check_int("padding", self.padding, 0, 1024)
        check_int("num_modes", self.num_modes, 1, MAX_MODES)
        check_choice("image_mode", self.image_mode, ImageMode)
        check_choice("dtype", self.dtype, StatisticsDtype)
        if not isinstance(self.source, dict) or not isinstance(self.producer, str):
            raise ConfigError("source must be an object and producer a string")
        check_texts("source", self.source, MAX_TEXT)
        check_text("producer", self.producer, MAX_TEXT)
        check_text("model.path", self.model.path or "", MAX_TEXT)
        if not isinstance(self.counts, tuple):
            raise ConfigError(f"counts must be a list, not {self.counts!r}")
        if not isinstance(self.latent_shape, tuple) or len(self.latent_shape) != 3:
            raise ConfigError(f"latent_shape must be (C, H, W), not {self.latent_shape!r}")
        for size in self.latent_shape:
            check_int("latent_shape", size, 1, 4096)
        self.check_decode(self.decode, "decode.")
        self._check_additions()
        self._check_budgets()
        if self.counts:
            self.check_counted()
        check_wnids(self.wnids, len(self.classes))
        for count in self.counts:
            check_int("counts", count, 2)

    @property
    def class_list(self) -> ClassList:
        """The classes by class label."""
        return ClassList(self.classes, self.wnids)

    def check_stored(self, timestep: float, name: str = "timestep") -> None:
        """Raise `ConfigError`, with the timestep's `name`, unless it is one that is stored."""
        if timestep not in self.inversion.timesteps:
            raise ConfigError(f"{name} {timestep} is not stored; stored: {list(self.inversion.timesteps)}")

    def check_decode(self, decode: DecodeConfig, prefix: str = "") -> None:
        """Check that latents of this artifact can be decoded so.

        Raises:
            ConfigError: The time is not stored, or not on the grid.
        """
        if decode.grid != self.inversion.grid:
            raise ConfigError(
                f"{prefix}grid is {decode.grid!r}, and the artifact's is {self.inversion.grid!r}: give "
                f"DecodeConfig(..., grid={self.inversion.grid!r})"
            )
        self.check_stored(decode.timestep, f"{prefix}timestep")
        if decode.grid == "ddim" and decode.num_inference_steps is not None:
            check_on_grid(decode.timestep, decode.num_inference_steps, self.inversion.num_train_timesteps)

    def _check_additions(self) -> None:
        """Check what artifacts of format 2 have."""
        if self.prompts is not None and len(self.prompts.per_class) != len(self.classes):
            raise ConfigError(
                f"prompts must be one for each class ({len(self.classes)}), not {len(self.prompts.per_class)}"
            )
        for name in ("embeddings", "adapter"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} must be true or false, not {getattr(self, name)!r:.80}")
        if self.embeddings and self.prompts is None:
            raise ConfigError("embeddings are stored of prompts, and there are none")
        if not isinstance(self.shrinkage, tuple) or len(self.shrinkage) not in (0, len(self.classes)):
            raise ConfigError(f"shrinkage must have one entry per class ({len(self.classes)}), or none")
        for share in self.shrinkage:
            if check_number("shrinkage", share, 0.0) > 1:
                raise ConfigError(f"shrinkage must be from 0 to 1, not {share!r:.80}")
        if self.curation is not None:
            self.curation.check_fits(len(self.classes), self.num_modes)
            self.check_decode(self.curation.decode, "curation.decode.")
        if self.tolerance is not None:
            self.tolerance.check_fits(len(self.classes), self.counts)
        if self.learned is not None:
            self.learned.check_fits(self.num_modes, self.inversion.timesteps)
        if self.privacy is not None:
            self.privacy.check_fits(self.num_modes, self.inversion, self.curation)

    def _check_budgets(self) -> None:
        """Check that each rule fits what is stored, and that a later one holds for larger sets."""
        check_order(self.budgets)
        for index, rule in enumerate(self.budgets):
            if rule.decode is not None:
                with named_budget(index, "decode"):
                    self.check_decode(rule.decode)
            if rule.sampling is not None and rule.sampling.method == "modes":
                with named_budget(index, "sampling"):
                    self.check_modes()
            if rule.is_curated:
                with named_budget(index, "sampling"):
                    chosen = self.check_curated(rule.max_ipc).decode.timestep
                if rule.decode is not None and rule.decode.timestep != chosen:
                    raise ConfigError(
                        f"budgets[{index}].decode.timestep is {rule.decode.timestep}, and the curated images "
                        f"of the rule were chosen at {chosen}: from another one they are other images. Give "
                        f"{chosen}, or leave it out"
                    )

    @property
    def needs_format_2(self) -> bool:
        """Whether it says what readers of format 1 do not know."""
        added = (self.prompts, self.adapter, self.shrinkage, self.budgets, self.curation, self.tolerance)
        others = (self.privacy, self.learned, self.decode.added, self.inversion.needs_format_2)
        return any(added) or any(others)

    @property
    def default_sampling(self) -> GroupSamplingConfig:
        """How groups are sampled unless a budget or the user says otherwise."""
        return GroupSamplingConfig("modes" if self.num_modes > 1 else "moment_matched")

    def budget(self, ipc: int, curated: bool = True) -> Budget | None:
        """Return the rule for sets of so many images per class that are not nested; None where none is.

        Rules of curated images are passed over unless `curated`.
        """
        rules = (rule for rule in self.budgets if curated or not rule.is_curated)
        return next((rule for rule in rules if ipc <= rule.max_ipc), None)

    def check_modes(self) -> None:
        """Raise `ConfigError` unless modes are stored."""
        if self.num_modes == 1:
            raise ConfigError(
                f"the artifact {self.name} stores no modes; use the method 'moment_matched' or 'search', or "
                "build one with modes"
            )

    def check_curated(self, ipc: int = 1) -> Curation:
        """Return how the images of the stored order were chosen, if there are `ipc` of each class.

        Raises:
            ConfigError: The artifact stores no order, or a shorter one.
        """
        others = "'modes'" if self.num_modes > 1 else "'moment_matched'"
        if self.curation is None:
            raise ConfigError(
                f"the artifact {self.name} stores no order of curated images; use the method {others}, or "
                "make an artifact with one by `d3hr curate`"
            )
        if ipc > self.curation.num_kept:
            raise ConfigError(
                f"ipc must be at most {self.curation.num_kept} with method='curated', not {ipc}: so many "
                f"images of each class are in the order of the artifact {self.name}. Use the method "
                f"{others}, which has no limit, or keep more by `d3hr curate --keep`"
            )
        return self.curation

    def decode_of(self, method: str) -> DecodeConfig:
        """Return how groups of a method of sampling are decoded unless the user says otherwise."""
        return self.check_curated().decode if method == "curated" else self.decode

    def check_class_label(self, class_label: int | None) -> None:
        """Raise `ConfigError` unless there is such a class; None stands for all."""
        if class_label is not None:
            check_int("class_label", class_label, 0, len(self.classes) - 1)

    def check_counted(self) -> None:
        """Check that the images behind each class have been counted, as those of a finished artifact are.

        Raises:
            ConfigError: They have not.
        """
        if len(self.counts) != len(self.classes):
            raise ConfigError(f"counts must have one entry per class ({len(self.classes)})")

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        values = without_defaults(values, **ADDED)
        if self.budgets:
            values["budgets"] = [rule.to_dict() for rule in self.budgets]
        names = ("prompts", "curation", "tolerance", "inversion", "decode")
        parts = {name: part for name in names if (part := getattr(self, name)) is not None}
        return {**values, **{name: part.to_dict() for name, part in parts.items()}}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ArtifactInfo:
        """Make it from JSON values of a finished artifact.

        Raises:
            ConfigError: A field is unknown, missing, or has a value that is not accepted.
        """
        values = dict(values)
        unknown = sorted(set(values) - {item.name for item in dataclasses.fields(cls)})
        if unknown:
            raise ConfigError(f"unknown fields {unknown}")
        configs: dict[str, Any] = {
            "model": ModelReference,
            "inversion": InversionConfig,
            "decode": DecodeConfig,
            "prompts": Prompts,
            "curation": Curation,
            "tolerance": Tolerance,
            "privacy": Privacy,
            "learned": Learned,
        }
        for key, config in configs.items():
            if values.get(key) is not None or (key in values and key not in ADDED):
                values[key] = config.from_dict(values[key])
        if "budgets" in values:
            values["budgets"] = read_budgets(values["budgets"])
        try:
            converted: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
            info = cls(**converted)
        except TypeError as error:
            raise ConfigError(str(error)) from error
        info.check_counted()
        return info
