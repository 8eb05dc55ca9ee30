"""The main job in about two minutes: generate, look, train a student, test it on real images.

    make demo

Writes the images and `contact-sheet.png` under `demo/`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from tqdm import tqdm

from d3hr_datasets import D3HRFashionMNIST
from d3hr_datasets.dataset.contact_sheet import contact_sheet
from d3hr_datasets.errors import ImagesNotFoundError
from d3hr_datasets.experiments.protocol_files import choose_protocol
from d3hr_datasets.image_sets.generated_images import dataset_tensors
from d3hr_datasets.image_sets.real_images import load_images
from d3hr_datasets.students.evaluation import evaluate
from d3hr_datasets.students.training import train_student
from d3hr_datasets.students.views import TensorImages, normalized
from recipes.common.program import program


def size_of(folder: Path, pattern: str = "*") -> int:
    """Return the bytes of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob(pattern) if path.is_file())


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("demo"))
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--download", action="store_true", help="let torchvision download Fashion-MNIST")
    arguments = parser.parse_args()
    started = time.monotonic()
    dataset = D3HRFashionMNIST(root=arguments.output / "images", ipc=arguments.ipc)
    print(dataset)
    dataset.materialize()
    print(f"{len(dataset)} images in {time.monotonic() - started:.1f} s: {dataset.image_folder}")
    images, labels = dataset_tensors(dataset)
    sheet = arguments.output / "contact-sheet.png"
    contact_sheet([dataset[index][0] for index in range(len(dataset))], arguments.ipc).save(sheet)
    print(f"contact sheet, one class a row: {sheet}")

    artifact = dataset.artifact.folder
    statistics = (artifact / "statistics.safetensors").stat().st_size
    print(
        f"\nstatistics for every number of images per class: {statistics / 1000:.0f} kB "
        f"({len(dataset.artifact.info.inversion.timesteps)} timesteps)\n"
        f"diffusion model: {size_of(artifact / 'model') / 1e6:.1f} MB\n"
        f"these {len(dataset)} images as PNG: {size_of(dataset.image_folder, '*.png') / 1000:.0f} kB"
    )

    protocol = choose_protocol("dc", "fashion-mnist", dataset.ipc, {"epochs": arguments.epochs})
    settings = protocol.settings()
    started = time.monotonic()
    with tqdm(total=settings.epochs, desc="training a student", unit="epoch") as bar:
        student = train_student(
            settings,
            TensorImages(images, labels, dataset.classes),
            len(dataset.classes),
            on_epoch=lambda _: bar.update(),
        )
    print(f"\nConvNet-3 trained on them for {settings.epochs} epochs in {time.monotonic() - started:.0f} s")
    try:
        test = TensorImages(*load_images("fashion-mnist", "test", 28, 1, arguments.download))
    except ImagesNotFoundError as error:
        print(f"its accuracy on real images could not be measured: {error}")
    else:
        top1 = evaluate(normalized(settings, student), settings, test)["top1"]
        print(f"accuracy on {len(test):,} real test images: {top1:.1f} %")


if __name__ == "__main__":
    main()
