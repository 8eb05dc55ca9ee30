from .curate import curate_artifact as curate_artifact
from .learn import learn_artifact as learn_artifact
from .learning_settings import LearningSettings as LearningSettings
from .ordering import mean_distance as mean_distance
from .ordering import order_candidates as order_candidates
from .ordering import squared_mmd as squared_mmd
from .settings import CurationSettings as CurationSettings
