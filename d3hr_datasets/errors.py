"""The exceptions of this library.

Every one derives from `D3HRError` and from the built-in that fits, and its message says what
happened, the offending value, what is accepted, and what mends it.
"""

from __future__ import annotations


class D3HRError(Exception):
    """Base class of every error this library raises on purpose."""


class ConfigError(D3HRError, ValueError):
    """An argument or a setting has a value that is not accepted."""


class MissingExtraError(ConfigError, ImportError):
    """What was asked for needs libraries of an extra of this package, which are not installed."""


class UnsupportedPlatformError(D3HRError, ImportError):
    """This library does not run on this operating system."""


class ForeignFileError(D3HRError, OSError):
    """A file that others wrote cannot be read: it is missing, closed to us, no regular file, or too large."""


class ArtifactNotFoundError(D3HRError, FileNotFoundError):
    """There is no artifact at the place given."""


class ArtifactFormatError(D3HRError, ValueError):
    """An artifact holds something this version cannot read."""


class ArtifactIntegrityError(ArtifactFormatError):
    """A file of an artifact is not the one its `d3hr.json` describes."""


class ModelNotFoundError(D3HRError, FileNotFoundError):
    """The diffusion model an artifact refers to is not where it should be."""


class ModelFormatError(D3HRError, ValueError):
    """A diffusion model cannot be used with this artifact or by this library."""


class BuildError(D3HRError, RuntimeError):
    """A build cannot go on, because another of its processes has ended."""


class StatisticsError(D3HRError, ValueError):
    """Statistics are not those of a class Gaussian (not finite, negative, too few images)."""


class SourceError(D3HRError, ValueError):
    """Real images could not be opened."""


class ImagesNotFoundError(SourceError, RuntimeError):
    """The real images of a data set are not on this machine; the message says how to get them."""


class RealTestSetError(D3HRError, RuntimeError):
    """The real test set of a named data set is missing, or its classes are not those of the distilled set."""


class UnreadableImageError(D3HRError, ValueError):
    """An image of the source data could not be read. Not an `OSError`: timm skips those silently."""


class CacheError(D3HRError, RuntimeError):
    """The image cache could not be read or written."""


class ExportError(D3HRError, RuntimeError):
    """A data set could not be exported."""


class CacheMissError(CacheError):
    """An image is not cached, and this process cannot generate it."""


class TeacherError(D3HRError, ValueError):
    """A teacher cannot be used: its weights, its classes or their order do not fit the data set."""


class SoftLabelsError(D3HRError, ValueError):
    """Stored soft labels are not those of the data set, or cannot be read."""


class DivergenceError(D3HRError, FloatingPointError):
    """A training has come to a loss that is no number."""


class PublishError(D3HRError, RuntimeError):
    """The Hub does not take what should be published, or it is not fit to be."""
