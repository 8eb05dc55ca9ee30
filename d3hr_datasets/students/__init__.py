"""Students: what a distilled set is worth is what a network trained on it learns.

Stage: a data set, and a teacher where labels are soft -> a trained student and its accuracy on real images.
Needs the extra "train" (timm); multi-process and mixed-precision training needs accelerate.

- `models`: names of timm's registry -> networks; those of the literature are in `convnet` and `resnets`
- `protocol`: the constants of a training, as one frozen dataclass
- `views`: augmented views of images, reproducible from seed, epoch and index
- `teachers`, `labels`: soft labels, on the fly or stored
- `losses`, `training`: what is minimised, and the loop; `accelerator`: where it runs
- `evaluation`: accuracy on a test set, and a teacher's outputs
- `selection`: subsets of real images in a feature space, for baselines
- `scores`: mean and spread, LRS and ARS
"""
