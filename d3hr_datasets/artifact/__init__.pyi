from .artifact import Artifact as Artifact
from .d3hr_json import FORMAT as FORMAT
from .d3hr_json import METADATA as METADATA
from .d3hr_json import STATISTICS as STATISTICS
