from .build import build_artifact as build_artifact
from .launch import PATIENCE as PATIENCE
from .launch import join_processes as join_processes
