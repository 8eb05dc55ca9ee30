from .build import build_artifact as build_artifact
from .build_settings import BuildSettings as BuildSettings
from .build_settings import ClassOptions as ClassOptions
from .joined_processes import PATIENCE as PATIENCE
from .joined_processes import join_processes as join_processes
from .model_options import ModelOptions as ModelOptions
from .planning import BuildPlan as BuildPlan
from .planning import plan_build as plan_build
