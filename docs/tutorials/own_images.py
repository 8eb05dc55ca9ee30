# %% [markdown]
# From a folder of images to an artifact, and from the artifact to images.
# Needs the extra "build". About ten seconds on two CPU cores.
#
# The diffusion model of this script is tiny and has random weights, so that the script needs no download.
# A random model knows nothing of images: WHAT COMES OUT IS NOISE. The way is the real one.
# With a model that was trained on your classes, the same calls give images of them.

# %% Draw a small folder of images: one folder for each class.
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel
from PIL import Image, ImageDraw

from d3hr_datasets import D3HRDataset
from d3hr_datasets.build import BuildSettings, ClassOptions, plan_build
from d3hr_datasets.dataset.contact_sheet import contact_sheet

CLASSES = ("circle", "square")
for name in CLASSES:
    folder = Path("shapes") / name
    folder.mkdir(parents=True)
    for number in range(12):
        image = Image.new("RGB", (16, 16), (0, 0, 20 * number))
        box = (2, 2, 8 + number // 2, 8 + number // 2)
        pen = ImageDraw.Draw(image)
        (pen.ellipse if name == "circle" else pen.rectangle)(box, fill="white")
        image.save(folder / f"{number:02}.png")

# %% Make a diffusion model: diffusers' DiT with its VAE and its noise schedule.
torch.manual_seed(0)
transformer = DiTTransformer2DModel(
    num_attention_heads=2,
    attention_head_dim=8,
    in_channels=4,
    out_channels=4,
    num_layers=2,
    sample_size=4,  # side of the latents
    num_embeds_ada_norm=len(CLASSES),
)
vae = AutoencoderKL(
    latent_channels=4,
    block_out_channels=(8, 8, 8),  # three levels: latents are a quarter of the images' side
    down_block_types=("DownEncoderBlock2D",) * 3,
    up_block_types=("UpDecoderBlock2D",) * 3,
    norm_num_groups=4,
    sample_size=16,
)
scheduler = DDIMScheduler(beta_schedule="linear", clip_sample=False)
DiTPipeline(transformer, vae, scheduler).save_pretrained("random-model")

# %% Plan the build: images, model and settings are checked, nothing is written yet.
plan = plan_build(
    "shapes",
    "random-model",
    "my-set",
    BuildSettings(timesteps=(400,), num_inference_steps=10, num_modes=2),
    class_options=ClassOptions(same_order=True),  # the folders' order is that of the model's labels
)
print(plan.info.classes, plan.info.inversion)
for note in plan.notes:
    print(note)

# %% Run it: encode, invert, and keep mean, variance and modes of each class.
artifact = plan.run(progress=False)
artifact.verify()  # every checksum, all statistics
print(artifact)

# %% Make images of the artifact. They are noise, since the model is random.
dataset = D3HRDataset("my-set", root="cache", ipc=4)
sheet = contact_sheet([image for image, _ in dataset], columns=dataset.ipc)
sheet.save("noise.png")
print(dataset)
