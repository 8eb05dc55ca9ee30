from .artifact import Artifact as Artifact
from .budgets import copy_with_budgets as copy_with_budgets
from .changed_copies import copy_without_moments as copy_without_moments
from .d3hr_json import FORMAT as FORMAT
from .d3hr_json import METADATA as METADATA
from .d3hr_json import STATISTICS as STATISTICS
