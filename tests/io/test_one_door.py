"""A file that others wrote is opened by `io.untrusted_files` alone, an image by `sources.image_files`.

What opens a file otherwise stands below, with the reason why nobody else has written it or what was asked
before. A new line that opens one has to go through the door, or be added here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import d3hr_datasets

PACKAGE = Path(d3hr_datasets.__file__).parent
OPENING = {
    "open",
    "read_text",
    "read_bytes",
    "load",
    "safe_open",
    "load_file",
    "ImageFolder",
    "fdopen",
    "memmap",
    "from_pretrained",
    "load_state_dict",
    "load_dataset",
    "snapshot_download",
    "hf_hub_download",
    "load_config",
    "fromfile",
}
OWN = "a file of this package"
CACHE = "a file of the cache, which has a door of its own: `cache.files.read_bytes`"
RUN = "a file of a run, which this library has written"
ASKED = "`check_file` or `read_header` has looked at it in the lines before"
ALLOWED = {
    ("io.untrusted_files", "fdopen", "open_file"): "the door",
    ("io.untrusted_files", "open", "open_file"): "the door",
    ("io.atomic", "open", "_remove_left"): "to lock it; no link is followed, and nothing is read of it",
    ("io.atomic", "open", "added_folder"): "to lock it; nothing is read of it",
    ("io.atomic", "open", "sync"): "nothing is read of it",
    ("runs.measured_cost", "read_text", "_memory"): "what the system says of this process",
    ("artifact.tensors", "safe_open", "_read"): ASKED,
    ("artifact.tensors", "load_file", "with_mode_means"): "of an artifact that was loaded and checked",
    ("artifact.embeddings", "load_file", "read_embeddings"): ASKED,
    ("artifact.order_file", "safe_open", "read_order"): ASKED,
    ("artifact.membership", "safe_open", "read_membership"): ASKED,
    ("artifact.moments_file", "safe_open", "read_moments"): ASKED,
    ("diffusion.adapters", "load_file", "apply_adapter"): ASKED,
    ("build.chunks", "safe_open", "load_tensors"): ASKED,
    ("build.mode_latents", "safe_open", "_opened"): ASKED,
    (
        "image_sets.tensor_files",
        "load",
        "_load_torch",
    ): "of what the door has opened, after `check_torch_file`",
    ("image_sets.tensor_files", "safe_open", "_load_safetensors"): ASKED,
    ("students.soft_labels", "safe_open", "load"): ASKED,
    ("students.teachers", "load_state_dict", "_load_weights"): ASKED,
    ("build.reference_import", "load", "_load"): "of what the door has opened",
    ("dataset.tiny_imagenet", "open", "loader"): "of what the door has opened, with formats",
    ("sources.image_files", "open", "open_image"): "of what the door has opened, with formats",
    ("sources.image_files", "load", "open_image"): "pixels of an image that is open",
    (
        "sources.image_folders",
        "ImageFolder",
        "open_image_folder",
    ): "links are looked at before, images by `open_image`",
    ("classes.class_list", "read_text", "_read"): OWN,
    ("io.hub_files", "hf_hub_download", "fetch_file"): "the door to the Hub",
    (
        "sources.huggingface",
        "load_dataset",
        "_load",
    ): "a library's own formats; images by `open_image`",
    ("diffusion.loading", "from_pretrained", "_load"): "of a folder that `check_size` has looked at",
    ("diffusion.prompts", "from_pretrained", "_open_encoders"): "of a folder that `check_encoders` looked at",
    ("dataset.dataset", "open", "loader"): CACHE,
    ("dataset.dataset", "load", "loader"): CACHE,
    ("cache.image_cache", "open", "read"): CACHE,
    ("cache.image_cache", "load", "_decode"): CACHE,
    ("cli.report", "read_text", "report"): "written by the command itself",
    ("training.base_model", "from_pretrained", "_load_vae"): "of a folder that `check_size` has looked at",
    ("training.latents", "safe_open", "_open"): ASKED,
    ("training.loop", "load_state_dict", "_load"): "tensors in memory",
    ("training.weight_average", "load_state_dict", "restore_average"): "tensors in memory",
    ("dataset.export", "read_bytes", "_png"): CACHE,
    ("students.training", "load_state_dict", "__init__"): "tensors in memory",
    ("dataset.export", "open", "export_webdataset"): "written, not read",
    ("cli.evaluate", "read_text", "evaluate"): "written by the command itself",
    ("runs.settings_files", "read_text", "read_yaml"): ASKED,
    ("runs.run_folder", "load", "load_checkpoint"): ASKED,
    ("runs.run_folder", "read_text", "_read_settings"): RUN,
    ("runs.run_folder", "open", "log"): RUN,
    ("runs.run_folder", "open", "write"): RUN,
    ("runs.run_folder", "open", "replace_metrics"): RUN,
    ("runs.run_folder", "open", "forget_after"): RUN,
    ("experiments.student_run", "read_text", "_finished"): RUN,
    ("experiments.student_export", "read_text", "is_exported"): RUN,
    ("image_sets.real_images", "open", "provide_fashion_mnist"): "a file of the system's package",
}


def opened() -> Iterator[tuple[str, str, str]]:
    """Yield module, call and function of every call that may open a file, but of own methods of that name."""
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef):
                for node in ast.walk(function):
                    if isinstance(node, ast.Call) and (name := called(node)) in OPENING:
                        yield module, name, function.name


def called(call: ast.Call) -> str:
    """Return the name of what is called; none where it is a class of ours (`Artifact.load`)."""
    function = call.func
    if isinstance(function, ast.Attribute):
        owner = function.value
        own = isinstance(owner, ast.Name) and owner.id in {"Artifact", "LatentDiffusion", "cls", "SoftLabels"}
        return "" if own else function.attr
    return function.id if isinstance(function, ast.Name) else ""


def test_files_of_others_are_opened_by_one_door() -> None:
    found = {call for call in opened() if not call[0].startswith("cache.")}
    allowed = {call for call in ALLOWED if not call[0].startswith("cache.")}
    assert found - allowed == set(), "open it by d3hr_datasets.io.untrusted_files, or say here why not"
    assert allowed - found == set(), "no longer there; take it out of the list"


def test_images_are_opened_with_the_formats_that_are_meant() -> None:
    files = [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "recipes").rglob("*.py")]
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_open = isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Image.open")
            if is_open and isinstance(node, ast.Call):
                assert "formats" in {keyword.arg for keyword in node.keywords}, f"{path}:{node.lineno}"


def test_recipes_read_folders_of_images_as_the_library_does() -> None:
    for path in (PACKAGE.parent / "recipes").rglob("*.py"):
        assert "ImageFolder(" not in path.read_text(encoding="utf-8"), path
