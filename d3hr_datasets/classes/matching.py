"""Classes of a source -> class labels of a model: by names or WordNet IDs, by a map, or by the user's word.

Nothing is guessed: a class that has no certain counterpart is an error. A wrong order would show in nothing
but the images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io.untrusted_files import read_json_argument

# What the source calls a class (its label, or its name where labels are strings) -> class label of the
# model; None leaves its images out.
LabelMap = dict[Any, int | None]

_MENDS = (
    "give --class-map FILE.json, which maps each class of the source to a class label, name or WordNet ID of "
    "the model (null leaves it out), or --class-order same, if the model was trained on these classes in "
    "this order"
)


def match_classes(
    source: Sequence[str] | None,
    model: ClassList | None,
    num_classes: int,
    class_map: Mapping[str, Any] | None = None,
    same_order: bool = False,
) -> tuple[ClassList, LabelMap]:
    """Return the classes of an artifact and the class label of each class of the source.

    Args:
        source: Class names of the source in the order of its labels, perhaps spelled as folders
            (`ClassList.find_folder`); None if it has numbers or strings only.
        model: Names of the model's classes, where they are known.
        num_classes: How many classes the model has.
        class_map: Source class, by name or label, to class label, name or WordNet ID of the model, or None.
        same_order: The user says that label i of the source is class label i of the model.

    Returns:
        The class list of the model, and the map from the source's labels.

    Raises:
        ConfigError: The model's names are not as many as its classes, a class has no certain counterpart,
            the map is not one, or the order is said to be the same and names tell otherwise.
    """
    if class_map is not None and same_order:
        raise ConfigError("give --class-map or --class-order, not both")
    if model is not None and len(model.names) != num_classes:
        raise ConfigError(
            f"the class list has {len(model.names)} classes, the model {num_classes}; give the list of the "
            "classes that the model was trained on, in the order of its class labels"
        )
    if same_order:
        return _same_order(source, model, num_classes)
    if model is None:
        raise ConfigError(
            "nothing says which classes the model knows; give --class-list, the name of a data set or a "
            "JSON list of names in the order of the model's class labels, or --class-order same, if it was "
            "trained on the source's classes in their order"
        )
    if class_map is not None:
        return model, _mapped(source, model, class_map)
    if source is None:
        return model, dict(
            model.labels_by_name
        )  # strings that come as they come; an unknown one is an error then
    found: LabelMap = {label: model.find_folder(name) for label, name in enumerate(source)}
    unknown = [name for name, label in zip(source, found.values(), strict=True) if label is None]
    if unknown:
        raise ConfigError(
            f"{len(unknown)} of {len(source)} classes of the source are not certainly classes of the model: "
            f"{_some(unknown)}; the model knows {_some(model.names)}: {_MENDS}"
        )
    twice = sorted({model.names[label] for label in found.values() if _count(found, label) > 1})  # type: ignore[index]
    if twice:
        raise ConfigError(f"several classes of the source are the model's {_some(twice)}: {_MENDS}")
    return model, found


def read_class_map(path: str | Path) -> dict[str, Any]:
    """Read a class map: a JSON object.

    Raises:
        ConfigError: The file is missing or no JSON object.
    """
    values = read_json_argument(path, "class map")
    if not isinstance(values, dict):
        raise ConfigError(f'the class map {path} is no JSON object such as {{"cat": 3, "dog": "n02084071"}}')
    return values


def read_class_list(where: str) -> ClassList:
    """Return a class list that comes with this package, by name, or that of a JSON file.

    A file is a list of names, an object with "names" and perhaps "wnids", or an object from class label to
    name, as the `id2label` of a model.

    Raises:
        ConfigError: It is none of these.
    """
    if not where.endswith(".json"):
        known = sorted(path.stem for path in Path(__file__).parent.glob("*.json"))
        if where not in known:
            raise ConfigError(f"there is no class list {where!r}; accepted: {known}, or a file NAME.json")
        return ClassList.packaged(where)
    return parse_class_list(read_json_argument(where, "class list"), where)


def parse_class_list(values: Any, where: str) -> ClassList:
    """Return the class list that JSON values are; forms and errors as `read_class_list`."""
    wnids = None
    if isinstance(values, dict) and "names" in values:
        values, wnids = values["names"], values.get("wnids")
    elif isinstance(values, dict):
        expected = [str(label) for label in range(len(values))]
        if sorted(values, key=str) != sorted(expected):
            raise ConfigError(f"{where}: class labels must be 0 to {len(values) - 1}, each once")
        values = [values[label] for label in expected]
    for name, entries in (("names", values), ("wnids", wnids)):
        if entries is None and name == "wnids":
            continue
        if not isinstance(entries, list) or not entries or not all(isinstance(e, str) and e for e in entries):
            raise ConfigError(f"{where}: {name} must be a list of names, not {entries!r:.80}")
        if len(set(entries)) != len(entries):
            twice = [entry for entry in entries if entries.count(entry) > 1]
            raise ConfigError(
                f"{where}: {name} has {twice[0]!r} twice, so it does not tell classes apart; give another "
                "--class-list"
            )
    if wnids is not None and len(wnids) != len(values):
        raise ConfigError(f"{where}: {len(values)} names and {len(wnids)} wnids")
    return ClassList(tuple(values), None if wnids is None else tuple(wnids))


def _same_order(
    source: Sequence[str] | None, model: ClassList | None, num_classes: int
) -> tuple[ClassList, LabelMap]:
    if source is None:
        if model is None:
            raise ConfigError("neither the source nor the model names its classes; give --class-list")
        return model, {label: label for label in range(num_classes)}
    if len(source) != num_classes:
        raise ConfigError(
            f"--class-order same: the source has {len(source)} classes, the model {num_classes}; give "
            "--class-map"
        )
    if model is None:
        return ClassList(tuple(source)), {label: label for label in range(num_classes)}
    for label, name in enumerate(source):
        meant = model.find_folder(name)
        if meant is not None and meant != label:
            raise ConfigError(
                f"--class-order same: label {label} of the source is {name!r}, which is class label {meant} "
                f"of the model ({model.names[meant]!r}); leave the option out to match by names"
            )
    return model, {label: label for label in range(num_classes)}


def _mapped(source: Sequence[str] | None, model: ClassList, class_map: Mapping[str, Any]) -> LabelMap:
    labels: dict[str, int | None] = {}
    for name, value in class_map.items():
        if value is None:
            labels[name] = None
            continue
        is_label = isinstance(value, int) and not isinstance(value, bool)
        label = value if is_label else model.find(value) if isinstance(value, str) else None
        if label is None or not 0 <= label < len(model.names):
            raise ConfigError(
                f"the class map says {name!r}: {value!r}; accepted: a class label 0 to "
                f"{len(model.names) - 1}, a name or WordNet ID of the model ({_some(model.names)}), or null"
            )
        labels[name] = label
    if source is None:
        return {**labels, **{int(name): label for name, label in labels.items() if name.isdecimal()}}
    known = {name: label for label, name in enumerate(source)}
    known.update({str(label): label for label in range(len(source)) if str(label) not in known})
    unknown = [name for name in labels if name not in known]
    found = {known[name]: label for name, label in labels.items() if name in known}
    missing = [name for label, name in enumerate(source) if label not in found]
    if unknown or missing:
        raise ConfigError(
            "the class map must have every class of the source: "
            + (f"it lacks {_some(missing)}" if missing else f"the source has no {_some(unknown)}")
            + "; null leaves a class out"
        )
    return dict(found)


def _count(found: LabelMap, label: int | None) -> int:
    return sum(other == label for other in found.values())


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, list(names)[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
