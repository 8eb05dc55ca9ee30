# %% [markdown]
# A distilled set, looked at and used: about half a minute on two CPU cores.
# Needs the extra "train".

# %% Make the set. The artifact ships with the package; nothing is downloaded.
import torch
from torchvision.datasets import FashionMNIST

from d3hr_datasets import D3HRFashionMNIST
from d3hr_datasets.dataset.contact_sheet import contact_sheet
from d3hr_datasets.students.evaluation import evaluate
from d3hr_datasets.students.protocol import Protocol
from d3hr_datasets.students.training import train_student
from d3hr_datasets.students.views import normalized

dataset = D3HRFashionMNIST(ipc=10)  # ten images per class
dataset.materialize(progress=False)  # generates what is not in the cache yet
print(dataset)

# %% Look at it: one class in each row.
images = [image for image, _ in dataset]
contact_sheet(images, columns=dataset.ipc).save("contact-sheet.png")

# %% Train a student on these 100 images only.
# A narrow ConvNet and few epochs, so that it takes seconds.
protocol = Protocol(
    student="convnet3",
    student_args={"width": 32},
    image_size=28,
    channels=1,
    mean=[0.286],
    std=[0.353],
    epochs=30,
    batch_size=50,
    optimizer="sgd",
    learning_rate=0.03,
    weight_decay=5e-4,
    schedule="one_cycle",
    labels="hard",
)
losses: list[float] = []
student = train_student(
    protocol,
    dataset,
    num_classes=len(dataset.classes),
    seed=0,
    on_epoch=lambda report: losses.append(report.loss),
)
print(f"loss of the first epoch {losses[0]:.2f}, of the last {losses[-1]:.2f}")

# %% Test it on the real test images, if they are here.
# The student has never seen a real image.
try:
    real = FashionMNIST("data", train=False)  # download=True fetches them
except RuntimeError:
    accuracy = None
    print("no real images in data/: give download=True to test the student")
else:
    with torch.no_grad():
        accuracy = evaluate(normalized(protocol, student), protocol, real)["top1"]
    print(f"{accuracy:.1f} % of {len(real):,} real test images are right")
