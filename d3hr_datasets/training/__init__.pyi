from .adaption import adaption_settings as adaption_settings
from .config_files import training_settings as training_settings
from .diffusion import train_diffusion as train_diffusion
from .settings import DiffusionTraining as DiffusionTraining
