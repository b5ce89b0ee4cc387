"""What runs: workers, joins, models, the command `baton`. Handlers import `actor`, `Context`, `Retry`, `Fail`."""

from .errors import Fail, Retry
from .handlers import Context, actor

__all__ = ["Context", "Fail", "Retry", "actor"]
