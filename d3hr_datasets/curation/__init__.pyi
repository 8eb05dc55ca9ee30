from .curate import curate_artifact as curate_artifact
from .ordering import mean_distance as mean_distance
from .ordering import order_candidates as order_candidates
from .ordering import squared_mmd as squared_mmd
from .settings import CurationSettings as CurationSettings
