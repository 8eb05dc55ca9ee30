from .artifact import Artifact as Artifact
from .metadata import FORMAT as FORMAT
from .metadata import METADATA as METADATA
from .metadata import STATISTICS as STATISTICS
