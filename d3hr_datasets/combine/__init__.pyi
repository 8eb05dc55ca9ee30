from .forget import ForgetOptions as ForgetOptions
from .forget import forget_images as forget_images
from .merge import merge_artifacts as merge_artifacts
