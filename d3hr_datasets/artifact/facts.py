"""What an artifact is, in words: its facts and licences, for cards, reports and `d3hr info`.

In: an artifact. Out: names and plain texts, which whoever shows them escapes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.artifact.curation import describe_curation
from d3hr_datasets.artifact.d3hr_json import ADAPTER, EMBEDDINGS, MOMENTS
from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.artifact.learned import describe_learned
from d3hr_datasets.artifact.moments_file import moments_bytes
from d3hr_datasets.artifact.privacy import describe_privacy
from d3hr_datasets.artifact.tolerance import describe_tolerance
from d3hr_datasets.config.budgets import OF_METHOD
from d3hr_datasets.config.decode_times import known_forward_passes
from d3hr_datasets.config.settings import DecodeConfig, GroupSamplingConfig, InversionConfig
from d3hr_datasets.diffusion.adapters import FILES as ADAPTER_FILES
from d3hr_datasets.diffusion.adapters import PEFT_CONFIG, read_description
from d3hr_datasets.errors import ArtifactFormatError, D3HRError
from d3hr_datasets.io.text import printable
from d3hr_datasets.io.untrusted_files import is_file, read_file, read_json

CARD = "README.md"
MAX_CARD_BYTES = 4 * 2**20
ADAMS = "predictor and corrector of second order (Adams)"
METHODS = {"ddim": "DDIM", "fixed_point": "fixed points of DDIM's steps", "adams": ADAMS}
FLOW_METHODS = {"ddim": "Euler's steps", "fixed_point": "fixed points of Euler's steps", "adams": ADAMS}
GRIDS = {
    "ddim": "",
    "scheduler": ", spaced as by the model's scheduler",
    "flow": ", spaced as by the model's scheduler",
}
SOLVERS = {"dpm++2m": "DPM-Solver++ (2M)", "unipc": "UniPC"}
SPACINGS = {
    "uniform": "uniform in time",
    "quadratic": "quadratic in time",
    "cubic": "cubic in time",
    "logsnr": "uniform in log(signal / noise)",
}
SHOWN_CLASSES, SHOWN_PROMPTS = 10, 3


def artifact_facts(artifact: Artifact) -> dict[str, str]:
    """Return everything that an artifact says of itself, in plain text by name."""
    info = artifact.info
    model = f"{info.model.path}/ inside the artifact"
    if info.model.path is None:
        model = f"{info.model.repo_id} at revision {info.model.revision}"
    if "model_kind" in info.source:
        model += f", {info.source['model_kind']}"
    source = [str(info.source[key]) for key in ("name", "split") if key in info.source]
    shown = ", ".join(info.classes[:SHOWN_CLASSES]) + (", ..." if len(info.classes) > SHOWN_CLASSES else "")
    per_class = sorted({min(info.counts), max(info.counts)})
    modes = f", and {info.num_modes} modes" if info.num_modes > 1 else ""
    facts = {
        "name": info.name,
        "fingerprint": artifact.fingerprint,
        "source": ", ".join(source) or "not given",
        "classes": f"{len(info.classes)} ({shown})",
        "built from": f"{'about ' if info.privacy else ''}{sum(info.counts):,} images",
        "images per class": " to ".join(f"{count:,}" for count in per_class),
        "images": f"{info.image_size} x {info.image_size}, {info.image_mode}",
        "frame": f"{info.padding} black pixels, while it is encoded" if info.padding else "none",
        "latents": f"{' x '.join(map(str, info.latent_shape))} at {_times(info.inversion)}",
        "model": model,
        **_additions(artifact),
        **inversion_facts(info.inversion),
        "statistics": f"mean and variance per class{modes}, {info.dtype}",
        "decoding": describe_decoding(info.decode),
        "image costs": describe_passes(forward_passes(info)),
        **({"budgets": describe_budgets(info)} if info.budgets else {}),
        "licence": str(info.source.get("license") or "not given"),
        "source fingerprint": str(info.source.get("fingerprint", "not given")),
        "built by": info.producer or "not given",
    }
    if "model_license" in info.source:
        facts["model licence"] = str(info.source["model_license"])
    if "imported" in info.source:
        facts["imported"] = f"{info.source['imported']}; its inversion is not checked here"
    return facts


def _additions(artifact: Artifact) -> dict[str, str]:
    """Return what an artifact says of adapter, prompts, sums, statistics, privacy and order, if it does."""
    info, facts = artifact.info, {}
    if info.adapter:
        facts["adapter"] = _adapter_fact(artifact.folder / ADAPTER)
    if info.prompts is not None:
        shown = ", ".join(map(repr, info.prompts.per_class[:SHOWN_PROMPTS]))
        facts["prompts"] = shown + (", ..." if len(info.prompts.per_class) > SHOWN_PROMPTS else "")
        negative = info.prompts.negative
        facts["negative prompt"] = "that of the model's pipeline" if negative is None else repr(negative)
        facts["embeddings"] = "not stored: the model's text encoders read the prompts"
        if info.embeddings:
            path = artifact.folder / EMBEDDINGS
            size = f", {path.stat().st_size / 1e6:,.1f} MB" if is_file(path) else ""
            facts["embeddings"] = f"stored{size}: no text encoder is needed"
    if MOMENTS in artifact.sha256:
        size = f"{moments_bytes(info) / 1e6:,.1f} MB"
        facts["sums"] = f"stored, {size}: merges exactly with artifacts of the same model"
    if info.shrinkage:
        shares = [share for share in info.shrinkage if share > 0]
        facts["shrinkage"] = (
            f"variances of {len(shares)} of {len(info.shrinkage)} classes drawn towards those that all "
            "classes share, "
            f"by {min(shares):g}" + (f" to {max(shares):g}" if min(shares) < max(shares) else "")
        )
    if info.tolerance is not None:
        facts["precision"] = describe_tolerance(info.tolerance, sum(info.counts), info.classes)
    if info.privacy is not None:
        facts["privacy"] = describe_privacy(info.privacy)
    if info.learned is not None:
        facts["learned"] = describe_learned(info.learned)
    if info.curation is not None:
        decoding = describe_decoding(info.curation.decode)
        facts["curated"] = f"{describe_curation(info.curation)}; {decoding}"
    return facts


def _adapter_fact(folder: Path) -> str:
    """Return what is in the folder of an adapter, as far as it can be read."""
    try:
        described = read_description(folder)
        rank = read_json(folder / PEFT_CONFIG).get("r")
    except D3HRError as error:
        return f"in {ADAPTER}/, which cannot be read: {printable(error)}"
    size = sum((folder / name).stat().st_size for name in ADAPTER_FILES)
    base = (
        f"of {described.repo_id} at revision {described.revision}" if described.repo_id else "of this model"
    )
    classes = "" if described.num_classes is None else f", with embeddings of {described.num_classes} classes"
    return f"LoRA of rank {printable(rank)}, {size / 1e6:,.1f} MB, {base}{classes}"


def _times(inversion: InversionConfig) -> str:
    """Return the times whose statistics are stored, in words."""
    times = ", ".join(map(str, inversion.timesteps))
    if inversion.grid == "flow":
        return f"sigmas {times} (flow matching, shift {inversion.shift:g})"
    return f"timesteps {times}"


def inversion_facts(inversion: InversionConfig) -> dict[str, str]:
    """Return everything that an `InversionConfig` says, but for what is at its default and means nothing."""
    time = "sigma" if inversion.grid == "flow" else "timestep"
    asked = f"{time} a step goes to"
    if inversion.method == "ddim" and inversion.noise_timestep == "source":
        asked = f"{time} a step comes from"
    latent = "mean of the VAE's posterior"
    if inversion.latent == "sample":
        latent = f"sample of the VAE's posterior, seed {inversion.seed}"
    first = (
        "as without noise" if inversion.first_timestep < 0 else f"as at timestep {inversion.first_timestep}"
    )
    steps = f"{inversion.num_inference_steps} steps of"
    if inversion.num_steps is not None:
        steps = f"{inversion.num_steps} steps to the highest time, {SPACINGS[inversion.spacing]}, of"
    return {
        "inversion": (FLOW_METHODS if inversion.grid == "flow" else METHODS)[inversion.method],
        "inverted latents": f"{latent}, taken {first} and carried to {_times(inversion)}",
        "grid of inversion": f"{steps} "
        f"{inversion.num_train_timesteps:,} timesteps{GRIDS[inversion.grid]}, guidance "
        f"{inversion.guidance_scale:g}",
        "model evaluations": f"{inversion.evaluations_per_step} per step, at the {asked}",
        "resizing of images": f"{inversion.resizing}, where they had another size",
    }


def describe_decoding(decode: DecodeConfig) -> str:
    """Return how latents become images, in words."""
    above = ", starting one step above it as D3HR's code does" if decode.reference_off_by_one else ""
    last = ", ending at timestep 1 as D3HR's code does" if decode.reference_last_step else ""
    time = "sigma" if decode.grid == "flow" else "timestep"
    solver = f" of {SOLVERS[decode.solver]}" if decode.solver in SOLVERS else ""
    steps = f"{decode.num_inference_steps} steps{solver}"
    if decode.num_steps is not None:
        word = "step" if decode.num_steps == 1 else "steps"
        steps = f"{decode.num_steps} {word}{solver} counted from there, {SPACINGS[decode.spacing]}"
    where = ""
    if decode.guidance_interval is not None:
        low, high = decode.guidance_interval
        where = f" from {time} {low:g} to {high:g}, none elsewhere"
    return f"from {time} {decode.timestep}{above}, {steps}{last}, guidance {decode.guidance_scale:g}{where}"


def forward_passes(info: ArtifactInfo) -> int | None:
    """Return how often the network runs for an image, or None where only the model tells.

    So it does where its scheduler spaces the steps, and where it may take guidance as an input (FLUX.1).
    `LatentDiffusion.forward_passes` knows.
    """
    if info.source.get("model_kind") == "FLUX.1" and info.decode.guidance_scale != 1:
        return None
    return known_forward_passes(info.decode, info.inversion.num_train_timesteps)


def describe_passes(number: int | None) -> str:
    """Return in words how often the network runs for an image."""
    if number is None:
        return "forward passes of the network in as many steps as the model's scheduler says"
    return f"{number} forward {'pass' if number == 1 else 'passes'} of the network"


def describe_sampling(sampling: GroupSamplingConfig) -> str:
    """Return how groups are sampled, in words: the method, and its settings that are not the default."""
    plain = GroupSamplingConfig(sampling.method)
    values = {name: getattr(sampling, name) for name in OF_METHOD[sampling.method]}
    said = [
        f"{name.replace('_', ' ')} {value:g}"
        for name, value in values.items()
        if value != getattr(plain, name)
    ]
    return sampling.method + (f" ({', '.join(said)})" if said else "")


def describe_budgets(info: ArtifactInfo) -> str:
    """Return what the rules for sets of few images per class say, in words."""
    rules = []
    for rule in info.budgets:
        said = [] if rule.decode is None else [describe_decoding(rule.decode)]
        said += [] if rule.sampling is None else [f"sampled by {describe_sampling(rule.sampling)}"]
        rules.append(f"up to {rule.max_ipc:,} per class: {', '.join(said)}")
    rest = f"as said of decoding, sampled by {describe_sampling(info.default_sampling)}"
    others = "what no rule says, and nested sets"
    if any(rule.is_curated for rule in info.budgets):
        others += ", and seeds but 0 and fresh groups in place of curated images"
    return "; ".join([*rules, f"{others}: {rest}"])


def license_of_data(artifact: Artifact) -> str:
    """Return the licence of the images behind an artifact, "unknown" where it does not say."""
    return str(artifact.info.source.get("license") or "unknown")


def license_of_model(artifact: Artifact) -> str:
    """Return the licence of its diffusion model, which the card of a model inside names.

    Raises:
        ArtifactFormatError: That card has no head that can be read.
    """
    model, noted = artifact.info.model, artifact.info.source.get("model_license")
    if model.path is None:
        return f"{noted} (of {model.repo_id})" if noted else f"that of {model.repo_id}"
    card = artifact.folder / model.path / CARD
    found = None
    if is_file(card):
        try:
            found = license_of_card(read_file(card, MAX_CARD_BYTES).decode("utf-8"))
        except Exception as error:  # of YAML, of what the card says in it, of reading it
            raise ArtifactFormatError(
                f"{card} has no head in YAML, which names the licence: {printable(error)}; mend or remove it"
            ) from error
    return str(found or noted or "not given")


def license_of_card(text: str) -> str | None:
    """Return the licence that the head of a model's card names, with the link that it gives, or None."""
    from huggingface_hub import ModelCard

    card: Any = ModelCard(text)
    head: dict[str, Any] = card.data.to_dict()
    found, link = head.get("license"), head.get("license_link")
    if found == "other":
        found = head.get("license_name") or found
    if found is None or not isinstance(link, str) or not link.startswith(("https://", "http://")):
        return None if found is None else str(found)
    return f"{found}, {link}"
