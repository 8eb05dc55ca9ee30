from .attack import AttackResult as AttackResult
from .attack import membership_advantage as membership_advantage
from .settings import PrivacySettings as PrivacySettings
